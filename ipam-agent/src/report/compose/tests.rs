//! What a person reads of things that the engine judged.

use std::{sync::Arc, time::Duration};

use insta::assert_snapshot;
use ipam_common::{Address, Evidence, Mac, Sighting, sighting::Tags};
use jiff::Timestamp as WallTime;

use super::*;
use crate::{
    config::Config,
    driver::settings,
    engine::{
        input::{Input, Seen},
        lease::{Generation, Lease, Mode, Place, Pool, StoreName, StoreView},
        owner::Owners,
        plan::Asker,
        segment::{Bridge, OwnAddress, Port, PortKind, Topology, Wiring},
    },
    journal::{Content, Grant, UndoResult},
    report::{
        Format, View,
        document::{Explain, HistoryEntry, ProofRecord, ReleaseResult, UndoRecord},
        render,
    },
};

const BRIDGE: &str = "mgmt-br";
/// A pod, and a machine behind the uplink.
const POD: (u32, [u8; 6]) = (1, [2, 0, 0, 0, 0, 1]);
const MACHINE: (u32, [u8; 6]) = (2, [0x3c, 0xec, 0xef, 0, 0, 2]);
const START: Timestamp = Timestamp(1_000_000_000);

fn address() -> Address {
    Address::from_ip([10, 52, 0, 5].into()).expect("claimable")
}

/// Two ports of a bridge, and what is heard there.
struct World {
    engine: Engine,
    now: Timestamp,
    grants: i64,
    pools: Vec<Pool>,
}

impl World {
    /// At ten o'clock.
    fn new() -> Self {
        Self::of(Topology::default())
    }

    /// The same on a host that has the address itself, on the bridge.
    fn ours(mac: Mac) -> Self {
        let mut topology = Topology::default();
        topology.own_macs.insert(mac);
        topology.local.insert(address(), BRIDGE.into());
        topology.own_addresses.push(OwnAddress {
            address: address(),
            ifindex: 100,
            mac: Some(mac),
        });
        Self::of(topology)
    }

    fn of(mut topology: Topology) -> Self {
        let config = Config::without_file(Vec::new()).expect("valid");
        let mut world = Self {
            engine: Engine::new(settings(&config, "boot")),
            now: START,
            grants: 0,
            pools: Vec::new(),
        };
        let ports = [
            ("veth1a2b3c4d", PortKind::Veth),
            ("mgmt-bo", PortKind::Bond),
        ];
        for (ifindex, (name, kind)) in (1..).zip(ports) {
            let port = Port::new(name, kind, Wiring::bridge(BRIDGE));
            topology.ports.insert(ifindex, port);
        }
        let bridge = Bridge {
            ifindex: 100,
            filtering: None,
        };
        topology.bridges.insert(BRIDGE.into(), bridge);
        world.engine.handle(
            Input::Links {
                topology: Arc::new(topology),
                since: world.now,
            },
            world.now,
        );
        world.leased(None);
        world
    }

    /// Lets the clock go on to so many seconds after ten, timer by timer.
    fn at(&mut self, seconds: f64) {
        let to = START + Duration::from_secs_f64(seconds);
        while let Some(at) = self.engine.poll_timeout()
            && at <= to
        {
            self.now = self.now.max(at);
            self.engine.handle_timeout(self.now);
            while self.engine.next_command().is_some() {}
        }
        self.now = to;
    }

    fn announces(&mut self, seconds: f64, (ifindex, mac): (u32, [u8; 6])) {
        self.at(seconds);
        let seen = Seen {
            again: false,
            at: self.now,
            ifindex,
            sighting: Sighting {
                address: address(),
                mac: Mac::new(mac).expect("unicast"),
                evidence: Evidence::ArpAnnouncement,
                asked: None,
                tags: Tags::default(),
                ether_src: mac,
                to: [0xff; 6],
                nonce: None,
            },
        };
        self.engine.handle(Input::Seen(seen), self.now);
    }

    /// The store is read: this is whom it leases the address to.
    fn leased(&mut self, holder: Option<Holder>) {
        self.grants += 1;
        let store = StoreName("host-local:net".into());
        let generation = Generation {
            modified: self.grants,
            ..Generation::default()
        };
        let lease = |holder| Lease::new(store.clone(), address(), &holder, &generation, None);
        let view = StoreView {
            fencing: Default::default(),
            store: store.clone(),
            mode: Mode::Observe,
            writable: Ok(()),
            place: Place::Bridge {
                bridge: BRIDGE.into(),
                vlan: None,
            },
            pools: self.pools.clone(),
            leases: holder.map(lease).into_iter().collect(),
        };
        let stores = Input::Stores {
            source: 0,
            views: vec![view],
            failed: Vec::new(),
            owners: Owners::default(),
        };
        self.engine.handle(stores, self.now);
    }

    fn composer(&self) -> Composer<'_> {
        let ten: WallTime = "2026-11-23T10:00:00Z".parse().expect("a time");
        Composer {
            engine: &self.engine,
            clock: WallClock::since(ten.as_nanosecond() - i128::from(START.0)),
            now: self.now,
            host: "node1",
            boot: None,
            blind: &[],
        }
    }

    fn reason(&self) -> String {
        let report = self.composer().report();
        let [conflict] = report.conflicts.as_slice() else {
            panic!("{:?}", report.conflicts);
        };
        conflict.reason.clone()
    }

    fn explained(&self) -> String {
        show(&self.composer().explain(address()))
    }
}

fn show(explain: &Explain) -> String {
    let view = View {
        width: Some(80),
        color: false,
    };
    render(explain, Format::Table, view).expect("rendered")
}

fn pod(name: &str) -> Holder {
    Holder {
        container_id: Some("4f1d".repeat(16).into()),
        pod: Some(name.into()),
        mac: Mac::new(POD.1),
        ..Holder::default()
    }
}

/// Both say that it is theirs, in turns.
fn contested(holder: Option<Holder>) -> World {
    let mut world = World::new();
    world.leased(holder);
    for (seconds, who) in [(10.0, POD), (15.0, MACHINE), (15.3, POD), (16.0, MACHINE)] {
        world.announces(seconds, who);
    }
    world
}

#[test]
fn the_reason_names_whoever_takes_part() {
    let contest = "10.52.0.5 is used by 02:00:00:00:00:01 on veth1a2b3c4d and 3c:ec:ef:00:00:02 \
                   (Super Micro Computer) on mgmt-bo at once: they assert it in turns";
    let behind = |interface: &str| Holder {
        mac: None,
        host_interface: Some(interface.into()),
        ..pod("default/web-0")
    };
    let nameless = Holder {
        pod: None,
        ..pod("")
    };
    let absent = Holder {
        mac: Mac::new([2, 0, 0, 0, 0, 9]),
        ..pod("default/web-0")
    };
    for (holder, grant) in [
        (None, ""),
        (
            Some(pod("default/web-0")),
            "; host-local:net leased it to default/web-0 (02:00:00:00:00:01)",
        ),
        (
            Some(nameless),
            "; host-local:net leased it to container 4f1d4f1d4f1d (02:00:00:00:00:01)",
        ),
        (
            Some(behind("mgmt-bo")),
            "; host-local:net leased it to default/web-0 (3c:ec:ef:00:00:02)",
        ),
        (
            Some(behind("veth9")),
            "; host-local:net leased it to default/web-0, which is none of them",
        ),
        (
            Some(absent),
            "; host-local:net leased it to default/web-0 (02:00:00:00:00:09), which is none of them",
        ),
        (
            Some(Holder::default()),
            "; host-local:net leased it to a holder without a name",
        ),
    ] {
        assert_eq!(contested(holder).reason(), format!("{contest}{grant}"));
    }
}

#[test]
fn this_host_may_be_the_leaseholder() {
    let mac = Mac::new([2, 0, 0, 0, 0, 7]).expect("unicast");
    let mut world = World::ours(mac);
    world.leased(Some(Holder {
        mac: Some(mac),
        ..pod("vm/router")
    }));
    world.announces(10.0, MACHINE);
    world.at(12.0);
    assert_eq!(
        world.reason(),
        "10.52.0.5 is used by 02:00:00:00:00:07 (this host) and 3c:ec:ef:00:00:02 (Super Micro \
         Computer) on mgmt-bo at once: one of them is this host; host-local:net leased it to \
         vm/router (02:00:00:00:00:07)"
    );
}

#[test]
fn an_address_of_this_host_is_told_as_such() {
    let mac = Mac::new([2, 0, 0, 0, 0, 7]).expect("unicast");
    let mut world = World::ours(mac);
    world.pools.push(Pool {
        prefix: "10.52.0.0/24".parse().expect("a prefix"),
        range: None,
        gateway: Some(address()),
        gateway_mac: None,
        exclude: Vec::new(),
        place: None,
    });
    world.leased(None);
    let silent = world.explained();
    world.announces(10.0, MACHINE);
    world.at(12.0);
    let contested = world.explained();
    assert_snapshot!(format!("{silent}\n----\n{contested}"));

    // Nobody hears this host's own frames: it is not gone for that.
    let report = world.composer().report();
    let table = render(&report, Format::Table, View::default()).expect("rendered");
    let own = table
        .lines()
        .find(|line| line.contains("02:00:00:00:00:07  "));
    assert!(
        own.is_some_and(|line| line.contains("this host")),
        "{table}"
    );
}

#[test]
fn a_stranger_is_told_with_whom_it_is_leased_to() {
    let mut world = World::new();
    world.leased(Some(Holder {
        pod: None,
        ..pod("")
    }));
    world.announces(5.0, MACHINE);
    assert_eq!(
        world.reason(),
        "10.52.0.5 is leased to container 4f1d4f1d4f1d (02:00:00:00:00:01) by host-local:net, \
         but 3c:ec:ef:00:00:02 (Super Micro Computer) on mgmt-bo asserts it"
    );
}

#[test]
fn a_pods_name_cannot_move_the_cursor() {
    let world = contested(Some(pod("x\x1b[2J\u{9b}2J\r\nFAKE")));
    let report = world.composer().report();
    let explain = world.composer().explain(address());
    for format in [Format::Table, Format::Csv] {
        let view = View::default();
        let texts = [
            render(&report, format, view).expect("rendered"),
            render(&explain, format, view).expect("rendered"),
        ];
        for text in texts {
            let obeyed = |character: char| character != '\n' && character.is_control();
            assert!(!text.contains(obeyed), "{text:?}");
            assert!(text.contains("x\\u{1b}[2J\\u{9b}2J\\r\\nFAKE"), "{text}");
        }
    }
}

#[test]
fn the_story_of_an_address_never_heard() {
    assert_snapshot!(World::new().explained());
}

#[test]
fn the_story_of_an_address_used_and_leased() {
    let mut world = World::new();
    world.at(60.0);
    world.leased(Some(pod("default/web-0")));
    world.announces(61.0, POD);
    world.announces(90.0, POD);
    world.at(95.0);
    assert_snapshot!(world.explained());
}

#[test]
fn the_story_of_a_duplicate_that_came_back() {
    let mut world = contested(Some(pod("default/web-0")));
    for seconds in [100.0, 200.0, 300.0] {
        world.announces(seconds, POD);
    }
    assert!(
        world
            .explained()
            .contains("the duplicate-address is resolved")
    );
    world.announces(330.0, MACHINE);
    world.announces(330.4, POD);
    world.at(340.0);
    assert_snapshot!(world.explained());
}

#[test]
fn the_story_of_an_address_that_was_released() {
    let mut world = World::new();
    world.at(600.0);
    let mut explain = world.composer().explain(address());
    let release = |seconds: u64, result, detail: Option<&str>| HistoryEntry {
        id: seconds.to_string(),
        at: world
            .composer()
            .clock
            .at(START + Duration::from_secs(seconds)),
        boot_id: "boot".to_owned(),
        asker: Asker::Person,
        by: (seconds == 500).then(|| "ada".to_owned()),
        store: "host-local:net".to_owned(),
        address: address().ip(),
        holder: HolderName {
            pod: Some("default/job-7".to_owned()),
            ..HolderName::default()
        },
        damage: None,
        record: Grant {
            inode: 7,
            modified: 5,
            content: Content::Text("4bd7\r\neth0".to_owned()),
            file: None,
        },
        reason: "10.52.0.5, leased to default/job-7, was not heard for 21 min".to_owned(),
        evidence: ProofRecord {
            watched_since: jiff::Timestamp::UNIX_EPOCH,
            gate_seconds: 900,
            quiet_seconds: 1260,
            unchanged_seconds: 1300,
            earlier_boot: None,
            sources: vec!["namespaces".to_owned()],
            passes: 2,
            unanswered_probes: Some(6),
        },
        result,
        finished_at: None,
        detail: detail.map(str::to_owned),
        undo: (seconds == 500).then(|| UndoRecord {
            at: Some(world.composer().clock.at(START + Duration::from_secs(550))),
            asker: Some(Asker::Daemon),
            by: None,
            reason: Some("10.52.0.5 was asserted after the release".to_owned()),
            result: Some(UndoResult::PutBack),
            finished_at: None,
            detail: None,
        }),
        taken: None,
    };
    // The journal has the newest first.
    explain.tell_releases([
        release(500, ReleaseResult::Released, None),
        release(400, ReleaseResult::Unknown, None),
        release(300, ReleaseResult::Failed, Some("read-only file system")),
        release(200, ReleaseResult::Kept, Some("heard 1 s ago")),
    ]);
    assert_snapshot!(show(&explain));
}
