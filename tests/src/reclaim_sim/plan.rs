//! What a world of reclaim is unfolded from.

use std::time::Duration;

use ipam_agent::engine::{
    evidence::Source,
    lease::{Damage, Mode},
    reclaim::ReclaimSettings,
};
use proptest::prelude::*;

/// How many networks there are, each with a store of its own.
pub const NETS: usize = 5;

/// A world, before it is played.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Seconds instead of minutes, as in a laboratory.
    pub short: bool,
    /// What the daemon may do unasked, for each network's store.
    pub modes: [Mode; NETS],
    /// Whether the container runtime is asked.
    pub cri: bool,
    /// Leases are files of the real store's, in a directory.
    pub files: bool,
    /// The budget of a pass.
    pub max_per_pass: usize,
    /// The budget of a pool.
    pub max_percent: u8,
    /// Whether an address is kept by configuration.
    pub keep: bool,
    /// How many incidents there were when the agent was started for the first time.
    pub installed_after: usize,
    /// What happens.
    pub incidents: Vec<Incident>,
    /// What the rest is drawn from.
    pub seed: u64,
}

/// Something happens, so many beats after the one before.
#[derive(Clone, Copy, Debug)]
pub struct Incident {
    /// Beats.
    pub pause: u16,
    /// What.
    pub what: What,
}

/// By which evidence alone a machine shows that it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Habit {
    /// ARP or Neighbor Discovery.
    Talks,
    /// IP packets, and never a word of ARP.
    Packets,
    /// Its address, configured behind a veth. It says nothing.
    Configured,
    /// The container runtime knows it. It says nothing.
    Known,
    /// All of it.
    Ordinary,
    /// A word now and then: from time to time it is silent for longer than the shortest gate,
    /// but not for four times as long. It answers nobody.
    Whispers,
}

/// What a container runtime says that isn't so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// Sandboxes that are gone are READY.
    Ready,
    /// Sandboxes that are gone are there, and NOTREADY.
    NotReady,
    /// Of those who live, who can be seen in other ways, too, are not listed.
    Forgets,
    /// Nobody listens at its socket.
    Gone,
}

/// Something that happens. Numbers of leases, machines and ports are taken modulo how many
/// there are.
#[derive(Clone, Copy, Debug)]
pub enum What {
    /// A pod is made: it is granted an address, and set up for so long, in percent of the
    /// longest.
    Start {
        /// The network.
        net: u8,
        /// How it lives.
        habit: Habit,
        /// Percent.
        setup: u8,
        /// It has the id of one before it.
        same_id: bool,
    },
    /// A machine ends. Its lease is given back after so many beats, or never.
    Die {
        /// Which.
        machine: u8,
        /// Beats.
        freed_after: Option<u16>,
    },
    /// A machine comes with the address of a lease whose holder is gone, or that was released
    /// already.
    Return {
        /// Which.
        lease: u8,
        /// How it lives.
        habit: Habit,
    },
    /// A pod is granted an address, one that was released if there is, announces it, and can't
    /// be set up: its link goes and its lease is given back at once.
    Attempt {
        /// Which address.
        lease: u8,
    },
    /// The store frees a lease whose holder is gone, and grants the address to a new pod.
    Regrant {
        /// Which.
        lease: u8,
        /// How the pod lives.
        habit: Habit,
        /// With the id that the lease had.
        same_id: bool,
    },
    /// A record is damaged where it stands.
    Spoil {
        /// Which.
        lease: u8,
        /// How.
        damage: Damage,
    },
    /// Somebody asks whether a leased address is free.
    Probe {
        /// Which.
        lease: u8,
    },
    /// Our program is taken off a port, and can't be put back for so long.
    Detach {
        /// Which.
        port: u8,
        /// Beats.
        beats: u16,
        /// Whether the agent is told.
        told: bool,
    },
    /// Another program takes a port's frames before ours.
    Intrude {
        /// Which.
        port: u8,
        /// Beats.
        beats: u16,
        /// Whether the agent is told.
        told: bool,
    },
    /// An uplink loses its carrier.
    Dark {
        /// Which.
        uplink: u8,
        /// Beats.
        beats: u16,
    },
    /// No event reaches the agent.
    Lossy {
        /// Beats.
        beats: u16,
    },
    /// A source of holders can't answer.
    Down {
        /// Which.
        source: Source,
        /// Beats.
        beats: u16,
    },
    /// The container runtime says what isn't so.
    Lies {
        /// How.
        lie: Lie,
        /// Beats.
        beats: u16,
    },
    /// The sources' next answers take their time.
    Late {
        /// Beats.
        beats: u16,
    },
    /// A source's next answer leaves out what it should name.
    Glitch {
        /// Which.
        source: Source,
    },
    /// What is asked on the wire and answered gets lost, or takes long.
    Garbled {
        /// Beats.
        beats: u16,
    },
    /// A network's leases, or all, can't be read.
    Unreadable {
        /// Which; all.
        net: Option<u8>,
        /// Beats.
        beats: u16,
    },
    /// The agent's state can't be written.
    BrokenState {
        /// Beats.
        beats: u16,
    },
    /// Another process holds the stores' lock before each of the next plan's releases.
    Contended {
        /// Seconds; five are more than the store waits.
        seconds: u8,
    },
    /// Who writes without the lock grants anew what is about to be released.
    Lawless,
    /// The agent is killed in its next release, before the lease is gone or after.
    KilledReleasing {
        /// Before.
        before: bool,
        /// Whether its maps stay.
        pinned: bool,
    },
    /// The agent is killed, and started again.
    Restart {
        /// Whether its maps stay.
        pinned: bool,
        /// Whether what it remembers is lost.
        forgets: bool,
        /// Beats without an agent.
        beats: u16,
    },
    /// The power is cut.
    PowerCut {
        /// Beats until the agent is there again.
        beats: u16,
        /// How many older records are damaged, too.
        damaged: u8,
    },
    /// A person has all released that is proven.
    Apply,
    /// The wall clock jumps.
    Jump {
        /// Seconds.
        seconds: i32,
    },
}

/// Any world.
pub fn plans() -> impl Strategy<Value = Plan> {
    let mode = || {
        prop_oneof![
            6 => Just(Mode::Continuous),
            2 => Just(Mode::AfterReboot),
            1 => Just(Mode::Observe),
        ]
    };
    let modes = [mode(), mode(), mode(), mode(), mode()];
    let budget = (prop_oneof![Just(64usize), 1usize..4], 1u8..=100);
    let incidents = prop::collection::vec(incident(), 4..48);
    let files = prop::bool::weighted(0.15);
    let flags = (any::<bool>(), any::<bool>(), files, any::<bool>());
    (modes, budget, flags, 0usize..6, incidents, any::<u64>()).prop_map(
        |(
            modes,
            (max_per_pass, max_percent),
            (short, cri, files, keep),
            installed_after,
            incidents,
            seed,
        )| {
            Plan {
                short,
                // One directory has one mode.
                modes: if files { [modes[0]; NETS] } else { modes },
                cri,
                files,
                max_per_pass,
                max_percent,
                keep,
                installed_after,
                incidents,
                seed,
            }
        },
    )
}

fn incident() -> impl Strategy<Value = Incident> {
    let pause = prop_oneof![3 => 0u16..2, 5 => 0u16..20, 3 => 0u16..70, 1 => 0u16..200];
    (pause, what()).prop_map(|(pause, what)| Incident { pause, what })
}

fn habit() -> impl Strategy<Value = Habit> {
    prop::sample::select(vec![
        Habit::Talks,
        Habit::Packets,
        Habit::Configured,
        Habit::Known,
        Habit::Ordinary,
        Habit::Whispers,
    ])
}

fn what() -> impl Strategy<Value = What> {
    let beats = || 0u16..50;
    let n = any::<u8>;
    let source = || prop::sample::select(vec![Source::Cri, Source::Namespaces]);
    let damage = prop::sample::select(vec![
        Damage::Empty,
        Damage::Nul,
        Damage::Truncated,
        Damage::IdOnly,
    ]);
    let lies = vec![Lie::Ready, Lie::NotReady, Lie::Forgets, Lie::Gone];
    let lie = prop::sample::select(lies);
    let grant = (n(), habit(), 0u8..=100, any::<bool>());
    let die = (n(), prop::option::weighted(0.25, beats()));
    prop_oneof![
        16 => grant.prop_map(|(net, habit, setup, same_id)| What::Start { net, habit, setup, same_id }),
        12 => die.prop_map(|(machine, freed_after)| What::Die { machine, freed_after }),
        8 => (n(), habit()).prop_map(|(lease, habit)| What::Return { lease, habit }),
        4 => n().prop_map(|lease| What::Attempt { lease }),
        3 => (n(), habit(), any::<bool>())
            .prop_map(|(lease, habit, same_id)| What::Regrant { lease, habit, same_id }),
        2 => (n(), damage).prop_map(|(lease, damage)| What::Spoil { lease, damage }),
        1 => n().prop_map(|lease| What::Probe { lease }),
        2 => (n(), beats(), any::<bool>())
            .prop_map(|(port, beats, told)| What::Detach { port, beats, told }),
        2 => (n(), beats(), any::<bool>())
            .prop_map(|(port, beats, told)| What::Intrude { port, beats, told }),
        2 => (n(), beats()).prop_map(|(uplink, beats)| What::Dark { uplink, beats }),
        1 => beats().prop_map(|beats| What::Lossy { beats }),
        1 => (source(), beats()).prop_map(|(source, beats)| What::Down { source, beats }),
        3 => (lie, beats()).prop_map(|(lie, beats)| What::Lies { lie, beats }),
        1 => (0u16..5).prop_map(|beats| What::Late { beats }),
        2 => source().prop_map(|source| What::Glitch { source }),
        2 => beats().prop_map(|beats| What::Garbled { beats }),
        1 => (prop::option::of(n()), beats())
            .prop_map(|(net, beats)| What::Unreadable { net, beats }),
        1 => beats().prop_map(|beats| What::BrokenState { beats }),
        2 => (1u8..6).prop_map(|seconds| What::Contended { seconds }),
        1 => Just(What::Lawless),
        1 => (any::<bool>(), any::<bool>())
            .prop_map(|(before, pinned)| What::KilledReleasing { before, pinned }),
        2 => (any::<bool>(), prop::bool::weighted(0.2), beats())
            .prop_map(|(pinned, forgets, beats)| What::Restart { pinned, forgets, beats }),
        2 => (1u16..20, 0u8..3).prop_map(|(beats, damaged)| What::PowerCut { beats, damaged }),
        4 => Just(What::Apply),
        1 => (-100_000i32..100_000).prop_map(|seconds| What::Jump { seconds }),
    ]
}

impl Plan {
    /// What a release needs in this world.
    pub fn settings(&self) -> ReclaimSettings {
        let seconds = |long, short| Duration::from_secs(if self.short { short } else { long });
        ReclaimSettings {
            gate: seconds(900, 40),
            damaged_gate: seconds(1800, 60),
            asked_gate: seconds(300, 20),
            asked_damaged_gate: seconds(900, 30),
            reboot_gate: seconds(60, 10),
            pass_interval: seconds(60, 5),
            max_per_pass: self.max_per_pass,
            max_percent: self.max_percent,
            keep: self
                .keep
                .then(|| super::net::net(0).kept())
                .into_iter()
                .collect(),
            data_plane: true,
        }
    }

    /// The measure of this world's time: about a fortieth of its gate, in seconds.
    pub fn beat(&self) -> u64 {
        if self.short { 1 } else { 20 }
    }

    /// The longest that a pod's set-up takes: it is nowhere to be seen meanwhile.
    pub fn longest_setup(&self) -> Duration {
        self.settings().asked_gate.mul_f64(0.8)
    }
}
