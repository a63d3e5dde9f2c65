//! `ipam-agent check` on real veths: is an address free?

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tests::{
    daemon::{Answer, agent, agent_without},
    frames::{self, Arp, Nd},
    lab,
    netns::{Namespace, available},
};

/// A host with an address on `veth0`, and a pod behind it.
fn host() -> (Namespace, Namespace) {
    let (host, pod) = (Namespace::new(), Namespace::new());
    host.veth("veth0", &pod, "eth0");
    host.await_carrier("veth0");
    pod.await_carrier("eth0");
    host.ip("address add 10.77.0.1/24 dev veth0");
    host.ip("address add fd00:77::1/64 dev veth0 nodad");
    (host, pod)
}

/// Sooner done than by the standards: most tests are about what is heard, not how long.
const SOON: [&str; 2] = ["--within", "1s"];

fn check(host: &Namespace, address: &str, more: &[&str]) -> Answer {
    let args = [&["check", address, "-i", "veth0", "--output", "json"], more].concat();
    host.run(|| agent(&args)).expect("run")
}

fn mac(namespace: &Namespace, link: &str) -> Value {
    let shown = namespace.command(&format!("ip -j link show dev {link}"));
    let links: Value = serde_json::from_str(&shown).expect("JSON");
    links[0]["address"].clone()
}

#[test]
fn what_nobody_has_is_free() {
    if !available() {
        return;
    }
    let (host, pod) = host();
    // Another one's, so that there is somebody who could answer.
    pod.ip("address add 10.77.0.6/24 dev eth0");
    pod.ip("address add fd00:77::6/64 dev eth0 nodad");
    for address in ["10.77.0.5", "fd00:77::5"] {
        let free = check(&host, address, &SOON);
        assert_eq!(free.status, Some(0), "{free:?}");
        let document = free.json().expect("JSON");
        assert_eq!(document["schema"], "ipam-agent/check/v1");
        assert_eq!(document["verdict"], "free", "{document:#}");
        assert_eq!(document["probes"], 3, "{document:#}");
        assert_eq!(document["mac"], Value::Null, "{document:#}");
    }
    // By the standards' own timing, and as a person sees it.
    let args = ["check", "10.77.0.5", "-i", "veth0"];
    let free = host.run(|| agent(&args)).expect("run");
    assert_eq!(free.status, Some(0), "{free:?}");
    assert!(free.out.starts_with("10.77.0.5 is free"), "{}", free.out);
}

#[test]
fn what_a_kernel_has_is_in_use_and_by_whom() {
    if !available() {
        return;
    }
    let (host, pod) = host();
    pod.ip("address add 10.77.0.5/24 dev eth0");
    pod.ip("address add fd00:77::5/64 dev eth0 nodad");
    for (address, evidence) in [
        ("10.77.0.5", "arp-reply"),
        ("fd00:77::5", "neighbor-advertisement"),
    ] {
        let used = check(&host, address, &SOON);
        assert_eq!(used.status, Some(1), "{used:?}");
        let document = used.json().expect("JSON");
        assert_eq!(document["verdict"], "in-use", "{document:#}");
        assert_eq!(document["mac"], mac(&pod, "eth0"), "{document:#}");
        assert_eq!(document["evidence"], evidence, "{document:#}");
    }
    // It was asked without a claim: the pod learnt of nobody.
    let neighbours = pod.command("ip neigh show");
    assert!(!neighbours.contains("lladdr"), "{neighbours}");
}

#[test]
fn what_this_host_has_is_in_use() {
    if !available() {
        return;
    }
    let (host, _pod) = host();
    for address in ["10.77.0.1", "fd00:77::1"] {
        let own = check(&host, address, &[]);
        assert_eq!(own.status, Some(1), "{own:?}");
        let document = own.json().expect("JSON");
        assert_eq!(document["own_interface"], "veth0", "{document:#}");
        assert_eq!(document["mac"], Value::Null, "{document:#}");
    }
}

#[test]
fn what_another_probes_for_is_being_claimed() {
    if !available() {
        return;
    }
    let (host, pod) = host();
    let target = "fd00:77::5".parse().expect("an address");
    for (address, evidence, probe) in [
        (
            "10.77.0.5",
            "arp-probe",
            Arp::probe(frames::mac(9), [10, 77, 0, 5].into()).frame(),
        ),
        (
            "fd00:77::5",
            "dad-probe",
            Nd::dad(frames::mac(9), target).frame(),
        ),
    ] {
        let done = AtomicBool::new(false);
        let claimed = thread::scope(|scope| {
            let probing = scope.spawn(|| {
                pod.run(|| {
                    while !done.load(Ordering::Relaxed) {
                        lab::send("eth0", std::slice::from_ref(&probe)).expect("sent");
                        thread::sleep(Duration::from_millis(50));
                    }
                });
            });
            let claimed = check(&host, address, &[]);
            done.store(true, Ordering::Relaxed);
            probing.join().expect("sent");
            claimed
        });
        assert_eq!(claimed.status, Some(1), "{claimed:?}");
        let document = claimed.json().expect("JSON");
        assert_eq!(document["verdict"], "being-claimed", "{document:#}");
        assert_eq!(document["evidence"], evidence, "{document:#}");
        assert_eq!(document["mac"], json!("02:00:00:00:00:09"), "{document:#}");
    }
}

/// How many Neighbor Solicitations the kernel has sent out of `eth0`.
fn asked(pod: &Namespace) -> u64 {
    let counters = pod.run(|| fs::read_to_string("/proc/thread-self/net/dev_snmp6/eth0"));
    let counters = counters.expect("the counters");
    let mut words = counters.split_whitespace();
    words.find(|word| *word == "Icmp6OutNeighborSolicits");
    let count = words.next().expect("a count");
    count.parse().expect("a number")
}

#[test]
fn a_kernel_in_its_own_detection_is_heard_and_keeps_the_address() {
    if !available() {
        return;
    }
    let (host, pod) = host();
    pod.command("sysctl -qw net.ipv6.conf.eth0.dad_transmits=100");
    pod.command("sysctl -qw net.ipv6.neigh.eth0.retrans_time_ms=100");
    let before = asked(&pod);
    pod.ip("address add fd00:77::5/64 dev eth0");
    // It waits for up to a second before its first word; on a busy machine for longer than the
    // look before ours.
    let deadline = Instant::now() + Duration::from_secs(8);
    while asked(&pod) == before {
        assert!(Instant::now() < deadline, "the kernel doesn't ask");
        thread::sleep(Duration::from_millis(10));
    }
    let claimed = check(&host, "fd00:77::5", &[]);
    assert_eq!(claimed.status, Some(1), "{claimed:?}");
    let document = claimed.json().expect("JSON");
    assert_eq!(document["verdict"], "being-claimed", "{document:#}");
    assert_eq!(document["mac"], mac(&pod, "eth0"), "{document:#}");
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let shown = pod.command("ip -o -6 address show dev eth0");
        let line = shown.lines().find(|line| line.contains("fd00:77::5"));
        let line = line.expect("the address is there");
        assert!(!line.contains("dadfailed"), "{line}");
        if !line.contains("tentative") {
            break;
        }
        assert!(Instant::now() < deadline, "{line}");
        thread::sleep(Duration::from_millis(50));
    }
    let used = check(&host, "fd00:77::5", &SOON);
    let document = used.json().expect("JSON");
    assert_eq!(document["verdict"], "in-use", "{document:#}");
}

#[test]
fn an_interface_that_goes_in_the_middle_is_no_free_address() {
    if !available() {
        return;
    }
    for (end, words) in [
        ("link del veth0", "went down or away"),
        ("link set veth0 down", "went down or away"),
        // The other end: nothing says so on this one but its carrier.
        ("pod", "no carrier"),
    ] {
        let (host, pod) = host();
        let lost = thread::scope(|scope| {
            let checking = scope.spawn(|| check(&host, "10.77.0.5", &[]));
            thread::sleep(Duration::from_secs(2));
            match end {
                "pod" => pod.ip("link set eth0 down"),
                end => host.ip(end),
            }
            checking.join().expect("run")
        });
        assert_eq!(lost.status, Some(3), "{end}: {lost:?}");
        assert!(lost.err.contains(words), "{end}: {lost:?}");
        assert!(lost.out.is_empty(), "{end}: {lost:?}");
    }
}

#[test]
fn where_it_cannot_look_it_says_why_and_the_mend() {
    if !available() {
        return;
    }
    let (host, pod) = host();
    let run = |args: &[&str]| {
        host.run(|| agent(&[&["check"], args].concat()))
            .expect("run")
    };
    for (args, status, words) in [
        (
            &["10.77.0.5", "-i", "veth9"][..],
            3,
            "there is no interface veth9",
        ),
        (&["10.77.0.5", "-i", "lo"], 3, "lo is no Ethernet interface"),
        (
            &["224.0.0.1", "-i", "veth0"],
            2,
            "no address that a machine can have",
        ),
        (
            &["0.0.0.0", "-i", "veth0"],
            2,
            "no address that a machine can have",
        ),
        (
            &["::1", "-i", "veth0"],
            2,
            "no address that a machine can have",
        ),
        (&["web-0", "-i", "veth0"], 2, "invalid value"),
        (&["10.77.0.5"], 2, "--interface"),
        (
            &["10.77.0.5", "-i", "veth0", "--within", "1ms"],
            2,
            "100ms to 7s",
        ),
        (
            &["10.77.0.5", "-i", "veth0", "--within", "1h"],
            2,
            "100ms to 7s",
        ),
    ] {
        let answer = run(args);
        assert_eq!(answer.status, Some(status), "{args:?}: {answer:?}");
        assert!(answer.err.contains(words), "{args:?}: {answer:?}");
        assert!(answer.out.is_empty(), "{args:?}: {answer:?}");
    }
    let args = ["check", "10.77.0.5", "-i", "veth0"];
    let unable = host.run(|| agent_without("-net_raw", &args)).expect("run");
    assert_eq!(unable.status, Some(3), "{unable:?}");
    assert!(unable.err.contains("CAP_NET_RAW"), "{unable:?}");
    // With nothing else it works.
    let kept = host.run(|| agent_without("-all,+net_raw", &[&args[..], &SOON].concat()));
    assert_eq!(kept.expect("run").status, Some(0));

    pod.ip("link set eth0 down");
    let cut = run(&["10.77.0.5", "-i", "veth0"]);
    assert_eq!(cut.status, Some(3), "{cut:?}");
    assert!(cut.err.contains("veth0 has no carrier"), "{cut:?}");
    host.ip("link set veth0 down");
    let down = run(&["10.77.0.5", "-i", "veth0"]);
    assert_eq!(down.status, Some(3), "{down:?}");
    assert!(down.err.contains("ip link set veth0 up"), "{down:?}");
}
