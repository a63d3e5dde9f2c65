//! The prober on real veths, asking real kernels, and peers that only speak frames.

#[path = "prober/survey.rs"]
mod survey;

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use ipam_agent::{
    engine::segment::{Segment, Topology},
    prober::{Answer, Asker, Confirm, Heard, Look, Outlet, ProbeError, Prober, Schedule},
    source::links::{LinkEvent, Links, NameFilter},
};
use ipam_common::{Address, Evidence, Mac, sighting::Tags};
use tests::{
    frames::{self, Arp},
    lab,
    netns::{Namespace, available},
};

const UNTAGGED: Tags = Tags { outer: 0, vlan: 0 };

/// Does something asynchronous in a namespace.
fn within<T: Send>(namespace: &Namespace, act: impl AsyncFnOnce() -> T + Send) -> T {
    namespace.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.expect("a runtime").block_on(act())
    })
}

fn claimable(text: &str) -> Address {
    Address::from_ip(text.parse().expect(text)).expect(text)
}

/// A host with a bridge `br0`, addresses of its own there, and pods behind `veth0`, ….
struct Host {
    namespace: Namespace,
    pods: Vec<Namespace>,
}

impl Host {
    fn new(pods: usize) -> Self {
        let namespace = Namespace::new();
        namespace.ip("link add br0 type bridge");
        namespace.ip("link set br0 up");
        namespace.ip("address add 10.77.0.1/24 dev br0");
        namespace.ip("address add fe80::1/64 dev br0 nodad");
        let pods = (0..pods).map(|number| {
            let pod = Namespace::new();
            namespace.veth(&format!("veth{number}"), &pod, "eth0");
            namespace.ip(&format!("link set veth{number} master br0"));
            namespace.await_carrier(&format!("veth{number}"));
            pod.await_carrier("eth0");
            pod
        });
        Self {
            pods: pods.collect(),
            namespace,
        }
    }

    fn outlet(&self, number: usize, tags: Tags) -> Outlet {
        Outlet {
            ifindex: self.namespace.ifindex(&format!("veth{number}")),
            tags,
        }
    }

    /// A MAC of the host's.
    fn mac(&self, link: &str) -> Mac {
        mac(&self.namespace, link)
    }

    /// In whose name the host asks for an address on its bridge.
    fn asker(&self, outlet: Outlet, address: Address) -> Option<Asker> {
        let topology = within(&self.namespace, async || {
            let filter = NameFilter::new(&["veth*"], &[]).expect("patterns");
            let mut links = Links::open(filter).expect("subscribed");
            loop {
                let event = links.next().await.expect("news");
                if let LinkEvent::Topology(topology) = event {
                    break topology;
                }
            }
        });
        let segment = segment(&topology);
        Asker::of(&topology, &segment, outlet, address)
    }

    fn confirm(&self, confirm: Confirm) -> Answer {
        within(&self.namespace, async || {
            Prober::default().confirm(confirm).await.expect("asked")
        })
    }
}

fn segment(topology: &Topology) -> Segment {
    topology.bridge_segment(&Arc::from("br0"), None)
}

fn mac(namespace: &Namespace, link: &str) -> Mac {
    let shown = namespace.command(&format!("ip -j link show dev {link}"));
    let links: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    let address = links[0]["address"].as_str().expect(&shown);
    address.parse().expect("a MAC")
}

/// Waits until the pod's kernel says this of its addresses.
fn until(pod: &Namespace, what: &str, holds: impl Fn(&str) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let shown = pod.command("ip -o -6 address show dev eth0");
        if holds(&shown) {
            return;
        }
        assert!(Instant::now() < deadline, "not {what}: {shown}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn two_claimants_both_answer_and_a_stranger_does_not() {
    if !available() {
        return;
    }
    let host = Host::new(2);
    for pod in &host.pods {
        pod.ip("address add 10.77.0.5/24 dev eth0");
        pod.ip("address add fd00:77::5/64 dev eth0 nodad");
    }
    for address in ["10.77.0.5", "fd00:77::5"] {
        let address = claimable(address);
        let own = host.asker(host.outlet(0, UNTAGGED), address);
        assert!(own.is_some(), "the bridge has addresses");
        for asker in [own, None] {
            for (number, pod) in host.pods.iter().enumerate() {
                let confirm = Confirm {
                    outlet: host.outlet(number, UNTAGGED),
                    address,
                    claimant: mac(pod, "eth0"),
                    asker,
                    unprobed: true,
                };
                let evidence = match (address.is_ipv4(), asker) {
                    (true, _) => Evidence::ArpReply,
                    // Linux answers a unicast solicitation with Override clear.
                    (false, Some(_)) => Evidence::WeakAdvertisement,
                    (false, None) => Evidence::NeighborAdvertisement,
                };
                assert_eq!(host.confirm(confirm), Answer::Answered(evidence));
            }
        }
        // The one behind the port has the address, but isn't the claimant.
        let confirm = Confirm {
            outlet: host.outlet(0, UNTAGGED),
            address,
            claimant: mac(&host.pods[1], "eth0"),
            asker: own,
            unprobed: true,
        };
        assert_eq!(host.confirm(confirm), Answer::Silent);
    }
    // What the pods learnt of us is true: a probe taught them nothing, a question the
    // bridge's own MAC.
    for pod in &host.pods {
        let neighbours = pod.command("ip neigh show");
        let bridge = host.mac("br0").to_string();
        for line in neighbours.lines().filter(|line| line.contains("lladdr")) {
            assert!(line.contains(&bridge), "{neighbours}");
        }
        assert!(neighbours.contains("10.77.0.1 "), "{neighbours}");
        assert!(neighbours.contains("fe80::"), "{neighbours}");
    }
}

#[test]
fn a_machine_that_does_not_have_the_address_is_silent() {
    if !available() {
        return;
    }
    let host = Host::new(1);
    host.pods[0].ip("address add 10.77.0.6/24 dev eth0");
    for address in ["10.77.0.5", "fd00:77::5"] {
        let address = claimable(address);
        let confirm = Confirm {
            outlet: host.outlet(0, UNTAGGED),
            address,
            claimant: mac(&host.pods[0], "eth0"),
            asker: host.asker(host.outlet(0, UNTAGGED), address),
            unprobed: true,
        };
        assert_eq!(host.confirm(confirm), Answer::Silent);
    }
}

/// The pod's address of this kind in the middle of duplicate address detection.
fn detecting(pod: &Namespace) {
    pod.command("sysctl -qw net.ipv6.conf.eth0.dad_transmits=30");
    pod.ip("address add fd00:77::5/64 dev eth0");
    until(pod, "tentative", |shown| shown.contains("fd00:77::5/64"));
}

#[test]
fn a_kernel_in_its_own_detection_does_not_give_up_at_our_question() {
    if !available() {
        return;
    }
    let host = Host::new(1);
    let pod = &host.pods[0];
    detecting(pod);
    let address = claimable("fd00:77::5");
    let asker = host.asker(host.outlet(0, UNTAGGED), address);
    assert!(asker.is_some());
    let confirm = Confirm {
        outlet: host.outlet(0, UNTAGGED),
        address,
        claimant: mac(pod, "eth0"),
        asker,
        unprobed: false,
    };
    assert_eq!(host.confirm(confirm), Answer::Silent);
    // In nobody's name it may not be asked: somebody may be probing.
    let nobodys = Confirm {
        asker: None,
        ..confirm
    };
    assert_eq!(host.confirm(nobodys), Answer::Withheld);
    let shown = pod.command("ip -o -6 address show dev eth0");
    let line = shown.lines().find(|line| line.contains("fd00:77::5"));
    let line = line.expect("the address is there");
    assert!(
        line.contains("tentative") && !line.contains("dadfailed"),
        "{line}"
    );

    // That this is no empty caution: in nobody's name, it gives up.
    let careless = Confirm {
        unprobed: true,
        ..nobodys
    };
    host.confirm(careless);
    until(pod, "given up", |shown| shown.contains("dadfailed"));
}

fn look(outlet: Outlet, address: Address, own_macs: BTreeSet<Mac>) -> Look {
    let within = Some(Duration::from_millis(700));
    Look {
        outlet,
        address,
        asker: None,
        schedule: Schedule::detection(address, within, || 1.0),
        own_macs: Arc::new(own_macs),
    }
}

fn looks(namespace: &Namespace, look: &Look) -> Result<Option<Heard>, ProbeError> {
    within(namespace, async || Prober::default().look(look).await)
}

#[test]
fn a_host_that_probes_by_rfc_5227_does_not_give_up_at_our_question() {
    if !available() {
        return;
    }
    let host = Host::new(1);
    let pod = &host.pods[0];
    let address = claimable("10.77.0.5");
    let outlet = Outlet {
        ifindex: pod.ifindex("eth0"),
        tags: UNTAGGED,
    };
    // It keeps to the standard's rule: a probe of another is a conflict. Before its first one
    // it listens for a second, in which we ask.
    let probing = Look {
        schedule: Schedule::detection(address, None, || 1.0),
        ..look(outlet, address, BTreeSet::new())
    };
    let confirm = Confirm {
        outlet: host.outlet(0, UNTAGGED),
        address,
        claimant: mac(pod, "eth0"),
        asker: host.asker(host.outlet(0, UNTAGGED), address),
        unprobed: true,
    };
    let nobodys = Confirm {
        asker: None,
        ..confirm
    };
    for (confirm, gives_up) in [(confirm, false), (nobodys, true)] {
        thread::scope(|scope| {
            let peer = scope.spawn(|| looks(pod, &probing).expect("probed"));
            thread::sleep(Duration::from_millis(300));
            host.confirm(confirm);
            let heard = peer.join().expect("probed");
            assert_eq!(heard.is_some(), gives_up, "{confirm:?}: {heard:?}");
        });
    }
    // Where it probes already, nobody's question ends.
    let probe = Arp::probe(frames::mac(7), Ipv4Addr::new(10, 77, 0, 5)).frame();
    for (confirm, answer) in [(confirm, Answer::Silent), (nobodys, Answer::Withheld)] {
        let got = while_sending(pod, std::slice::from_ref(&probe), || host.confirm(confirm));
        assert_eq!(got, answer, "{confirm:?}");
    }
}

#[test]
fn a_tagged_port_is_asked_and_heard_with_its_tags_only() {
    if !available() {
        return;
    }
    let host = Host::new(1);
    let pod = &host.pods[0];
    let outer = Tags {
        outer: 7,
        vlan: 100,
    };
    let tagged = [
        UNTAGGED,
        Tags {
            outer: 0,
            vlan: 100,
        },
        outer,
    ];
    let address = claimable("10.77.0.5");
    let v6 = claimable("fd00:77::5");
    for here in tagged {
        for there in tagged {
            for address in [address, v6] {
                let same = here == there;
                // The peer asks again and again for as long as we look.
                let outlet = Outlet {
                    ifindex: pod.ifindex("eth0"),
                    tags: there,
                };
                let theirs = look(outlet, address, BTreeSet::new());
                let window = Duration::from_millis(if same { 10_000 } else { 700 });
                let ours = Look {
                    schedule: Schedule::detection(address, Some(window), || 1.0),
                    ..look(host.outlet(0, here), address, BTreeSet::new())
                };
                let done = AtomicBool::new(false);
                let heard = thread::scope(|scope| {
                    scope.spawn(|| {
                        while !done.load(Ordering::Relaxed) {
                            looks(pod, &theirs).expect("looked");
                        }
                    });
                    let heard = looks(&host.namespace, &ours).expect("looked");
                    done.store(true, Ordering::Relaxed);
                    heard
                });
                let expected = same.then(|| Heard {
                    mac: mac(pod, "eth0"),
                    evidence: match address.is_ipv4() {
                        true => Evidence::ArpProbe,
                        false => Evidence::DadProbe,
                    },
                });
                assert_eq!(heard, expected, "{here:?} {there:?}");
            }
        }
    }
}

#[test]
fn a_look_in_our_name_is_answered_by_a_kernel() {
    if !available() {
        return;
    }
    let host = Host::new(1);
    host.pods[0].ip("address add fd00:77::5/64 dev eth0 nodad");
    let outlet = host.outlet(0, UNTAGGED);
    for (address, has_it) in [("fd00:77::5", true), ("fd00:77::6", false)] {
        let address = claimable(address);
        let asker = host.asker(outlet, address);
        assert!(asker.is_some());
        let ours = Look {
            asker,
            ..look(outlet, address, BTreeSet::new())
        };
        let expected = has_it.then(|| Heard {
            mac: mac(&host.pods[0], "eth0"),
            evidence: Evidence::NeighborAdvertisement,
        });
        assert_eq!(looks(&host.namespace, &ours).expect("looked"), expected);
    }
}

/// Does `act` while the pod sends these frames again and again.
fn while_sending<T>(pod: &Namespace, frames: &[Vec<u8>], act: impl FnOnce() -> T) -> T {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let sending = scope.spawn(|| {
            pod.run(|| {
                while !done.load(Ordering::Relaxed) {
                    lab::send("eth0", frames).expect("sent");
                    thread::sleep(Duration::from_millis(20));
                }
            });
        });
        let result = act();
        done.store(true, Ordering::Relaxed);
        sending.join().expect("sent");
        result
    })
}

#[test]
fn a_peer_on_a_vlan_confirms_with_its_tag_alone_and_through_a_flood() {
    if !available() {
        return;
    }
    let host = Host::new(1);
    let pod = &host.pods[0];
    let address = Ipv4Addr::new(10, 77, 0, 5);
    let claimant = mac(pod, "eth0");
    let ours = host.mac("veth0").bytes();
    let reply = Arp::reply(claimant.bytes(), address, ours, Ipv4Addr::UNSPECIFIED).frame();
    let confirm = Confirm {
        outlet: host.outlet(
            0,
            Tags {
                outer: 0,
                vlan: 100,
            },
        ),
        address: Address::from_ip(IpAddr::V4(address)).expect("claimable"),
        claimant,
        asker: None,
        unprobed: true,
    };
    for (tag, answer) in [
        (None, Answer::Silent),
        (Some(200), Answer::Silent),
        (Some(100), Answer::Answered(Evidence::ArpReply)),
        // With a priority, and the drop eligible bit.
        (Some(0xf000 | 100), Answer::Answered(Evidence::ArpReply)),
    ] {
        let frame = match tag {
            Some(tag) => frames::tagged(&reply, &[(frames::DOT1Q, tag)]),
            None => reply.clone(),
        };
        // Others on the same VLAN, and what is no answer at all.
        let other = Arp::announcement(frames::mac(7), Ipv4Addr::new(10, 77, 0, 7)).frame();
        let other = frames::tagged(&other, &[(frames::DOT1Q, 100)]);
        let cut = frame[..frame.len() - 2].to_vec();
        let mut sent = vec![other; 500];
        sent.extend([cut, frame]);
        let got = while_sending(pod, &sent, || host.confirm(confirm));
        assert_eq!(got, answer, "{tag:?}");
    }
}

#[test]
fn what_this_host_says_by_another_port_is_an_echo() {
    if !available() {
        return;
    }
    // Two ports of one host on one wire.
    let host = Namespace::new();
    host.ip("link add veth0 up type veth peer name veth1");
    host.ip("link set veth1 up");
    host.await_carrier("veth0");
    host.await_carrier("veth1");
    let address = claimable("10.77.0.5");
    let own: BTreeSet<Mac> = ["veth0", "veth1"].map(|link| mac(&host, link)).into();
    for (own, hears) in [(own, false), (BTreeSet::new(), true)] {
        let [one, other] = ["veth0", "veth1"].map(|link| {
            let outlet = Outlet {
                ifindex: host.ifindex(link),
                tags: UNTAGGED,
            };
            look(outlet, address, own.clone())
        });
        let heard = within(&host, async || {
            let prober = Prober::default();
            tokio::join!(prober.look(&one), prober.look(&other))
        });
        let heard = [heard.0, heard.1].map(|heard| heard.expect("looked"));
        assert_eq!(heard.iter().any(Option::is_some), hears, "{heard:?}");
    }
}

#[test]
fn a_port_that_cannot_be_asked_is_an_error_that_names_it() {
    if !available() {
        return;
    }
    let host = Host::new(1);
    let address = claimable("10.77.0.5");
    let outlet = host.outlet(0, UNTAGGED);
    let of = |outlet| looks(&host.namespace, &look(outlet, address, BTreeSet::new()));
    let lo = Outlet {
        ifindex: host.namespace.ifindex("lo"),
        tags: UNTAGGED,
    };
    assert!(matches!(of(lo), Err(ProbeError::NotEthernet(name)) if name == "lo"));

    host.pods[0].ip("link set eth0 down");
    assert!(matches!(of(outlet), Err(ProbeError::NoCarrier(name)) if name == "veth0"));
    host.namespace.ip("link set veth0 down");
    assert!(matches!(of(outlet), Err(ProbeError::Down(name)) if name == "veth0"));

    host.pods[0].ip("link set eth0 up");
    // Down or away in the middle of a look.
    for end in ["link set veth0 down", "link del veth0"] {
        host.namespace.ip("link set veth0 up");
        host.namespace.await_carrier("veth0");
        let whole = Look {
            schedule: Schedule::detection(address, None, || 0.0),
            ..look(outlet, address, BTreeSet::new())
        };
        let lost = thread::scope(|scope| {
            let looking = scope.spawn(|| looks(&host.namespace, &whole));
            thread::sleep(Duration::from_millis(500));
            host.namespace.ip(end);
            looking.join().expect("looked")
        });
        let named = |error: &ProbeError| match error {
            ProbeError::Lost { interface, .. } => interface == "veth0",
            _ => false,
        };
        assert!(lost.as_ref().is_err_and(named), "{end}: {lost:?}");
    }
    assert!(matches!(of(outlet), Err(ProbeError::NoPort(_))));
}
