//! Addresses of a pool that somebody uses without a lease, and the real host-local, which
//! would hand them out next.

use std::{collections::BTreeSet, fs, net::IpAddr};

use anyhow::{Context, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tests::{
    lab::{self, Lab, Netns},
    runtime::{Network, in_lab},
};

use super::*;

const FENCE: &[u8] = b"ipam-agent-fence\r\nfence";

fn fenced(lab: &Lab, fence: bool) -> String {
    let reclaim = format!("reclaim: observe, fence: {fence}");
    config(lab, "observe", "").replace("reclaim: observe", &reclaim)
}

/// A machine behind a port of the bridge that gives itself addresses.
fn squatter(lab: &Lab, number: u8, addresses: &[&str]) -> Result<Netns> {
    let name = format!("squatter{number}");
    let guest = lab.guest(&name, &format!("veth{number}"), "cni0")?;
    for address in addresses {
        let length = if address.contains(':') { 64 } else { 24 };
        let prefix = format!("{address}/{length}");
        lab::ip(&["-n", &name, "addr", "add", &prefix, "dev", "eth0", "nodad"])?;
    }
    speak(&guest, addresses)?;
    Ok(guest)
}

/// It says a word from each of its addresses.
fn speak(guest: &Netns, addresses: &[&str]) -> Result<()> {
    for (n, address) in addresses.iter().enumerate() {
        let peer = match address.parse()? {
            IpAddr::V4(_) => IpAddr::from([10, 9, 0, u8::try_from(250 - n)?]),
            IpAddr::V6(_) => "fd00:9::99".parse()?,
        };
        guest.speak_from(address.parse()?, peer)?;
    }
    Ok(())
}

fn network(lab: &Lab, prefixes: &[&str]) -> Result<Network> {
    let net = Network::bridge("pods", "cni0", prefixes)?;
    // The directory is host-local's: it makes it.
    let first = net.start(lab, "first")?;
    net.stop(&first)?;
    Ok(net)
}

/// The fences that `leases` shows, once they are these.
fn shown(daemon: &Daemon, expected: &[&str]) -> Result<Value> {
    let expected: BTreeSet<IpAddr> = expected
        .iter()
        .map(|text| text.parse())
        .collect::<Result<_, _>>()?;
    daemon.wait_for("the fences", PATIENCE, "leases", |told| {
        let of = list(told, "leases").filter(|lease| lease["state"] == "fenced");
        (of.filter_map(address).collect::<BTreeSet<_>>() == expected).then(|| told.clone())
    })
}

/// The kinds of lines about fences in the journal, in order: raised or lowered, and done.
fn journaled(lab: &Lab) -> Result<Vec<String>> {
    let text = fs::read_to_string(state(lab).join("journal.jsonl"))?;
    let mut told = Vec::new();
    for line in text.lines() {
        let record: Value = serde_json::from_str(line)?;
        let address = record["address"].as_str().unwrap_or_default();
        match record["phase"].as_str() {
            Some("fence") if record["raise"] == true => told.push(format!("raise {address}")),
            Some("fence") => told.push(format!("lower {address}")),
            Some("fence-effect") => {
                told.push(record["result"].as_str().unwrap_or_default().to_owned());
            }
            _ => {}
        }
    }
    Ok(told)
}

#[test]
fn what_is_squatted_is_handed_to_nobody_until_the_squatter_is_gone() {
    in_lab(|lab| {
        let net = network(lab, &["10.9.0.0/24", "fd00:9::/64"])?;
        // host-local goes round: these come next.
        let squatted = ["10.9.0.3", "fd00:9::3"];
        let guest = squatter(lab, 1, &squatted)?;
        let daemon = start(lab, &fenced(lab, true))?;
        speak(&guest, &squatted)?;
        shown(&daemon, &squatted)?;
        for address in squatted {
            let content = fs::read(net.leases().join(address))?;
            ensure!(content == FENCE, "{content:?}");
        }
        // To the judge it is no lease: the conflict stays. To the planner neither.
        let report = daemon.query("report", &[])?;
        for squatted in squatted {
            let mut of = list(&report, "conflicts").filter(|c| c["address"] == squatted);
            let conflict = of.next().context("the conflict")?;
            ensure!(conflict["kind"] == "unleased-address", "{conflict:#}");
            ensure!(conflict["state"] == "active", "{conflict:#}");
        }
        let plan = daemon.query("reclaim plan", &[])?;
        ensure!(list(&plan, "kept").count() == 0, "{plan:#}");
        ensure!(list(&plan, "releases").count() == 0, "{plan:#}");

        // The real host-local passes them over, and its DEL leaves them alone.
        let pods = pods(lab, &net, &["one", "two", "three"])?;
        let given = all(&pods);
        for address in squatted {
            ensure!(!given.contains(&address.parse()?), "{given:?}");
        }
        ensure!(given.len() == 6, "{given:?}");
        for pod in &pods {
            net.stop(pod)?;
        }
        shown(&daemon, &squatted)?;

        // It stays for as long as the squatter answers, however quiet it is.
        thread::sleep(Duration::from_secs(5));
        shown(&daemon, &squatted)?;
        ensure!(!journaled(lab)?.iter().any(|line| line.starts_with("lower")));
        drop(guest);
        lab::ip(&["link", "del", "veth1"])?;
        shown(&daemon, &[])?;
        ensure!(on_disk(&net)?.is_empty(), "{:?}", on_disk(&net)?);
        daemon.stop()?;
        let told = journaled(lab)?;
        let of = |what: &str| told.iter().filter(|line| line.starts_with(what)).count();
        ensure!(
            (of("raise"), of("lower"), of("done")) == (2, 2, 4),
            "{told:?}"
        );
        // And so does what a person reads afterwards, the newest first.
        let state = state(lab).display().to_string();
        let history = ["reclaim", "history", "--state-dir", &state];
        let json = tests::daemon::agent(&[&history[..], &["-o", "json"]].concat())?.json()?;
        let told: Vec<&Value> = list(&json, "fences").collect();
        let of = |change: &str, squatted: bool| {
            let mut of = told.iter().filter(|fence| fence["change"] == *change);
            let whole = of.all(|fence| {
                fence["squatter"].is_string() == squatted
                    && fence["result"] == "done"
                    && fence["finished_at"].is_string()
                    && fence["reason"].as_str().is_some_and(|why| !why.is_empty())
            });
            let of = told.iter().filter(|fence| fence["change"] == *change);
            let of: BTreeSet<IpAddr> = of.filter_map(|fence| address(fence)).collect();
            (whole, of)
        };
        let both: BTreeSet<IpAddr> = squatted
            .iter()
            .map(|a| a.parse())
            .collect::<Result<_, _>>()?;
        ensure!(of("raised", true) == (true, both.clone()), "{json:#}");
        ensure!(of("lowered", false) == (true, both), "{json:#}");
        ensure!(
            told.len() == 4 && told[0]["change"] == "lowered",
            "{json:#}"
        );
        let text = tests::daemon::agent(&history)?.out;
        ensure!(
            text.contains("Fences:") && text.contains("without a lease"),
            "{text}"
        );
        Ok(())
    });
}

#[test]
fn no_more_than_a_share_of_a_pool_is_fenced() {
    in_lab(|lab| {
        // Of 64 addresses, 3.
        let net = network(lab, &["10.9.0.0/26"])?;
        let squatted: Vec<String> = (10..15).map(|last| format!("10.9.0.{last}")).collect();
        let squatted: Vec<&str> = squatted.iter().map(String::as_str).collect();
        let guest = squatter(lab, 1, &squatted)?;
        let daemon = start(lab, &fenced(lab, true))?;
        speak(&guest, &squatted)?;
        let all = |told: &Value| list(told, "conflicts").count() == squatted.len();
        daemon.wait_for("conflicts", PATIENCE, "report", |told| {
            all(told).then_some(())
        })?;
        daemon.wait_for("three fences", PATIENCE, "leases", |told| {
            (list(told, "leases").count() == 3).then_some(())
        })?;
        thread::sleep(Duration::from_secs(3));
        ensure!(on_disk(&net)?.len() == 3, "{:?}", on_disk(&net)?);
        daemon.stop()?;

        // Not wanted any more, they go; then all that is left goes with the agent.
        let daemon = start(lab, &fenced(lab, false))?;
        shown(&daemon, &[])?;
        ensure!(on_disk(&net)?.is_empty());
        daemon.stop()?;
        Ok(())
    });
}

#[test]
fn a_lock_that_is_held_a_daemon_that_is_killed_and_an_agent_that_is_removed() {
    in_lab(|lab| {
        let net = network(lab, &["10.9.0.0/24"])?;
        let squatted = ["10.9.0.3"];
        let guest = squatter(lab, 1, &squatted)?;
        let lock = fs::File::open(net.leases().join("lock"))?;
        lock.lock()?;
        let daemon = start(lab, &fenced(lab, true))?;
        speak(&guest, &squatted)?;
        let deadline = std::time::Instant::now() + PATIENCE;
        while !journaled(lab).is_ok_and(|told| told == ["raise 10.9.0.3"]) {
            ensure!(std::time::Instant::now() < deadline, "{}", daemon.log());
            thread::sleep(Duration::from_millis(20));
        }
        ensure!(on_disk(&net)?.is_empty(), "nothing without the lock");
        let pid = nix::unistd::Pid::from_raw(i32::try_from(daemon.pid())?);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL)?;
        drop(daemon);
        drop(lock);

        let daemon = start(lab, &fenced(lab, true))?;
        ensure!(journaled(lab)?[1] == "failed", "{:?}", journaled(lab)?);
        speak(&guest, &squatted)?;
        shown(&daemon, &squatted)?;
        let config = lab.disk().join("daemon/config.yaml").display().to_string();
        daemon.stop()?;
        let uninstall =
            |config: &str| tests::daemon::agent(&["uninstall", "--yes", "--config", config]);
        // What can't be found now is not forgotten.
        let elsewhere = lab.disk().join("elsewhere.yaml");
        let text = fs::read_to_string(&config)?;
        fs::write(&elsewhere, text.replace("cni/networks", "cni/other"))?;
        let left = uninstall(&elsewhere.display().to_string())?;
        ensure!(left.status == Some(2), "{left:?}");
        ensure!(left.err.contains("10.9.0.3 in host-local:pods"), "{left:?}");
        let unreadable = net.leases().join("10.9.0.77");
        fs::write(&unreadable, "")?;
        let none = None::<&str>;
        let memory = Some("/proc/self/mem");
        mount(memory, &unreadable, none, MsFlags::MS_BIND, none)?;
        let left = uninstall(&config)?;
        ensure!(left.status == Some(2), "{left:?}");
        ensure!(left.err.contains("there may be fences left"), "{left:?}");
        ensure!(state(lab).join("journal.jsonl").exists());
        umount2(&unreadable, MntFlags::MNT_DETACH)?;
        fs::remove_file(&unreadable)?;
        let removed = uninstall(&config)?;
        ensure!(removed.status == Some(0), "{removed:?}");
        ensure!(on_disk(&net)?.is_empty(), "{:?}", on_disk(&net)?);
        Ok(())
    });
}

#[test]
fn what_is_leased_is_not_fenced() {
    in_lab(|lab| {
        let net = network(lab, &["10.9.0.0/24"])?;
        let squatted = ["10.9.0.3"];
        let guest = squatter(lab, 1, &squatted)?;
        let daemon = start(lab, &fenced(lab, true))?;
        speak(&guest, &squatted)?;
        daemon.wait_for("the conflict", PATIENCE, "report", |told| {
            list(told, "conflicts").next().map(drop)
        })?;
        // Before ten seconds are over it is granted after all.
        let pod = net.start(lab, "one")?;
        ensure!(pod.addresses == [squatted[0].parse::<IpAddr>()?], "{pod:?}");
        speak(&guest, &squatted)?;
        thread::sleep(Duration::from_secs(12));
        ensure!(
            journaled(lab).is_ok_and(|told| told.is_empty()),
            "{:?}",
            journaled(lab)
        );
        ensure!(fs::read(net.leases().join(squatted[0]))? != FENCE);
        Ok(())
    });
}
