//! The addresses behind the host's veths, asked of the real kernel.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering},
};

use caps::{CapSet, Capability};
use ipam_agent::{
    engine::evidence::Held,
    holder::namespaces::{NamespacesError, addresses_behind_veths},
};
use tests::netns::{Namespace, available};

fn ask(host: &Namespace) -> Vec<(String, Option<u32>)> {
    let held: Vec<Held> = host.run(addresses_behind_veths).expect("an answer");
    held.iter()
        .map(|held| (held.address.to_string(), held.ifindex))
        .filter(|(address, _)| !address.starts_with("fe80:"))
        .collect()
}

#[test]
fn addresses_of_pods_are_told_with_the_veth_they_are_behind() {
    if !available() {
        return;
    }
    let host = Namespace::new();
    let (one, two) = (Namespace::new(), Namespace::new());
    host.veth("veth1", &one, "eth0");
    host.veth("veth2", &two, "eth0");
    host.veth("veth2b", &two, "net1");
    // The host's own, on both ends of a pair: nothing is behind it.
    host.ip("link add vethx type veth peer name vethy");
    host.ip("addr add 10.9.0.1/24 dev veth1");
    host.ip("addr add 10.9.0.2/24 dev vethy");
    one.ip("addr add 10.1.0.5/24 dev eth0");
    one.ip("addr add 10.1.0.6/32 dev lo");
    one.ip("addr add 2001:db8::5/64 dev eth0");
    two.ip("addr add 10.1.0.7/24 dev eth0");
    // Of the link's scope, and tentative for as long as the test runs.
    two.ip("addr add 169.254.7.7/16 dev net1 scope link");
    two.command("sysctl -qw net.ipv6.conf.net1.dad_transmits=600");
    two.ip("addr add 2001:db8::7/64 dev net1");
    let [veth1, veth2, veth2b] = ["veth1", "veth2", "veth2b"].map(|name| Some(host.ifindex(name)));
    let expected = [
        ("10.1.0.5", veth1),
        ("10.1.0.6", None),
        ("10.1.0.7", veth2),
        ("169.254.7.7", veth2b),
        ("2001:db8::5", veth1),
        ("2001:db8::7", veth2b),
    ];
    let expected: BTreeSet<_> = expected
        .iter()
        .map(|(a, i)| ((*a).to_owned(), *i))
        .collect();
    assert_eq!(ask(&host).into_iter().collect::<BTreeSet<_>>(), expected);
}

#[test]
fn a_host_without_pods_holds_nothing() {
    if !available() {
        return;
    }
    let host = Namespace::new();
    host.ip("link add br0 type bridge");
    host.ip("addr add 10.0.0.1/24 dev br0");
    assert_eq!(ask(&host), []);
}

#[test]
fn pods_that_come_and_go_never_make_the_others_disappear() {
    if !available() {
        return;
    }
    let host = Namespace::new();
    let stay = Namespace::new();
    host.veth("stay", &stay, "eth0");
    stay.ip("addr add 10.1.0.5/24 dev eth0");
    let stop = AtomicBool::new(false);
    let churn = || {
        let mut rounds = 0;
        while !stop.load(Ordering::Relaxed) {
            let pod = Namespace::new();
            host.veth(&format!("veth{rounds}"), &pod, "eth0");
            pod.ip("addr add 10.1.0.99/24 dev eth0");
            rounds += 1;
        }
        rounds
    };
    let rounds = std::thread::scope(|scope| {
        let churn = scope.spawn(churn);
        for _ in 0..400 {
            let held = ask(&host);
            assert!(
                held.iter().any(|(address, _)| address == "10.1.0.5"),
                "{held:?}"
            );
            assert!(
                held.iter()
                    .all(|(address, _)| address.starts_with("10.1.0.")),
                "{held:?}"
            );
        }
        stop.store(true, Ordering::Relaxed);
        churn.join()
    });
    assert!(rounds.expect("the churn") > 0);
}

#[test]
fn what_may_not_be_asked_is_an_error_and_not_nothing() {
    if !available() {
        return;
    }
    let host = Namespace::new();
    let pod = Namespace::new();
    host.veth("veth1", &pod, "eth0");
    pod.ip("addr add 10.1.0.5/24 dev eth0");
    let refused = host.run(|| {
        caps::drop(None, CapSet::Effective, Capability::CAP_NET_ADMIN).expect("it is ours to drop");
        addresses_behind_veths()
    });
    assert!(
        matches!(refused, Err(NamespacesError::Addresses { .. })),
        "{refused:?}"
    );
}
