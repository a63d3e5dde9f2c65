//! Ports that are attached to at once, and settled later.

use ipam_agent::{
    engine::evidence::PortCheck,
    source::live::{Hook, Live},
};

use super::{
    AUTO, announcement, available, blind, block, clock, hooks, host, ip, is_attached, one, send,
};

fn hook(live: &Live) -> Option<Hook> {
    live.ports().map(|(_, hook)| hook).next()
}

#[test]
fn it_is_watched_at_once_and_settled_without_a_gap() {
    if !available() {
        return;
    }
    let (host, pod, ifindex) = host();
    host.run(|| {
        block(async {
            let (mut live, mut events) = Live::load(AUTO, None, clock::now).expect("loaded");
            let since = live.attach_at_once(ifindex, "veth0").expect("attached");
            assert_eq!(hook(&live), Some(Hook::Clsact));
            assert!(is_attached(&live, ifindex));
            send(&pod, &[announcement(5, None)]);
            assert_eq!(one(&mut events).await.sighting.address, ip(5));

            let (settled, result) = live.settle().expect("a port is left");
            assert_eq!((settled, result.expect("attached")), (ifindex, since));
            assert!(is_attached(&live, ifindex));
            assert_eq!(live.check(ifindex), PortCheck::Attached(since));
            // Where the kernel has TCX, the filter and its qdisc are gone.
            let tcx = hook(&live) == Some(Hook::Tcx);
            assert_eq!(!hooks(&host).contains("clsact"), tcx, "{}", hooks(&host));
            send(&pod, &[announcement(6, None)]);
            assert_eq!(one(&mut events).await.sighting.address, ip(6));
            assert!(live.settle().is_none(), "it is settled twice");
        });
    });
    assert!(super::is_clean(&host, ifindex), "{}", hooks(&host));
}

#[test]
fn who_came_before_it_meanwhile_is_found() {
    if !available() {
        return;
    }
    let (host, _pod, ifindex) = host();
    host.run(|| {
        block(async {
            let (mut live, _events) = Live::load(AUTO, None, clock::now).expect("loaded");
            let since = live.attach_at_once(ifindex, "veth0").expect("attached");
            // The newest filter of a priority is the first.
            let (mut other, _) = Live::load(super::CLSACT, None, clock::now).expect("loaded");
            other.attach(ifindex, "veth0").expect("attached");
            blind(live.check(ifindex));
            assert!(live.settle().is_none(), "settled, though it was blind");
            assert!(live.attach(ifindex, "veth0").expect("attached") > since);
        });
    });
}

#[test]
fn a_qdisc_of_somebody_elses_stays_when_it_is_settled() {
    if !available() {
        return;
    }
    let (host, _pod, ifindex) = host();
    host.command("tc qdisc add dev veth0 clsact");
    host.run(|| {
        block(async {
            let (mut live, _events) = Live::load(AUTO, None, clock::now).expect("loaded");
            live.attach_at_once(ifindex, "veth0").expect("attached");
            let (_, result) = live.settle().expect("a port is left");
            result.expect("attached");
        });
    });
    let left = hooks(&host);
    assert!(
        left.contains("clsact") && !left.contains("ipam_agent"),
        "{left}"
    );
}
