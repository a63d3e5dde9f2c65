use std::net::IpAddr;

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{
    config::Config,
    driver::settings,
    engine::{
        Engine,
        evidence::{PassEvidence, Source, SourceReport},
        input::Input,
        lease::{Fencing, Generation, Holder, Mode, Place, StoreName, StoreView},
        owner::Owners,
    },
};

const MINUTE: Duration = Duration::from_secs(60);
const GATE: Duration = Duration::from_secs(900);

fn address(last: u8) -> Address {
    Address::from_ip(IpAddr::from([10, 0, 0, last])).expect("a host's address")
}

fn id(n: u8) -> Arc<str> {
    format!("{n:02x}").repeat(32).into()
}

/// READY, with the address of its number.
fn sandbox(n: u8) -> Sandbox {
    Sandbox {
        id: id(n),
        pod: format!("default/pod-{n}").into(),
        ready: true,
        addresses: vec![address(n)],
        own_network: true,
        namespace_gone: false,
        guest: false,
    }
}

fn stopped(n: u8, namespace_gone: bool) -> Sandbox {
    Sandbox {
        ready: false,
        addresses: Vec::new(),
        namespace_gone,
        ..sandbox(n)
    }
}

fn lease(last: u8, container: Option<u8>) -> Lease {
    let holder = Holder {
        container_id: container.map(id),
        ..Holder::default()
    };
    Lease::new(
        StoreName("host-local:pods".into()),
        address(last),
        &holder,
        &Generation::default(),
        None,
    )
}

fn report(answers: Vec<SocketAnswer>) -> RuntimeReport {
    let paths = ["/run/a.sock", "/run/b.sock"].map(Arc::from);
    RuntimeReport {
        own: Own::Host,
        sockets: paths.into_iter().zip(answers).collect(),
    }
}

fn listing(sandboxes: Vec<Sandbox>) -> RuntimeReport {
    report(vec![SocketAnswer::Sandboxes(sandboxes)])
}

fn minutes(n: u64) -> Timestamp {
    Timestamp(0) + MINUTE * u32::try_from(n).unwrap_or_default()
}

#[test]
fn a_ready_sandbox_holds_by_its_id_and_by_each_address() {
    let mut book = SandboxBook::default();
    let two = Sandbox {
        addresses: vec![address(1), address(2)],
        ..sandbox(1)
    };
    book.hear(listing(vec![two]), minutes(0));
    for held in [
        lease(1, Some(1)),
        // Of another network, by the id alone.
        lease(99, Some(1)),
        // A damaged record names nobody; the second of its addresses does.
        lease(2, None),
        // Another's id, and still its address.
        lease(2, Some(7)),
    ] {
        let blocker = book.holder(&held, minutes(60)).expect("it is held");
        assert_eq!(blocker.reason, Reason::Holder);
        assert_eq!(
            blocker.detail,
            "sandbox 010101010101 of default/pod-1 is READY"
        );
        assert_eq!(blocker.until, None);
    }
    assert_eq!(book.holder(&lease(3, Some(7)), minutes(60)), None);
    assert_eq!(book.holder(&lease(3, None), minutes(60)), None);
    assert_eq!(book.pod(&id(1)).map(|pod| &**pod), Some("default/pod-1"));
}

#[test]
fn one_that_is_not_ready_holds_for_a_while_and_while_its_namespace_is_there() {
    let mut book = SandboxBook::default();
    book.hear(
        listing(vec![stopped(1, true), stopped(2, false)]),
        minutes(0),
    );
    let held = |book: &SandboxBook, n, at| book.holder(&lease(n, Some(n)), minutes(at));
    let blocker = held(&book, 1, 3).expect("kubelet frees its own");
    assert_eq!(
        blocker.detail,
        "sandbox 010101010101 of default/pod-1 NOTREADY for 3 min of 10 min, its kubelet frees it"
    );
    assert_eq!(blocker.until, Some(minutes(10)));
    assert_eq!(held(&book, 2, 3).and_then(|blocker| blocker.until), None);
    assert_eq!(held(&book, 1, 10), None);
    let blocker = held(&book, 2, 14).expect("its namespace is there");
    assert_eq!(
        blocker.detail,
        "sandbox 020202020202 of default/pod-2 NOTREADY for 14 min, and nothing says that its \
         network namespace is gone: `crictl stopp 020202020202` frees it"
    );
    // READY between the two: it began anew.
    book.hear(listing(vec![sandbox(1)]), minutes(11));
    book.hear(listing(vec![stopped(1, true)]), minutes(12));
    assert!(held(&book, 1, 21).is_some());
    assert_eq!(held(&book, 1, 22), None);
}

#[test]
fn an_absent_socket_is_no_fault_until_it_has_answered() {
    let mut book = SandboxBook::default();
    let absent = || SocketAnswer::Absent;
    book.hear(report(vec![absent(), absent()]), minutes(0));
    let none = book.problem().expect("nobody answers");
    assert!(none.contains("/run/a.sock, /run/b.sock") && none.contains("cri: off"));
    let full = || SocketAnswer::Sandboxes(vec![sandbox(1)]);
    book.hear(report(vec![absent(), full()]), minutes(1));
    assert_eq!(book.problem(), None);
    book.hear(report(vec![full(), absent()]), minutes(2));
    let gone = book.problem().expect("the other one is gone");
    assert!(
        gone.starts_with("/run/b.sock answered earlier in this boot"),
        "{gone}"
    );
    book.hear(
        report(vec![full(), SocketAnswer::Failed("hung".into())]),
        minutes(3),
    );
    assert_eq!(book.problem().as_deref(), Some("hung"));
    // What was known of who doesn't answer still holds.
    assert!(book.holder(&lease(1, Some(1)), minutes(3)).is_some());
    book.hear(report(vec![full(), full()]), minutes(4));
    assert_eq!(book.problem(), None);
}

#[test]
fn a_list_that_lost_its_sandboxes_is_doubted_for_one_gate() {
    let mut book = SandboxBook::default();
    // Empty since boot: nothing was lost.
    book.hear(listing(vec![]), minutes(0));
    assert_eq!(book.doubt(GATE, minutes(0)), None);
    book.hear(listing(vec![sandbox(1)]), minutes(1));
    book.hear(listing(vec![]), minutes(2));
    assert_eq!(book.problem(), None);
    let doubt = book.doubt(GATE, minutes(5)).expect("it lost them");
    assert_eq!(doubt.reason, Reason::SourceDown);
    assert_eq!(
        doubt.detail,
        "cri: /run/a.sock lists no sandbox any more, which is believed after a while: \
         3 min of 15 min"
    );
    assert_eq!(doubt.until, Some(minutes(17)));
    assert!(book.doubt(GATE, minutes(16)).is_some());
    assert_eq!(book.doubt(GATE, minutes(17)), None);
    // Down in between: nobody knows what it listed then.
    book.hear(report(vec![SocketAnswer::Absent]), minutes(18));
    book.hear(listing(vec![]), minutes(19));
    assert!(book.doubt(GATE, minutes(33)).is_some());
}

/// A run after one that heard this book.
fn next_run(before: &SandboxBook) -> SandboxBook {
    let mut book = SandboxBook::default();
    book.remember(Some(before.heard().collect()));
    book
}

#[test]
fn what_was_heard_of_a_socket_outlives_the_run() {
    let full = || SocketAnswer::Sandboxes(vec![sandbox(1)]);
    let empty = || SocketAnswer::Sandboxes(vec![]);
    let mut first = SandboxBook::default();
    first.hear(report(vec![full(), empty()]), minutes(0));
    let heard: Vec<HeardSocket> = first.heard().collect();
    let filled = heard.iter().map(|socket| (&*socket.path, socket.filled));
    assert!(filled.eq([("/run/a.sock", true), ("/run/b.sock", false)]));

    let mut book = next_run(&first);
    book.hear(report(vec![empty(), empty()]), minutes(1));
    assert_eq!(book.problem(), None);
    let doubt = book.doubt(GATE, minutes(15)).expect("it lost them");
    assert!(
        doubt
            .detail
            .contains("/run/a.sock lists no sandbox any more")
    );
    assert_eq!(doubt.until, Some(minutes(16)));
    assert_eq!(book.doubt(GATE, minutes(16)), None);

    let mut book = next_run(&first);
    book.hear(report(vec![SocketAnswer::Absent, empty()]), minutes(1));
    let gone = book.problem().expect("it answered in this boot");
    assert!(gone.starts_with("/run/a.sock answered earlier"), "{gone}");
}

#[test]
fn where_nobody_knows_what_was_heard_lists_are_doubted_for_one_gate() {
    let mut book = SandboxBook::default();
    book.remember(None);
    let full = || SocketAnswer::Sandboxes(vec![sandbox(1)]);
    book.hear(report(vec![SocketAnswer::Absent, full()]), minutes(0));
    assert_eq!(book.problem(), None);
    let doubt = book.doubt(GATE, minutes(3)).expect("it may have answered");
    assert_eq!(
        doubt.detail,
        "cri: what was listed earlier in this boot is forgotten, so what is listed now is \
         believed after a while: 3 min of 15 min"
    );
    let failed = SocketAnswer::Failed("hung".into());
    book.hear(report(vec![failed, full()]), minutes(4));
    book.hear(listing(vec![sandbox(1)]), minutes(5));
    assert_eq!(
        book.doubt(GATE, minutes(19)).and_then(|doubt| doubt.until),
        Some(minutes(20))
    );
    assert_eq!(book.doubt(GATE, minutes(20)), None);
    // Or it can be read after all.
    book.remember(None);
    book.remember(Some(Vec::new()));
    assert_eq!(book.doubt(GATE, minutes(6)), None);
}

#[test]
fn in_a_pod_the_list_must_hold_its_own_sandbox() {
    let mut book = SandboxBook::default();
    let mut as_pod = |own: Option<u8>, sandboxes| {
        let own = Own::Pod(own.map(id));
        book.hear(
            RuntimeReport {
                own,
                ..listing(sandboxes)
            },
            minutes(0),
        );
        book.problem()
    };
    assert_eq!(as_pod(Some(1), vec![sandbox(1)]), None);
    for list in [vec![], vec![sandbox(2)]] {
        let why = as_pod(Some(1), list).expect("it isn't there");
        assert!(
            why.contains("own sandbox 010101010101 isn't listed"),
            "{why}"
        );
    }
    let why = as_pod(None, vec![sandbox(1)]).expect("it doesn't know itself");
    assert!(why.contains("mountinfo"), "{why}");
}

#[test]
fn what_was_not_told_in_full_is_asked_for_again() {
    let unaddressed = |n| Sandbox {
        addresses: Vec::new(),
        ..sandbox(n)
    };
    let host = Sandbox {
        own_network: false,
        ..unaddressed(3)
    };
    let mut book = SandboxBook::default();
    let stopped = [stopped(4, false), stopped(5, true)];
    book.hear(
        listing([vec![sandbox(1), unaddressed(2), host], stopped.to_vec()].concat()),
        minutes(0),
    );
    let told = |ready| {
        let told = (1..=6).filter(|&n| book.told(&id(n), ready).is_some());
        told.collect::<Vec<_>>()
    };
    assert_eq!((told(true), told(false)), (vec![1, 3], vec![5]));
}

#[test]
fn what_is_ready_must_be_configured_somewhere() {
    let mut book = SandboxBook::default();
    let shown = BTreeSet::from([address(1)]);
    let host = Sandbox {
        own_network: false,
        ..sandbox(5)
    };
    let guest = Sandbox {
        guest: true,
        ..sandbox(6)
    };
    let quiet = vec![sandbox(1), stopped(4, false), host, guest];
    book.hear(listing(quiet.clone()), minutes(0));
    let nowhere_else = |_| false;
    assert_eq!(book.unshown(&shown, nowhere_else), None);
    let more = [quiet, vec![sandbox(9)]].concat();
    book.hear(listing(more), minutes(1));
    assert_eq!(
        book.unshown(&shown, nowhere_else).as_deref(),
        Some(
            "cri and namespaces contradict each other: sandbox 090909090909 of default/pod-9 \
             is READY with 10.0.0.9, which is configured behind no veth: if that pod keeps its \
             address elsewhere for good (gVisor, SR-IOV), say `holders: { netns: false }` and the \
             container runtime alone is asked"
        )
    );
    let on_no_veth = |leased| leased == address(9);
    assert_eq!(book.unshown(&shown, on_no_veth), None);
}

#[test]
fn where_links_cannot_be_watched_no_address_is_missed_behind_a_veth() {
    let config = Config::without_file(Vec::new()).expect("all default");
    let macvlan = Place::Unwatchable("macvlan".into());
    for (place, missed) in [(macvlan, false), (Place::Routed, true)] {
        let mut engine = Engine::new(settings(&config, "now"));
        let leased = lease(1, Some(1));
        let view = StoreView {
            store: leased.store.clone(),
            mode: Mode::Observe,
            writable: Ok(()),
            place,
            pools: Vec::new(),
            leases: vec![leased],
            fencing: Fencing::default(),
        };
        let stores = Input::Stores {
            source: 0,
            views: vec![view],
            failed: Vec::new(),
            owners: Owners::default(),
        };
        engine.handle(stores, minutes(1));
        let evidence = PassEvidence {
            runtimes: Some(listing(vec![sandbox(1)])),
            sources: vec![SourceReport {
                source: Source::Namespaces,
                answer: Ok(Vec::new()),
            }],
            ..PassEvidence::default()
        };
        engine.handle(Input::Evidence(evidence), minutes(2));
        let down = &engine.last_pass().down;
        assert_eq!(down.is_empty(), !missed, "{down:?}");
    }
}

/// What a runtime may say of a few sandboxes, after so many seconds.
fn told() -> impl Strategy<Value = (u64, SocketAnswer)> {
    let one = (1..5u8, any::<[bool; 3]>()).prop_map(|(n, [ready, has_address, namespace_gone])| {
        Sandbox {
            ready,
            addresses: if has_address {
                vec![address(n)]
            } else {
                vec![]
            },
            namespace_gone,
            ..sandbox(n)
        }
    });
    let answer = prop_oneof![
        4 => vec(one, 0..4).prop_map(SocketAnswer::Sandboxes),
        1 => Just(SocketAnswer::Absent),
        1 => Just(SocketAnswer::Failed("hung".into())),
    ];
    (1..1200u64, answer)
}

proptest! {
    /// Against the rules read plainly off the whole history.
    #[test]
    fn whatever_is_told_no_sign_of_life_is_forgotten(told in vec(told(), 1..20)) {
        let mut book = SandboxBook::default();
        let mut history = Vec::new();
        let mut now = Timestamp(0);
        for (pause, answer) in told {
            now = now + Duration::from_secs(pause);
            // The last of a list with one id twice counts, as in the book.
            let answer = match answer {
                SocketAnswer::Sandboxes(list) => {
                    let list: BTreeMap<_, _> =
                        list.into_iter().map(|one| (Arc::clone(&one.id), one)).collect();
                    SocketAnswer::Sandboxes(list.into_values().collect())
                }
                other => other,
            };
            book.hear(report(vec![answer.clone()]), now);
            history.push((now, answer.clone()));
            let answered = matches!(answer, SocketAnswer::Sandboxes(_));
            prop_assert_eq!(book.problem().is_none(), answered);
            let SocketAnswer::Sandboxes(list) = &answer else { continue };
            for one in list {
                // Since when it was never listed READY, nor missing from a list.
                let since = history.iter().rev().map_while(|(at, answer)| match answer {
                    SocketAnswer::Sandboxes(list) => {
                        let listed = list.iter().find(|other| other.id == one.id)?;
                        (!listed.ready).then_some(*at)
                    }
                    _ => Some(now),
                });
                let since = since.min().unwrap_or(now);
                let holds = one.ready
                    || now.since(since) < NOT_READY_HOLDS
                    || !one.namespace_gone;
                let n = id_number(&one.id);
                prop_assert_eq!(book.holder(&lease(200, Some(n)), now).is_some(), holds);
                if holds && !one.addresses.is_empty() {
                    prop_assert!(book.holder(&lease(n, None), now).is_some());
                }
            }
            for n in 1..5 {
                if list.iter().all(|one| one.id != id(n)) {
                    prop_assert_eq!(book.holder(&lease(200, Some(n)), now), None);
                }
            }
            let filled = history.iter().any(|(_, answer)| is_filled(answer));
            let mut empty = history.iter().rev().take_while(|(_, answer)| is_empty(answer));
            let since = empty.by_ref().last().map(|(at, _)| *at);
            let doubted = filled && since.is_some_and(|since| now.since(since) < GATE);
            prop_assert_eq!(book.doubt(GATE, now).is_some(), doubted);
        }
    }
}

fn id_number(id: &str) -> u8 {
    u8::from_str_radix(&id[..2], 16).expect("an id of ours")
}

fn is_empty(answer: &SocketAnswer) -> bool {
    matches!(answer, SocketAnswer::Sandboxes(list) if list.is_empty())
}

fn is_filled(answer: &SocketAnswer) -> bool {
    matches!(answer, SocketAnswer::Sandboxes(list) if !list.is_empty())
}
