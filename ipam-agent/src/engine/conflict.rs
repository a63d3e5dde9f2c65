//! Verdicts: what is wrong with an address, how badly, and why, in words.

use std::{collections::BTreeSet, sync::Arc};

use ipam_common::{Address, Mac};

use super::{lease::StoreName, segment::Segment, time::Timestamp};

/// What is wrong. The first four are of an address in a segment, in the order of weight: of
/// all that hold, the first is the kind of the one conflict that there is. The other two are
/// conflicts of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Two owners assert the address and both are alive.
    DuplicateAddress,
    /// The address is set apart for somebody else than who asserts it.
    ReservedAddress,
    /// The address is leased to somebody else than who asserts it.
    LeaseMismatch,
    /// A managed address is asserted and nobody leased it.
    UnleasedAddress,
    /// One MAC is behind two ports at once.
    DuplicateMac,
    /// The address is leased to two holders.
    DuplicateLease,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 6] = [
        Self::DuplicateAddress,
        Self::ReservedAddress,
        Self::LeaseMismatch,
        Self::UnleasedAddress,
        Self::DuplicateMac,
        Self::DuplicateLease,
    ];

    /// The name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::DuplicateAddress => "duplicate-address",
            Self::LeaseMismatch => "lease-mismatch",
            Self::ReservedAddress => "reserved-address",
            Self::UnleasedAddress => "unleased-address",
            Self::DuplicateMac => "duplicate-mac",
            Self::DuplicateLease => "duplicate-lease",
        }
    }
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Somebody should look.
    Warning,
    /// Somebody is losing traffic now.
    Critical,
}

/// What shows that two claimants of one address are both alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Alive {
    /// One asserted again within DEFEND_INTERVAL after the other had followed it.
    Return,
    /// The lease's holder asserted after a stranger did.
    HolderReturn,
    /// The second asserted again after the first's return.
    SecondReturn,
    /// Both answered the same asker within a second.
    TwoAnswers,
    /// They took turns: A, B, A, B inside three minutes.
    Alternation,
    /// One of them is this host.
    Ours,
    /// The address is configured behind two ports of this host.
    TwoPorts,
    /// Both answered a unicast probe of ours.
    Confirmed,
}

impl Alive {
    /// Whether this alone makes the conflict critical: anything but a plain return, which a
    /// router that preempts within seconds looks like too.
    pub const fn is_critical(self) -> bool {
        !matches!(self, Self::Return | Self::HolderReturn)
    }

    const fn words(self) -> &'static str {
        match self {
            Self::Return => "one asserted it again within 10 s of the other",
            Self::HolderReturn => "the leaseholder asserted it again after the other did",
            Self::SecondReturn => "each asserted it again after the other",
            Self::TwoAnswers => "both answered the same question within a second",
            Self::Alternation => "they assert it in turns",
            Self::Ours => "one of them is this host",
            Self::TwoPorts => "it is configured behind both ports",
            Self::Confirmed => "both answered when asked",
        }
    }
}

/// Two or more claimants of one address, and what shows that they are alive. A contest of
/// one can't be built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contested {
    claimants: Vec<Mac>,
    proofs: BTreeSet<Alive>,
}

impl Contested {
    /// The contest, if there are at least two claimants and a proof.
    pub fn new(claimants: BTreeSet<Mac>, proofs: BTreeSet<Alive>) -> Option<Self> {
        (claimants.len() >= 2 && !proofs.is_empty()).then(|| Self {
            claimants: claimants.into_iter().collect(),
            proofs,
        })
    }

    /// The claimants, at least two, in the order of their MACs.
    pub fn claimants(&self) -> &[Mac] {
        &self.claimants
    }

    /// What shows that both are alive, at least one.
    pub fn proofs(&self) -> &BTreeSet<Alive> {
        &self.proofs
    }
}

/// Whom an address is leased to, as far as the wire can tell holders apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HolderIdentity {
    /// By MAC.
    Mac(Mac),
    /// By the host interface behind which it is.
    Interface(Arc<str>),
    /// The lease was granted while the address was in use.
    GrantedWhileInUse,
}

/// What an address is set apart for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reserve {
    /// The pool's gateway, with its MAC.
    Gateway(Mac),
    /// Excluded from the pool: who may have it, nobody said.
    Excluded,
    /// The subnet's own number.
    Network,
    /// The subnet's broadcast address.
    Broadcast,
    /// A virtual router's, with its MAC (VRRP, CARP, HSRP, GLBP).
    VirtualRouter(Mac),
}

/// What is wrong with an address, and what shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// [`Kind::DuplicateAddress`].
    Duplicate(Contested),
    /// [`Kind::ReservedAddress`].
    Reserved {
        /// Who asserts it.
        claimants: Vec<Mac>,
        /// What it is set apart for.
        reserve: Reserve,
        /// The pool's store; none of a virtual router's address.
        store: Option<StoreName>,
    },
    /// [`Kind::LeaseMismatch`].
    Mismatch {
        /// Who asserts it without being the holder.
        strangers: Vec<Mac>,
        /// The lease's store.
        store: StoreName,
        /// The holder, named: the pod, else the container.
        holder: Option<Arc<str>>,
        /// How the holder is told.
        identity: HolderIdentity,
    },
    /// [`Kind::UnleasedAddress`].
    Unleased {
        /// Who asserts it.
        claimants: Vec<Mac>,
        /// The pool's store.
        store: StoreName,
    },
    /// [`Kind::DuplicateMac`].
    DuplicateMac {
        /// The MAC, once.
        mac: [Mac; 1],
        /// The ports that it was heard on, by name; at least two.
        ports: Vec<Arc<str>>,
    },
    /// [`Kind::DuplicateLease`].
    DuplicateLease {
        /// Each lease's store, and its holder in words; at least two.
        holders: Vec<(StoreName, Arc<str>)>,
    },
}

impl Verdict {
    /// The verdict's kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Duplicate(_) => Kind::DuplicateAddress,
            Self::Mismatch { .. } => Kind::LeaseMismatch,
            Self::Reserved { .. } => Kind::ReservedAddress,
            Self::Unleased { .. } => Kind::UnleasedAddress,
            Self::DuplicateMac { .. } => Kind::DuplicateMac,
            Self::DuplicateLease { .. } => Kind::DuplicateLease,
        }
    }

    /// The severity, given whether the address is a segment's gateway or this host's.
    pub fn severity(&self, vital: bool) -> Severity {
        let critical = match self {
            Self::Duplicate(contested) => {
                contested.proofs().iter().any(|alive| alive.is_critical())
            }
            Self::Mismatch { identity, .. } => *identity == HolderIdentity::GrantedWhileInUse,
            _ => false,
        };
        match self {
            _ if critical || vital => Severity::Critical,
            // Whoever it is may well be whom it was excluded for.
            Self::Reserved {
                reserve: Reserve::Excluded,
                ..
            } => Severity::Info,
            _ => Severity::Warning,
        }
    }

    /// The MACs that are part of it.
    pub fn macs(&self) -> &[Mac] {
        match self {
            Self::Duplicate(contested) => contested.claimants(),
            Self::Mismatch { strangers, .. } => strangers,
            Self::Reserved { claimants, .. } | Self::Unleased { claimants, .. } => claimants,
            Self::DuplicateMac { mac, .. } => mac,
            Self::DuplicateLease { .. } => &[],
        }
    }

    /// One sentence that a person understands; `name` adds to a MAC where it was heard.
    pub fn sentence(&self, address: Address, name: &dyn Fn(Mac) -> String) -> String {
        let list = |macs: &[Mac]| {
            macs.iter()
                .map(|&mac| name(mac))
                .collect::<Vec<_>>()
                .join(" and ")
        };
        match self {
            Self::Duplicate(contested) => {
                let proof = contested.proofs().iter().next_back();
                format!(
                    "{address} is used by {} at once: {}",
                    list(contested.claimants()),
                    proof.map_or("", |alive| alive.words()),
                )
            }
            Self::Mismatch {
                strangers,
                store,
                holder,
                identity,
            } => {
                let who = holder.as_deref().unwrap_or("another");
                match identity {
                    HolderIdentity::Mac(mac) => format!(
                        "{address} is leased to {who} ({}) by {store}, but {} asserts it",
                        name(*mac),
                        list(strangers)
                    ),
                    HolderIdentity::Interface(interface) => format!(
                        "{address} is leased to {who} behind {interface} by {store}, but {} asserts it",
                        list(strangers)
                    ),
                    HolderIdentity::GrantedWhileInUse => format!(
                        "{address} was granted to {who} by {store} while in use by {}",
                        list(strangers)
                    ),
                }
            }
            Self::Reserved {
                claimants,
                reserve,
                store,
            } => {
                let of = store
                    .as_ref()
                    .map_or_else(String::new, |store| format!(" of {store}"));
                let what = match reserve {
                    Reserve::Gateway(mac) => format!("the gateway{of}, {}", name(*mac)),
                    Reserve::Excluded => format!("excluded from the pool{of}"),
                    Reserve::Network => format!("the network's own address{of}"),
                    Reserve::Broadcast => format!("the broadcast address{of}"),
                    Reserve::VirtualRouter(mac) => format!("the virtual router's, {}", name(*mac)),
                };
                format!("{address} is {what}, but {} asserts it", list(claimants))
            }
            Self::Unleased { claimants, store } => format!(
                "{address} belongs to {store}, which leased it to nobody, but {} asserts it",
                list(claimants)
            ),
            Self::DuplicateMac { mac: [mac], ports } => {
                format!("{mac} is behind {} at once", ports.join(" and "))
            }
            Self::DuplicateLease { holders } => {
                let held = |(store, holder): &(StoreName, Arc<str>)| format!("{holder} by {store}");
                let holders: Vec<String> = holders.iter().map(held).collect();
                format!("{address} is leased to {}", holders.join(" and to "))
            }
        }
    }
}

/// One conflict, from its first sign until an hour after it ended, under one id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Its id, the same for as long as it lasts and when it comes back within an hour.
    pub id: Arc<str>,
    /// What is wrong now or, when it is over, was last.
    pub verdict: Verdict,
    /// How bad it is.
    pub severity: Severity,
    /// The first frame that is part of it.
    pub first_seen: Timestamp,
    /// The last one.
    pub last_seen: Timestamp,
    /// When it was found.
    pub opened: Timestamp,
    /// When it ended.
    pub resolved: Option<Timestamp>,
    /// What it has been, in order of time; the last is what it is.
    pub steps: Vec<Step>,
}

/// That a conflict opened, changed its kind or severity, or ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// When the evidence for it was complete.
    pub at: Timestamp,
    /// What it was from then on.
    pub kind: Kind,
    /// How bad.
    pub severity: Severity,
    /// Whether it went on.
    pub active: bool,
}

/// How many steps of a conflict are kept: the first, and the latest.
const MAX_STEPS: usize = 32;

impl Conflict {
    /// Note a step, if it is one.
    fn step(&mut self, at: Timestamp) {
        let step = Step {
            at,
            kind: self.verdict.kind(),
            severity: self.severity,
            active: self.is_active(),
        };
        let same = |last: &Step| Step { at, ..*last } == step;
        if self.steps.last().is_some_and(same) {
            return;
        }
        if self.steps.len() >= MAX_STEPS {
            self.steps.remove(1);
        }
        self.steps.push(step);
    }

    /// One that begins now, with its first step.
    pub(super) fn begin(
        segment: &Segment,
        about: About,
        verdict: Verdict,
        severity: Severity,
        first_seen: Timestamp,
        last_seen: Timestamp,
        now: Timestamp,
    ) -> Self {
        let mut conflict = Self {
            id: conflict_id(segment, about, first_seen),
            verdict,
            severity,
            first_seen,
            last_seen,
            opened: now,
            resolved: None,
            steps: Vec::new(),
        };
        conflict.step(now);
        conflict
    }

    /// Goes on as this; whether it had been over.
    pub(super) fn go_on(
        &mut self,
        verdict: Verdict,
        severity: Severity,
        last_seen: Timestamp,
        now: Timestamp,
    ) -> bool {
        let back = self.resolved.take().is_some();
        self.verdict = verdict;
        self.severity = severity;
        self.last_seen = last_seen;
        self.step(now);
        back
    }

    /// Ends it; whether it wasn't over.
    pub(super) fn end(&mut self, at: Timestamp) -> bool {
        let ends = self.resolved.is_none();
        if ends {
            self.resolved = Some(at);
            self.step(at);
        }
        ends
    }

    /// Whether it goes on.
    pub fn is_active(&self) -> bool {
        self.resolved.is_none()
    }
}

/// What a conflict is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum About {
    /// Who uses an address.
    Address(Address),
    /// Where a MAC is.
    Mac(Mac),
    /// To whom an address is leased.
    Lease(Address),
}

/// An id that a conflict has for good: a hash of what it is about and when it began, so
/// that a replay of the same frames gives the same id.
fn conflict_id(segment: &Segment, about: About, first_seen: Timestamp) -> Arc<str> {
    // FNV-1a, 64 bits.
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut eat = |bytes: &[u8]| {
        for &byte in bytes {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    };
    eat(segment.to_string().as_bytes());
    match about {
        About::Address(address) => eat(&address.mapped()),
        About::Lease(address) => {
            eat(b"lease");
            eat(&address.mapped());
        }
        About::Mac(mac) => eat(&mac.bytes()),
    }
    eat(&first_seen.0.to_be_bytes());
    format!("{:012x}", hash >> 16).into()
}

/// Something that is no conflict, and worth knowing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What.
    pub kind: EventKind,
    /// Where.
    pub segment: Segment,
    /// The address.
    pub address: Address,
    /// When.
    pub at: Timestamp,
    /// The MACs that are part of it. Of a move: from, to; of a collision: who asked, and who
    /// has it or asked too; of a mismatch: ARP's sender, and Ethernet's.
    pub macs: Vec<Mac>,
    /// Of a collision: whether the second asked too.
    pub both_asked: bool,
    /// Of a released address: what became of its lease, in words.
    pub outcome: Option<Arc<str>>,
}

/// Kinds of [`Event`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventKind {
    /// An address changed its owner, and the old one is not heard any more.
    AddressMoved,
    /// Somebody asked whether the address is free, and it isn't; or two asked at once.
    ProbeCollision,
    /// A frame's Ethernet source isn't the sender that its ARP names.
    SenderMismatch,
    /// A released address is in use.
    ReleasedButAlive,
}

impl EventKind {
    /// The name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AddressMoved => "address-moved",
            Self::ProbeCollision => "probe-collision",
            Self::SenderMismatch => "sender-mismatch",
            Self::ReleasedButAlive => "released-but-alive",
        }
    }

    /// How bad it is.
    pub const fn severity(self) -> Severity {
        match self {
            // The agent itself gave away what somebody uses.
            Self::ReleasedButAlive => Severity::Critical,
            Self::AddressMoved | Self::ProbeCollision | Self::SenderMismatch => Severity::Info,
        }
    }
}

impl Event {
    /// In one sentence, with each MAC as `name` has it.
    pub fn sentence(&self, name: &dyn Fn(Mac) -> String) -> String {
        let address = self.address;
        let names: Vec<String> = self.macs.iter().map(|&mac| name(mac)).collect();
        match (self.kind, names.as_slice()) {
            (EventKind::AddressMoved, [from, to]) => {
                format!("{address} moved from {from} to {to}")
            }
            (EventKind::ProbeCollision, [asker, other]) if self.both_asked => {
                format!("{asker} and {other} both probed for {address}")
            }
            (EventKind::ProbeCollision, [asker, owner]) => {
                format!("{asker} probed for {address}, which {owner} has")
            }
            (EventKind::SenderMismatch, [sender, source]) => {
                format!("{address} was asserted for {sender} in a frame from {source}")
            }
            (EventKind::ReleasedButAlive, names) => {
                let by = names.first().map(|name| format!(" by {name}"));
                let outcome = self
                    .outcome
                    .as_deref()
                    .map(|outcome| format!(": {outcome}"));
                format!(
                    "{address} was released and is in use{}{}",
                    by.unwrap_or_default(),
                    outcome.unwrap_or_default()
                )
            }
            (kind, names) => format!("{}: {address} {}", kind.name(), names.join(", ")),
        }
    }
}
