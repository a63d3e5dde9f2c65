//! The real daemon on real veths: frames of real pods, real host-local leases, and what is
//! reported of them.

use std::{
    collections::BTreeSet,
    fs,
    net::IpAddr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use ipam_agent::source::live::pod::tcx;
use nix::{
    net::if_::if_nametoindex,
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use tests::{
    daemon::{Daemon, agent},
    frames::{self, Arp},
    lab::{self, Lab, Netns},
    runtime::{Network, Pod, claim, in_lab},
};

/// Long enough for a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(30);

fn config(lab: &Lab) -> String {
    format!("state_dir: {}", lab.disk().join("state").display())
}

fn daemon(lab: &Lab) -> Result<Daemon> {
    Daemon::start(&lab.disk().join("daemon"), &config(lab))
}

/// A dual-stack network with pods of these names, and the daemon.
fn host(lab: &Lab, names: &[&str]) -> Result<(Network, Vec<Pod>, Daemon)> {
    let net = Network::bridge("pods", "cni0", &["10.9.0.0/24", "fd00:9::/64"])?;
    let pods: Result<_> = names.iter().map(|name| net.start(lab, name)).collect();
    Ok((net, pods?, daemon(lab)?))
}

fn list<'a>(document: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    document[key].as_array().into_iter().flatten()
}

/// The conflict over an address, once it is of this kind.
fn conflict(daemon: &Daemon, address: IpAddr, kind: &str) -> Result<Value> {
    let address = address.to_string();
    let what = format!("{kind} of {address}");
    daemon.wait_for(&what, PATIENCE, "report", |report| {
        list(report, "conflicts")
            .find(|conflict| conflict["address"] == *address && conflict["kind"] == *kind)
            .cloned()
    })
}

/// Who claims, and where.
fn claimants(conflict: &Value) -> BTreeSet<(String, String)> {
    let text = |claim: &Value, key: &str| claim[key].as_str().unwrap_or("?").to_owned();
    list(conflict, "claims")
        .map(|claim| (text(claim, "mac"), text(claim, "interface")))
        .collect()
}

fn ports_of(pods: &[&Pod]) -> BTreeSet<(String, String)> {
    let port = |pod: &&Pod| (pod.mac.clone(), pod.host_interface.clone());
    pods.iter().map(port).collect()
}

/// Waits until the daemon knows that `address` was claimed; on which interface.
fn heard(daemon: &Daemon, address: IpAddr) -> Result<Value> {
    let address = address.to_string();
    daemon.wait_for(
        &format!("a claim of {address}"),
        PATIENCE,
        "addresses",
        |told| {
            list(told, "addresses")
                .find(|claim| claim["address"] == *address)
                .cloned()
        },
    )
}

fn interfaces(segments: &Value) -> BTreeSet<String> {
    list(segments, "segments")
        .flat_map(|segment| list(segment, "interfaces"))
        .filter_map(|name| name.as_str().map(str::to_owned))
        .collect()
}

#[test]
fn what_is_said_right_after_a_port_has_joined_a_bridge_is_said_there() {
    in_lab(|lab| {
        lab::ip(&["link", "add", "br0", "type", "bridge"])?;
        lab::ip(&["link", "set", "br0", "up"])?;
        let daemon = daemon(lab)?;
        let pid = i32::try_from(daemon.pid())?;
        // Which news an agent looks at first is left to chance.
        for number in 1..=6 {
            let port = format!("veth{number}");
            let guest = lab.guest(&format!("guest{number}"), &port, "br0")?;
            lab::ip(&["link", "set", &port, "nomaster"])?;
            let watched = |segments: &Value| {
                let routed = |segment: &&Value| segment["name"] == "routed";
                let routed = list(segments, "segments").find(routed)?;
                let here = list(routed, "interfaces").any(|name| *name == *port);
                (here && routed["complete"] == true).then_some(())
            };
            daemon.wait_for("a routed port", PATIENCE, "segments", watched)?;
            let address: IpAddr = format!("10.9.0.{number}").parse()?;
            kill(Pid::from_raw(pid), Signal::SIGSTOP)?;
            lab::ip(&["link", "set", &port, "master", "br0"])?;
            let told = guest.send("eth0", &[claim(frames::mac(number), address)]);
            kill(Pid::from_raw(pid), Signal::SIGCONT)?;
            told?;
            let heard = heard(&daemon, address)?;
            ensure!(heard["segment"]["name"] == "br0", "{heard:#}");
        }
        daemon.stop().map(drop)
    });
}

#[test]
fn a_stranger_on_a_leased_address_is_a_mismatch_and_then_a_duplicate() {
    in_lab(|lab| {
        let (_net, pods, daemon) = host(lab, &["one", "two"])?;
        let [one, two] = &pods[..] else {
            unreachable!()
        };
        for v6 in [false, true] {
            let address = one.address(v6)?;
            two.claims(address)?;
            let mismatch = conflict(&daemon, address, "lease-mismatch")?;
            // The holder's MAC and name are in no lease: they come from libcni's cache.
            let holder = &mismatch["leases"][0]["holder"];
            ensure!(holder["mac"] == *one.mac, "{mismatch:#}");
            ensure!(holder["pod"] == "default/one", "{mismatch:#}");
            ensure!(holder["container_id"] == *one.container_id, "{mismatch:#}");
            ensure!(
                mismatch["leases"][0]["store"] == "host-local:pods",
                "{mismatch:#}"
            );
            ensure!(
                claimants(&mismatch).is_superset(&ports_of(&[two])),
                "{mismatch:#}"
            );
            one.claims(address)?;
            let duplicate = conflict(&daemon, address, "duplicate-address")?;
            ensure!(
                claimants(&duplicate) == ports_of(&[one, two]),
                "{duplicate:#}"
            );
            ensure!(duplicate["id"] == mismatch["id"], "{duplicate:#}");
            ensure!(duplicate["segment"]["name"] == "cni0", "{duplicate:#}");
        }
        // Both, and nothing else.
        let (report, status) = daemon.command("report", &[])?;
        let report: Value = serde_json::from_str(&report)?;
        ensure!(report["summary"]["conflicts"] == 2, "{report:#}");
        ensure!(status == Some(1), "{status:?}");
        Ok(())
    });
}

#[test]
fn claimants_that_are_asked_confirm_a_duplicate() {
    in_lab(|lab| {
        let net = Network::bridge("pods", "cni0", &["10.9.0.0/24", "fd00:9::/64"])?;
        let [one, two] = ["one", "two"].map(|name| net.start(lab, name));
        let (one, two) = (one?, two?);
        let config = format!("{}\nobserve: {{ confirm: [cni0] }}\n", config(lab));
        let daemon = Daemon::start(&lab.disk().join("daemon"), &config)?;
        for v6 in [false, true] {
            let address = one.address(v6)?;
            one.claims(address)?;
            heard(&daemon, address)?;
            let prefix = format!("{address}/{}", if v6 { 128 } else { 32 });
            let mut add = vec![
                "-n",
                two.netns.name(),
                "addr",
                "add",
                &prefix,
                "dev",
                "eth0",
            ];
            add.extend(v6.then_some("nodad"));
            lab::ip(&add)?;
            // It says so once; after that both only answer who asks them.
            two.claims(address)?;
            let confirmed = daemon.wait_for("the answers", PATIENCE, "report", |report| {
                list(report, "conflicts")
                    .find(|conflict| {
                        conflict["address"] == *address.to_string()
                            && conflict["reason"]
                                .as_str()
                                .is_some_and(|reason| reason.contains("both answered when asked"))
                    })
                    .cloned()
            })?;
            ensure!(confirmed["kind"] == "duplicate-address", "{confirmed:#}");
            ensure!(confirmed["severity"] == "critical", "{confirmed:#}");
            ensure!(
                claimants(&confirmed) == ports_of(&[&one, &two]),
                "{confirmed:#}"
            );
        }
        // The questions are no claims, and nobody else is part of anything.
        let report = daemon.query("report", &[])?;
        ensure!(report["summary"]["conflicts"] == 2, "{report:#}");
        Ok(())
    });
}

#[test]
fn what_a_probe_meets_and_where_a_station_is_are_told() {
    in_lab(|lab| {
        let (_net, pods, daemon) = host(lab, &["one", "two", "three"])?;
        let [one, two, three] = &pods[..] else {
            unreachable!()
        };
        // The kernel of the pod that has it answers, though its word is known.
        let address = one.address(false)?;
        let IpAddr::V4(target) = address else {
            unreachable!()
        };
        one.netns.speak_to("10.9.0.1".parse()?)?;
        heard(&daemon, address)?;
        two.netns
            .send("eth0", &[Arp::probe(two.mac()?, target).frame()])?;
        let collision = daemon.wait_for("the collision", PATIENCE, "report", |report| {
            list(report, "events")
                .find(|event| event["kind"] == "probe-collision")
                .cloned()
        })?;
        ensure!(
            collision["macs"] == json!([two.mac, one.mac]),
            "{collision:#}"
        );
        // A MAC behind two ports, each with an address of its own.
        let clone: [u8; 6] = [2, 0xc1, 0, 0, 0, 1];
        for (pod, last) in [(two, 21), (three, 22)] {
            let address = std::net::Ipv4Addr::new(172, 31, 0, last);
            pod.netns
                .send("eth0", &[Arp::announcement(clone, address).frame()])?;
        }
        let found = conflict(&daemon, "172.31.0.22".parse()?, "duplicate-mac")?;
        ensure!(list(&found, "claims").count() == 2, "{found:#}");
        // ARP in another's name.
        let forged = Arp {
            ether_src: three.mac()?,
            ..Arp::announcement(frames::mac(9), [172, 31, 0, 23].into())
        };
        three.netns.send("eth0", &[forged.frame()])?;
        let mismatch = daemon.wait_for("the other sender", PATIENCE, "report", |report| {
            list(report, "events")
                .find(|event| event["kind"] == "sender-mismatch")
                .cloned()
        })?;
        ensure!(mismatch["address"] == "172.31.0.23", "{mismatch:#}");
        Ok(())
    });
}

#[test]
fn two_pods_with_one_address_configured_are_found_without_a_return() {
    in_lab(|lab| {
        let (_net, pods, daemon) = host(lab, &["one", "two"])?;
        let address: IpAddr = "172.31.0.9".parse()?;
        for pod in &pods {
            pod.claims(address)?;
            let name = pod.netns.name();
            lab::ip(&["-n", name, "addr", "add", "172.31.0.9/32", "dev", "eth0"])?;
        }
        let duplicate = conflict(&daemon, address, "duplicate-address")?;
        ensure!(
            claimants(&duplicate) == ports_of(&[&pods[0], &pods[1]]),
            "{duplicate:#}"
        );
        ensure!(duplicate["severity"] == "critical", "{duplicate:#}");
        Ok(())
    });
}

#[test]
fn an_address_of_this_host_is_contested_and_a_service_address_is_not() {
    in_lab(|lab| {
        let (_net, pods, daemon) = host(lab, &["one"])?;
        // As every node has the addresses of services: on a link that is on no wire.
        lab::ip(&["addr", "add", "172.31.0.1/32", "dev", "lo"])?;
        let (service, gateway) = ("172.31.0.1".parse()?, "10.9.0.1".parse()?);
        pods[0].claims(service)?;
        pods[0].claims(gateway)?;
        let duplicate = conflict(&daemon, gateway, "duplicate-address")?;
        ensure!(duplicate["severity"] == "critical", "{duplicate:#}");
        heard(&daemon, service)?;
        let report = daemon.query("report", &[])?;
        ensure!(report["summary"]["conflicts"] == 1, "{report:#}");
        Ok(())
    });
}

#[test]
fn a_squatter_in_a_pool_is_unleased_until_it_is_leased() {
    in_lab(|lab| {
        let (net, pods, daemon) = host(lab, &["one"])?;
        // The next address that host-local will give.
        let next: IpAddr = "10.9.0.3".parse()?;
        pods[0].claims(next)?;
        let unleased = conflict(&daemon, next, "unleased-address")?;
        ensure!(
            claimants(&unleased) == ports_of(&[&pods[0]]),
            "{unleased:#}"
        );
        let two = net.start(lab, "two")?;
        ensure!(
            two.address(false)? == next,
            "host-local gave {:?}",
            two.addresses
        );
        let granted = daemon.wait_for("the grant", PATIENCE, "report", |report| {
            let mut conflicts = list(report, "conflicts");
            conflicts
                .find(|conflict| {
                    conflict["id"] == unleased["id"] && conflict["kind"] != unleased["kind"]
                })
                .cloned()
        })?;
        ensure!(granted["severity"] == "critical", "{granted:#}");
        Ok(())
    });
}

#[test]
fn an_address_that_moves_is_an_event_and_no_conflict() {
    in_lab(|lab| {
        let (_net, pods, daemon) = host(lab, &["one", "two"])?;
        let address: IpAddr = "172.31.0.9".parse()?;
        pods[0].claims(address)?;
        heard(&daemon, address)?;
        pods[1].claims(address)?;
        let moved = daemon.wait_for("the move", PATIENCE, "report", |report| {
            list(report, "events").next().cloned()
        })?;
        ensure!(moved["kind"] == "address-moved", "{moved:#}");
        ensure!(moved["address"] == "172.31.0.9", "{moved:#}");
        ensure!(
            moved["macs"] == json!([pods[0].mac, pods[1].mac]),
            "{moved:#}"
        );
        let (report, status) = daemon.command("report", &[])?;
        ensure!(status == Some(0), "{report}");
        Ok(())
    });
}

#[test]
fn a_pods_first_word_is_heard_and_a_port_that_goes_is_forgotten() {
    in_lab(|lab| {
        let (net, _, daemon) = host(lab, &[])?;
        let mut pods = Vec::new();
        for n in 1..=8 {
            let pod = net.start(lab, &format!("pod{n}"))?;
            // Its one word of this address, at once.
            pod.claims(format!("172.31.0.{n}").parse()?)?;
            pods.push(pod);
        }
        for (n, pod) in (1..).zip(&pods) {
            let claim = heard(&daemon, format!("172.31.0.{n}").parse()?)?;
            ensure!(claim["interface"] == *pod.host_interface, "{claim:#}");
            ensure!(claim["mac"] == *pod.mac, "{claim:#}");
        }
        for pod in &pods[1..] {
            net.stop(pod)?;
        }
        let only = BTreeSet::from([pods[0].host_interface.clone()]);
        daemon.wait_for("ports to be forgotten", PATIENCE, "segments", |told| {
            (interfaces(told) == only).then_some(())
        })?;
        daemon.wait_for("leases to be forgotten", PATIENCE, "leases", |told| {
            (list(told, "leases").count() == 2).then_some(())
        })?;
        Ok(())
    });
}

#[test]
fn a_tagged_claim_is_of_another_segment() {
    in_lab(|lab| {
        let (_net, pods, daemon) = host(lab, &["one", "two"])?;
        let address: IpAddr = "172.31.0.9".parse()?;
        let tag = |frame: &[u8]| frames::tagged(frame, &[(frames::DOT1Q, 100)]);
        for _ in 0..3 {
            pods[0].claims(address)?;
            let frame = tag(&claim(pods[1].mac()?, address));
            pods[1].netns.send("eth0", &[frame])?;
        }
        let vlans = daemon.wait_for("both claims", PATIENCE, "addresses", |told| {
            let of = list(told, "addresses").filter(|claim| claim["address"] == "172.31.0.9");
            let vlans: Vec<Value> = of.map(|claim| claim["segment"]["vlan"].clone()).collect();
            (vlans.len() == 2).then_some(vlans)
        })?;
        ensure!(
            vlans.contains(&Value::Null) && vlans.contains(&json!(100)),
            "{vlans:?}"
        );
        let (report, status) = daemon.command("report", &[])?;
        ensure!(status == Some(0), "{report}");
        Ok(())
    });
}

/// What sits at the ingress of every link: programs at TCX, qdiscs and filters of clsact.
fn hooks() -> Result<usize> {
    let links: Value = serde_json::from_str(&lab::run("ip", &["-j", "link"])?)?;
    let mut count = 0;
    for link in links.as_array().into_iter().flatten() {
        let name = link["ifname"].as_str().context("a name")?;
        // Before Linux 6.6 there is no TCX to ask.
        count += tcx(if_nametoindex(name)?).map_or(0, |tcx| tcx.programs.len());
        count += lab::run("tc", &["qdisc", "show", "dev", name])?
            .matches("clsact")
            .count();
    }
    Ok(count)
}

#[test]
fn a_stop_leaves_nothing_and_a_kill_leaves_nothing_in_the_way() {
    in_lab(|lab| {
        let (_net, pods, daemon) = host(lab, &["one", "two"])?;
        let watched = hooks()?;
        ensure!(watched >= 2, "two veths are watched, not {watched}");
        let address = pods[0].address(false)?;
        pods[1].claims(address)?;
        conflict(&daemon, address, "lease-mismatch")?;
        daemon.kill()?;

        let daemon = self::daemon(lab)?;
        ensure!(hooks()? == watched, "nothing doubles");
        pods[1].claims(address)?;
        let mismatch = conflict(&daemon, address, "lease-mismatch")?;
        ensure!(
            claimants(&mismatch) == ports_of(&[&pods[1]]),
            "{mismatch:#}"
        );
        // Neither forgets the kernel what was said before.
        daemon.wait_for("both words", PATIENCE, "report", |report| {
            let conflict = report["conflicts"].get(0)?;
            (conflict["claims"][0]["frames"] == 2).then_some(())
        })?;

        let socket = daemon.socket();
        let status = daemon.stop()?;
        ensure!(status.code() == Some(0), "{status}");
        ensure!(hooks()? == 0, "something is left");
        ensure!(!socket.exists(), "the socket is left");
        Ok(())
    });
}

/// Does `act` while `guest` sends these frames again and again.
fn while_sending<T>(
    guest: &Netns,
    frames: &[Vec<u8>],
    act: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let sending = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                guest.send("eth0", frames)?;
                thread::sleep(Duration::from_millis(100));
            }
            anyhow::Ok(())
        });
        let result = act();
        done.store(true, Ordering::Relaxed);
        sending
            .join()
            .map_err(|_| anyhow::anyhow!("the sender failed"))??;
        result
    })
}

#[test]
fn a_scan_looks_by_itself_and_asks_the_daemon_where_there_is_one() {
    in_lab(|lab| {
        lab::ip(&["link", "add", "br0", "type", "bridge"])?;
        lab::ip(&["link", "set", "br0", "up"])?;
        let one = lab.guest("one", "veth1", "br0")?;
        let address = "10.1.0.5".parse()?;
        // Two stations behind one port.
        let frames = [1, 2].map(|n| Arp::announcement(frames::mac(n), address).frame());
        let scan = ["scan", "--for", "1s", "--output", "json"];
        let look = || agent(&scan);

        let quiet = look()?;
        ensure!(quiet.status == Some(0), "{quiet:?}");
        let found = while_sending(&one, &frames, look)?;
        ensure!(found.status == Some(1), "{found:?}");
        let report = found.json()?;
        ensure!(
            report["conflicts"][0]["kind"] == "duplicate-address",
            "{report:#}"
        );
        ensure!(
            report["conflicts"][0]["address"] == "10.1.0.5",
            "{report:#}"
        );
        ensure!(hooks()? == 0, "the scan left something");

        let daemon = daemon(lab)?;
        let watched = hooks()?;
        let socket = daemon.socket().display().to_string();
        let asked = while_sending(&one, &frames, || {
            conflict(&daemon, address.into(), "duplicate-address")?;
            agent(&[&scan[..], &["--socket", &socket]].concat())
        })?;
        ensure!(asked.status == Some(1), "{asked:?}");
        ensure!(asked.err.contains("a daemon is running"), "{}", asked.err);
        ensure!(asked.err.contains("not used: --for"), "{}", asked.err);
        ensure!(hooks()? == watched, "the scan attached beside the daemon");
        // One that isn't told where to ask it doesn't, either.
        let lost = look()?;
        ensure!(lost.status == Some(3), "{lost:?}");
        ensure!(lost.err.contains("name its socket"), "{lost:?}");
        ensure!(hooks()? == watched, "a scan attached beside the daemon");
        Ok(())
    });
}

#[test]
fn a_scan_without_an_interface_to_look_at_says_that_it_could_not_look() {
    in_lab(|lab| {
        let plain = agent(&["scan", "--for", "1s"])?;
        lab::ip(&["link", "add", "br0", "type", "bridge"])?;
        lab.guest("one", "veth1", "br0")?;
        let wrong = agent(&["scan", "--for", "1s", "-i", "nosuch"])?;
        for (answer, include) in [(plain, "veth*, cali*"), (wrong, "nosuch")] {
            ensure!(answer.status == Some(3), "{answer:?}");
            let why = format!("no interface of this host fits {include}");
            ensure!(answer.out.contains(&why), "{answer:?}");
            ensure!(answer.out.contains("could look"), "{answer:?}");
        }
        Ok(())
    });
}

#[test]
fn exit_statuses_are_those_of_the_contract() {
    in_lab(|lab| {
        let none = lab.disk().join("none.sock").display().to_string();
        for command in [
            &["report"][..],
            &["reclaim", "plan"],
            &["reclaim", "apply", "--yes"],
        ] {
            let answer = agent(&[command, &["--socket", &none]].concat())?;
            ensure!(
                answer.status == Some(3),
                "{command:?} without a daemon: {answer:?}"
            );
            ensure!(answer.err.contains("no daemon answers"), "{answer:?}");
        }
        let (_net, pods, daemon) = host(lab, &["one", "two"])?;
        let status = |command: &str, args: &[&str]| anyhow::Ok(daemon.command(command, args)?.1);
        let address = pods[0].address(false)?;
        for command in ["report", "addresses", "leases", "segments"] {
            ensure!(status(command, &[])? == Some(0), "{command}");
        }
        pods[1].claims(address)?;
        conflict(&daemon, address, "lease-mismatch")?;
        ensure!(status("report", &[])? == Some(1), "a conflict is something");
        ensure!(
            status("report", &["192.0.2.1"])? == Some(0),
            "of that address there is none"
        );
        ensure!(
            status("explain", &[&address.to_string()])? == Some(0),
            "explain judges nothing"
        );
        for command in ["addresses", "leases", "segments"] {
            ensure!(status(command, &[])? == Some(0), "{command} judges nothing");
        }
        let wrong = agent(&["report", "--no-such-flag"])?;
        ensure!(wrong.status == Some(2), "{wrong:?}");
        let state = lab.disk().join("state").display().to_string();
        let history = agent(&["reclaim", "history", "--state-dir", &state])?;
        ensure!(history.status == Some(0), "{history:?}");
        ensure!(fs::exists(daemon.socket())?, "the daemon goes on");
        Ok(())
    });
}

#[test]
fn frames_are_counted_once_though_a_return_is_told_with_who_spoke_before() {
    in_lab(|lab| {
        let (_net, pods, daemon) = host(lab, &["one", "two"])?;
        let address: IpAddr = "172.31.0.9".parse()?;
        for _ in 0..3 {
            for pod in &pods {
                pod.claims(address)?;
            }
        }
        conflict(&daemon, address, "duplicate-address")?;
        daemon.wait_for("three frames of each", PATIENCE, "addresses", |told| {
            let claims = list(told, "addresses").filter(|claim| claim["address"] == "172.31.0.9");
            let frames: Vec<_> = claims.map(|claim| claim["frames"].clone()).collect();
            (frames == [3, 3]).then_some(())
        })?;
        Ok(())
    });
}
