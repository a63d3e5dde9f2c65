//! In which order leases go.

mod cadence;

use std::sync::Arc;

use ipam_common::{Address, sighting::Stamps};

use super::*;
use crate::{
    config::Config,
    driver::settings,
    engine::{
        Engine,
        evidence::{PassEvidence, PortCheck, SourceReport},
        input::{Command, Input, Remembered},
        lease::{Damage, Generation, Holder, Lease, Mode, Place, Pool, StoreName, StoreView},
        owner::Owners,
        segment::{Port, PortKind, Wiring},
    },
};

fn lease(last: u8, damage: Option<Damage>) -> Lease {
    let generation = Generation {
        inode: last.into(),
        ..Generation::default()
    };
    Lease::new(
        StoreName("host-local:net".into()),
        Address::v4([10, 0, 0, last]).expect("claimable"),
        &Holder::default(),
        &generation,
        damage,
    )
}

fn topology() -> Topology {
    let mut topology = Topology::default();
    // Its wire isn't asked before a release.
    let port = Port::new("veth1", PortKind::Veth, Wiring::Routed);
    topology.ports.insert(1, port);
    topology
}

#[test]
fn the_oldest_boot_goes_first_and_of_each_the_damaged_last() {
    let config = Config::without_file(Vec::new()).expect("valid");
    let mut engine = Engine::new(settings(&config, "now"));
    let mut now = Timestamp(1_000_000_000);
    // By address the wrong way round; the third boot was not remembered.
    let damaged = Some(Damage::Empty);
    let leases = vec![
        lease(1, damaged),
        lease(2, None),
        lease(3, damaged),
        lease(4, None),
        lease(5, damaged),
        lease(6, None),
    ];
    // The names of boots are in no order.
    let boots = [(5, "boot-z"), (6, "boot-z"), (4, "boot-a"), (3, "boot-a")];
    let remembered = boots.map(|(last, boot)| Remembered {
        store: StoreName("host-local:net".into()),
        address: lease(last, None).address,
        generation: lease(last, None).generation(),
        boot: boot.into(),
        since: Timestamp(0),
    });
    engine.handle(Input::Remembered(remembered.into()), now);
    engine.handle(Input::State(Ok(())), now);
    engine.handle(
        Input::Links {
            topology: Arc::new(topology()),
            since: now,
        },
        now,
    );
    engine.handle(
        Input::Attached {
            ifindex: 1,
            since: now,
        },
        now,
    );
    let view = StoreView {
        fencing: Default::default(),
        store: StoreName("host-local:net".into()),
        mode: Mode::Observe,
        writable: Ok(()),
        place: Place::Routed,
        pools: Vec::new(),
        leases: leases.clone(),
    };
    let stores = Input::Stores {
        source: 0,
        views: vec![view],
        failed: Vec::new(),
        owners: Owners::default(),
    };
    engine.handle(stores, now);
    while let Some(command) = engine.next_command() {
        if let Command::Watch { add, .. } = command {
            engine.handle(Input::Watching(add), now);
        }
    }
    for _ in 0..3 {
        now = now + Duration::from_secs(1800);
        let stamps = leases
            .iter()
            .map(|lease| (lease.address, Stamps::default()));
        let evidence = PassEvidence {
            runtimes: None,
            person: false,
            ports: vec![(1, PortCheck::Attached(Timestamp(0)))],
            stamps: stamps.collect(),
            sources: vec![SourceReport {
                source: Source::Namespaces,
                answer: Ok(Vec::new()),
            }],
        };
        engine.handle(Input::Evidence(evidence), now);
    }
    let plan = engine.plan(Asker::Person, now);
    let order = plan.releases.iter().map(|release| release.lease().clone());
    let expected = [6, 5, 4, 3, 2, 1].map(|last: u8| leases[usize::from(last) - 1].clone());
    assert_eq!(order.collect::<Vec<_>>(), expected);
}
