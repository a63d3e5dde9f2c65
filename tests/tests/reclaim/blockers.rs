//! Each thing that stands against a release, reached and named in the plan.

use std::{fs, net::IpAddr};

use anyhow::{Result, ensure};
use serde_json::json;
use tests::{
    lab::{self, Lab},
    runtime::{Network, Pod, claim, in_lab},
};

use super::*;

/// A network whose pods all went with a power cut.
fn leaked(lab: &mut Lab, names: &[&str]) -> Result<(Network, Vec<Pod>)> {
    let net = Network::bridge("pods", "cni0", &["10.9.0.0/24"])?;
    let pods = pods(lab, &net, names)?;
    power_cut(lab)?;
    Ok((net, pods))
}

/// Waits until a document names `reason` for the lease, and for nothing less.
fn blocked(daemon: &Daemon, command: &str, lease: IpAddr, reason: &str) -> Result<Value> {
    let key = if command == "leases" {
        "leases"
    } else {
        "kept"
    };
    daemon.wait_for(reason, PATIENCE, command, |told| {
        reasons(told, key)
            .get(&lease)?
            .contains(reason)
            .then(|| told.clone())
    })
}

#[test]
fn what_is_about_the_lease_itself() {
    in_lab(|lab| {
        let (net, pods) = leaked(lab, &["stale", "kept", "talks", "held"])?;
        let [stale, kept, talks, held] = &pods[..] else {
            unreachable!()
        };
        // A network that no configuration and no cache tells of, one that can't be watched,
        // and a store that is only read.
        let extra = |network: &str, address: &str| {
            let dir = format!("/var/lib/cni/networks/{network}");
            fs::create_dir_all(&dir)?;
            fs::write(format!("{dir}/{address}"), "0123456789abcdef\r\neth0")?;
            anyhow::Ok(address.parse::<IpAddr>()?)
        };
        let unknown = extra("unknown", "10.66.0.5")?;
        let unwatchable = extra("fast", "10.77.0.5")?;
        let conf = json!({ "cniVersion": "1.0.0", "name": "fast", "plugins": [
            { "type": "macvlan", "master": "eth0", "ipam": { "type": "host-local", "subnet": "10.77.0.0/24" } } ] });
        fs::write("/etc/cni/net.d/20-fast.conflist", conf.to_string())?;
        // What no plugin wrote, and nobody could put back.
        let oversized: IpAddr = "10.9.0.99".parse()?;
        fs::write(net.leases().join(oversized.to_string()), [b'x'; 64 << 10])?;
        let file = lab.disk().join("leases.yaml");
        fs::write(
            &file,
            "leases: [{ address: 10.9.0.200 }]\n\
                          pools: [{ cidr: 10.9.0.192/26, segment: cni0 }]\n",
        )?;
        let guest = lab.guest("guest", "veth1", "cni0")?;
        let other = lab.guest("other", "veth2", "cni0")?;
        let address = |pod: &Pod| pod.address(false);
        let held_prefix = format!("{}/24", address(held)?);
        lab::ip(&["-n", "other", "addr", "add", &held_prefix, "dev", "eth0"])?;

        let more = format!("keep: [{}]", address(kept)?);
        let store = format!("stores: [{{ kind: file, path: {} }}, ", file.display());
        let config = config(lab, "observe", &more).replace("stores: [", &store);
        let words = claim(tests::frames::mac(7), address(talks)?);
        let _other = other;
        while_talking(&[(&guest, vec![words])], || {
            let daemon = start(lab, &config)?;
            let plan = planned(&daemon, &BTreeSet::from([address(stale)?]))?;
            let expected = [
                (address(kept)?, "kept", "`keep` names"),
                (address(talks)?, "seen", "quiet for"),
                (address(held)?, "holder", "behind veth2"),
                (
                    unknown,
                    "segment-unwatched",
                    "nothing says which wire host-local:unknown is on",
                ),
                (unwatchable, "segment-unwatched", "macvlan"),
                ("10.9.0.200".parse()?, "mode", ""),
                (oversized, "kept", "larger than its store ever writes"),
            ];
            for (lease, reason, words) in expected {
                let said = detail(&plan, lease, reason);
                ensure!(
                    said.is_some_and(|said| said.contains(words)),
                    "{lease} {reason}: {plan:#}"
                );
            }
            let (applied, status) = daemon.command("reclaim apply", &["--yes"])?;
            let applied: Value = serde_json::from_str(&applied)?;
            ensure!(status == Some(0), "{applied:#}");
            ensure!(
                addresses(&applied, "outcomes") == BTreeSet::from([address(stale)?]),
                "{applied:#}"
            );
            let mut left = all(&pods[1..]);
            left.insert(oversized);
            ensure!(on_disk(&net)? == left, "{:?}", on_disk(&net)?);
            let doctor = daemon.query("doctor", &[])?;
            let mut stores = list(&doctor, "checks").filter(|check| check["name"] == "stores");
            let stores = stores.next().context("the stores")?;
            ensure!(stores["status"] == "warn", "{stores:#}");
            let detail = stores["detail"].as_str().unwrap_or_default();
            ensure!(detail.contains(&oversized.to_string()), "{stores:#}");
            Ok(())
        })
    });
}

#[test]
fn time_that_is_missing() {
    in_lab(|lab| {
        let (net, pods) = leaked(lab, &["stale"])?;
        let lease = pods[0].address(false)?;
        let slow = config(lab, "continuous", "")
            .replace("asked_gate: 2s", "asked_gate: 1h")
            .replace("gate: 2s,", "gate: 1h,");
        let daemon = start(lab, &slow)?;
        let plan = blocked(&daemon, "reclaim plan", lease, "age")?;
        let kept = list(&plan, "kept").next().context("it is kept")?;
        let ready = list(kept, "blockers").all(|blocker| blocker["ready_at"].is_string());
        ensure!(ready, "the plan says when each could go: {plan:#}");
        daemon.stop()?;
        // The first of two passes that agree.
        let rare = config(lab, "continuous", "")
            .replace("gate: 2s", "gate: 1s")
            .replace("pass_interval: 500ms", "pass_interval: 6s");
        let daemon = start(lab, &rare)?;
        blocked(&daemon, "leases", lease, "second-pass")?;
        ensure!(on_disk(&net)? == all(&pods), "one pass releases nothing");
        released(&daemon, lab, 1)?;
        ensure!(on_disk(&net)?.is_empty());
        Ok(())
    });
}

#[test]
fn what_the_agent_itself_lacks() {
    in_lab(|lab| {
        let (net, pods) = leaked(lab, &["stale"])?;
        let lease = pods[0].address(false)?;
        let whole = config(lab, "continuous", "");
        let memory = state(lab).display().to_string();
        let lacking = [
            (
                whole.replace("holders: { cri: off }", ""),
                "source-down",
                "cri: ",
            ),
            (
                whole.replace(&memory, "/run/state"),
                "state-not-persistent",
                "tmpfs",
            ),
        ];
        for (config, reason, words) in lacking {
            let daemon = start(lab, &config)?;
            blocked(&daemon, "reclaim plan", lease, reason)?;
            // Once time is no longer what is missing.
            let plan = daemon.wait_for("the gates", PATIENCE, "reclaim plan", |plan| {
                (reasons(plan, "kept").get(&lease)?.len() == 1).then(|| plan.clone())
            })?;
            let said = detail(&plan, lease, reason);
            ensure!(said.is_some_and(|said| said.contains(words)), "{plan:#}");
            let (_, status) = daemon.command("reclaim apply", &["--yes"])?;
            ensure!(status == Some(3), "it could not judge: {status:?}");
            ensure!(on_disk(&net)? == all(&pods));
            daemon.stop()?;
        }
        Ok(())
    });
}

#[test]
fn a_port_that_is_left_out_hides_life() {
    in_lab(|lab| {
        let (net, pods) = leaked(lab, &["stale"])?;
        let lease = pods[0].address(false)?;
        let _guest = lab.guest("guest", "veth1", "cni0")?;
        let _other = lab.guest("other", "veth2", "cni0")?;
        let more = "interfaces: { exclude: [veth2] }";
        let daemon = start(lab, &config(lab, "continuous", more))?;
        let plan = blocked(&daemon, "reclaim plan", lease, "coverage")?;
        let said = detail(&plan, lease, "coverage");
        ensure!(said.is_some_and(|said| said.contains("veth2")), "{plan:#}");
        ensure!(plan["complete"] == false, "{plan:#}");
        // It goes, and with it what it hid.
        lab::ip(&["link", "del", "veth2"])?;
        released(&daemon, lab, 1)?;
        ensure!(on_disk(&net)?.is_empty());
        Ok(())
    });
}

#[test]
fn another_program_that_is_put_first_costs_coverage() {
    in_lab(|lab| {
        let (net, pods) = leaked(lab, &["stale"])?;
        let lease = pods[0].address(false)?;
        let _guest = lab.guest("guest", "veth1", "cni0")?;
        let config = config(lab, "observe", "").replace("asked_gate: 2s", "asked_gate: 4s");
        let daemon = start(lab, &config)?;
        planned(&daemon, &BTreeSet::from([lease]))?;

        let Some(_intruder) = Intruder::before_all("veth1")? else {
            return Ok(());
        };
        // Nobody tells of it: it is found when the kernel is asked, right before it counts.
        let (applied, _) = daemon.command("reclaim apply", &["--yes"])?;
        let applied: Value = serde_json::from_str(&applied)?;
        let done = list(&applied, "outcomes").any(|outcome| outcome["result"] == "released");
        ensure!(!done, "{applied:#}");
        ensure!(on_disk(&net)? == all(&pods));
        blocked(&daemon, "reclaim plan", lease, "coverage")?;
        // Ours goes before it again, and a whole gate later it counts.
        planned(&daemon, &BTreeSet::from([lease]))?;
        Ok(())
    });
}

#[test]
fn what_a_power_cut_left_of_cnis_caches_is_told_by_the_doctor() {
    in_lab(|lab| {
        let net = Network::bridge("pods", "cni0", &["10.9.0.0/24"])?;
        let pod = net.start(lab, "one")?;
        let checked = || -> Result<Value> {
            let config = lab.disk().join("config.yaml");
            fs::write(&config, "holders: { cri: off }")?;
            let config = config.display().to_string();
            let doctor = tests::daemon::agent(&["doctor", "-o", "json", "--config", &config])?;
            let doctor = doctor.json()?;
            let mut checks = list(&doctor, "checks").filter(|check| check["name"] == "CNI caches");
            Ok(checks.next().context("the check")?.clone())
        };
        let check = checked()?;
        ensure!(check["status"] == "ok", "{check:#}");
        // The pod's own result, as real libcni's are; and multus's record of it.
        fs::create_dir_all("/var/lib/cni/multus")?;
        let multus = format!("/var/lib/cni/multus/{}", pod.container_id);
        fs::write(&multus, "")?;
        let result = format!("/var/lib/cni/results/pods-{}-eth0", pod.container_id);
        let whole = fs::read(&result)?;
        fs::write(&result, &whole[..whole.len() / 2])?;
        let check = checked()?;
        ensure!(check["status"] == "warn", "{check:#}");
        let detail = check["detail"].as_str().unwrap_or_default();
        for named in [format!("{multus} (empty)"), format!("{result} (truncated)")] {
            ensure!(detail.contains(&named), "{check:#}");
        }
        Ok(())
    });
}
