use std::time::Duration;

use ipam_common::sighting::Stamps;

use super::*;
use crate::{
    config::Config,
    driver::settings,
    engine::{
        evidence::{PassEvidence, Source, SourceReport},
        input::{Command, Input},
        lease::{Generation, Holder, Lease, Mode, Place, StoreView},
        owner::Owners,
        plan::Asker,
        segment::PortKind,
    },
};

const SECOND: Duration = Duration::from_secs(1);

fn links(ports: &[(u32, PortKind)]) -> Topology {
    let port = |&(ifindex, kind): &(u32, PortKind)| {
        // Its wire isn't asked before a release.
        let port = Port {
            namespace: (kind == PortKind::Veth).then_some(1),
            ..Port::new(format!("port{ifindex}"), kind, Wiring::Routed)
        };
        (ifindex, port)
    };
    Topology {
        ports: ports.iter().map(port).collect(),
        ..Topology::default()
    }
}

/// A plan with one release on a wire with one port, just made, and its vigil.
fn planned() -> (ReclaimPlan, Vigil, Timestamp) {
    let config = Config::without_file(Vec::new()).unwrap();
    let mut engine = Engine::new(settings(&config, "now"));
    let mut now = Timestamp(1_000_000_000);
    let lease = Lease::new(
        StoreName("host-local:net".into()),
        Address::v4([10, 0, 0, 5]).unwrap(),
        &Holder::default(),
        &Generation::default(),
        None,
    );
    let view = StoreView {
        fencing: Default::default(),
        store: lease.store.clone(),
        mode: Mode::Observe,
        writable: Ok(()),
        place: Place::Routed,
        pools: Vec::new(),
        leases: vec![lease.clone()],
    };
    let since = now;
    let topology = Arc::new(links(&[(1, PortKind::Veth)]));
    for input in [
        Input::State(Ok(())),
        Input::Links { topology, since },
        Input::Attached { ifindex: 1, since },
        Input::Stores {
            source: 0,
            views: vec![view],
            failed: Vec::new(),
            owners: Owners::default(),
        },
    ] {
        engine.handle(input, now);
    }
    while let Some(command) = engine.next_command() {
        if let Command::Watch { add, .. } = command {
            engine.handle(Input::Watching(add), now);
        }
    }
    for _ in 0..3 {
        now = now + 600 * SECOND;
        let evidence = PassEvidence {
            runtimes: None,
            person: false,
            ports: vec![(1, PortCheck::Attached(since))],
            stamps: vec![(lease.address, Stamps::default())],
            sources: vec![SourceReport {
                source: Source::Namespaces,
                answer: Ok(Vec::new()),
            }],
        };
        engine.handle(Input::Evidence(evidence), now);
    }
    let plan = engine.plan(Asker::Person, now);
    assert_eq!(plan.releases.len(), 1, "{plan:?}");
    let vigil = Vigil::of(&engine, &plan, now);
    (plan, vigil, now)
}

/// A look so long after the plan, which finds these ports and this on them.
fn look(
    (plan, vigil, began): &mut (ReclaimPlan, Vigil, Timestamp),
    after: Duration,
    ports: &[(u32, PortKind)],
    checks: &[(u32, PortCheck)],
) -> Result<(), String> {
    let now = *began + after;
    vigil.links(links(ports), now, now);
    for (ifindex, check) in checks {
        assert!(vigil.ports().contains(ifindex));
        vigil.checked(*ifindex, check, now);
    }
    let kept = vigil.is_kept(&plan.releases[0], now);
    kept.map_err(|blocker| blocker.to_string())
}

fn attached(at: Timestamp) -> PortCheck {
    PortCheck::Attached(at)
}

const OLD: (u32, PortKind) = (1, PortKind::Veth);
const NEW: (u32, PortKind) = (2, PortKind::Veth);

#[test]
fn what_is_as_it_was_judged_is_kept() {
    let mut world = planned();
    let old = (1, attached(Timestamp(1_000_000_000)));
    for after in [0, 1, 60] {
        look(
            &mut world,
            after * SECOND,
            &[OLD],
            std::slice::from_ref(&old),
        )
        .unwrap();
    }
    // A port that is gone blocks nothing.
    look(&mut world, 61 * SECOND, &[], &[]).unwrap();
}

#[test]
fn a_new_veth_is_allowed_if_it_was_attached_to_in_time() {
    let old = (1, attached(Timestamp(1_000_000_000)));
    let blind = (2, PortCheck::Blind("not attached".into()));
    let just_come = || {
        let mut world = planned();
        let checks = [old.clone(), blind.clone()];
        look(&mut world, SECOND / 2, &[OLD, NEW], &checks).unwrap();
        world
    };
    let mut world = just_come();
    let began = world.2;
    let timely = (2, attached(began + SECOND * 9 / 10));
    look(&mut world, 9 * SECOND, &[OLD, NEW], &[old.clone(), timely]).unwrap();

    let mut world = just_come();
    let checks = [old.clone(), blind.clone()];
    let why = look(&mut world, 2 * SECOND, &[OLD, NEW], &checks).unwrap_err();
    assert!(why.contains("port2 isn't watched"), "{why}");
    let late = (2, attached(began + 3 * SECOND));
    let why = look(&mut world, 4 * SECOND, &[OLD, NEW], &[old, late]).unwrap_err();
    assert!(why.contains("could have been missed"), "{why}");
}

#[test]
fn beyond_any_other_new_port_are_those_who_were_there_before() {
    let mut world = planned();
    let began = world.2;
    let checks = [
        (1, attached(Timestamp(1_000_000_000))),
        (2, attached(began)),
    ];
    let tap = (2, PortKind::Other);
    let why = look(&mut world, SECOND, &[OLD, tap], &checks).unwrap_err();
    assert!(why.contains("port2 was put on routed"), "{why}");
}

#[test]
fn what_was_attached_anew_has_missed_something() {
    let mut world = planned();
    let anew = (1, attached(world.2 + SECOND));
    look(&mut world, 2 * SECOND, &[OLD], &[anew]).unwrap_err();
    let mut world = planned();
    let blind = (1, PortCheck::Blind("gone".into()));
    let why = look(&mut world, SECOND, &[OLD], &[blind]).unwrap_err();
    assert!(why.contains("gone"), "{why}");
    // And so has everything, where nobody knows.
    let mut world = planned();
    world.1.started(world.2);
    let old = (1, attached(Timestamp(1_000_000_000)));
    look(&mut world, SECOND, &[OLD], &[old]).unwrap_err();
}

#[test]
fn who_was_wired_otherwise_gives_the_wire_another_name() {
    let (_, mut vigil, _) = planned();
    let trunk = |members: &[u16]| {
        let mut links = links(&[(1, PortKind::Veth), (2, PortKind::Other)]);
        for port in links.ports.values_mut() {
            port.wiring = Wiring::Bridge {
                bridge: "br0".into(),
                pvid: None,
                members: members.iter().copied().collect(),
                untagged: BTreeSet::new(),
            };
        }
        Arc::new(links)
    };
    let segment = Segment {
        name: "br0".into(),
        outer_vlan: None,
        vlan: Some(10),
    };
    vigil.judged = trunk(&[10]);
    vigil.links = trunk(&[10]);
    assert_eq!(vigil.changed(&segment), None);
    vigil.links = trunk(&[10, 20]);
    let changed = vigil.changed(&segment).map(|port| &*port.name);
    assert_eq!(changed, Some("port2"), "of a veth's guest all is heard");
}
