//! The Debian package on a host that systemd runs: from its installation to its purge, as an
//! administrator goes about it. The agent is the service, confined as its unit says.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    net::IpAddr,
    path::Path,
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tests::{
    lab::{Lab, run},
    runtime::{Network, Pod},
};

use crate::{
    host::{eventually, has_clsact, ip_line, programs},
    tried,
};

const PACKAGE: &str = "/ipam-agent.deb";
const CONFIG: &str = "/etc/ipam-agent/config.yaml";
const STATE: &str = "/var/lib/ipam-agent";
const PINS: &str = "/sys/fs/bpf/ipam-agent";
/// Gates of seconds, no container runtime, and what somebody uses is fenced.
const LABORATORY: &str = "\
stores: [{ kind: host-local, fence: true }]
holders: { cri: off }
reclaim: { lab: true, gate: 2s, damaged_gate: 2500ms, asked_gate: 2s, asked_damaged_gate: 2500ms,
  reboot_gate: 2s, pass_interval: 500ms }
";
/// Of the pods' network, and no pod's.
const SQUATTED: &str = "10.52.0.77";
const GATEWAY: &str = "10.52.0.1";
/// Two clocks that are read one after the other, and rounded.
const ROUNDING: SignedDuration = SignedDuration::from_millis(50);

type Step = fn(&mut Host) -> Result<()>;
type Change = fn() -> Result<()>;

const STEPS: [(&str, Step); 10] = [
    ("the package is installed, and the agent watches", install),
    ("it has four capabilities and no more", is_confined),
    ("it sees pods of the real plugins, and a duplicate", sees),
    (
        "it reads its configuration again, or keeps the old one",
        reload,
    ),
    (
        "a leaked lease is given back, though CNI came after it",
        give_back,
    ),
    (
        "a restart, a kill and an upgrade miss nothing",
        miss_nothing,
    ),
    (
        "a wrong configuration keeps it from starting, and says where",
        wrong_configuration,
    ),
    (
        "removed, it leaves the journal and no fence, filter or pin",
        remove,
    ),
    ("installed again, it runs as before", install_again),
    ("purged, it leaves nothing", purge),
];

/// The host, its pods, and how the agent was configured.
struct Host {
    net: Option<Network>,
    pods: Vec<Pod>,
}

/// Goes through it until a step fails; how many passed, of how many.
pub fn tale() -> (usize, usize) {
    let mut host = Host {
        net: None,
        pods: Vec::new(),
    };
    let steps = STEPS.into_iter();
    let passed =
        steps.map_while(|(name, step)| tried(name, || step(&mut host).with_context(journal)));
    (passed.count(), STEPS.len())
}

fn install(_: &mut Host) -> Result<()> {
    ensure!(!Path::new("/var/lib/cni").exists(), "CNI comes later");
    dpkg(&["--install", PACKAGE])?;
    // Now: who started it waited until it was ready.
    ask("report", &[])?;
    for is in ["is-active", "is-enabled"] {
        systemctl(&[is, "--quiet"])?;
    }
    let doctor = ask("doctor", &[])?;
    let failed = list(&doctor, "checks").filter(|check| check["status"] == "fail");
    let failed: Vec<_> = failed.collect();
    ensure!(failed.is_empty(), "{failed:#?}");
    Ok(())
}

fn is_confined(_: &mut Host) -> Result<()> {
    let status = fs::read_to_string(format!("/proc/{}/status", main_pid()?))?;
    tests::daemon::is_confined(&status)
}

fn sees(host: &mut Host) -> Result<()> {
    fs::create_dir_all("/etc/cni/net.d")?;
    let net = Network::bridge("pods", "cni0", &["10.52.0.0/24"])?;
    let lab = Lab::this_machine();
    for name in ["owner", "thief", "gone"] {
        host.pods.push(net.start(&lab, name)?);
    }
    host.net = Some(net);
    let all: Vec<_> = host.pods.iter().map(|pod| pod.addresses[0]).collect();
    eventually("the leases", || {
        let leases = ask("leases", &[])?;
        let active = |address: &IpAddr| {
            list(&leases, "leases")
                .any(|lease| lease["address"] == *address.to_string() && lease["state"] == "active")
        };
        Ok(all.iter().all(active).then_some(()))
    })?;
    let [owner, thief, _] = &host.pods[..] else {
        bail!("three pods");
    };
    for pod in [owner, thief, owner] {
        pod.claims(owner.addresses[0])?;
    }
    eventually("the duplicate", || {
        let report = ask("report", &[])?;
        let found = list(&report, "conflicts").any(|conflict| {
            conflict["kind"] == "duplicate-address"
                && conflict["address"] == *owner.addresses[0].to_string()
        });
        Ok(found.then_some(()))
    })
}

fn reload(host: &mut Host) -> Result<()> {
    let kept = host.pods[2].addresses[0];
    let is_kept = || {
        let plan = ask("reclaim plan", &[])?;
        let lease = list(&plan, "kept").find(|lease| lease["address"] == *kept.to_string());
        let blockers = lease.into_iter().flat_map(|lease| list(lease, "blockers"));
        let mut reasons = blockers.filter_map(|blocker| blocker["reason"].as_str());
        anyhow::Ok(reasons.any(|reason| reason == "kept"))
    };
    ensure!(!is_kept()?);
    configure(&format!("{LABORATORY}keep: [{kept}]\n"))?;
    systemctl(&["reload"])?;
    eventually("the new configuration", || Ok(is_kept()?.then_some(())))?;

    configure(&format!("{LABORATORY}keeep: [{kept}]\n"))?;
    systemctl(&["reload"])?;
    eventually("the refusal", || {
        let told = journal().contains("unknown key `keeep` (did you mean `keep`?)");
        Ok(told.then_some(()))
    })?;
    ensure!(is_kept()?, "the old one goes on");
    configure(LABORATORY)?;
    systemctl(&["reload"])?;
    eventually("the last", || Ok((!is_kept()?).then_some(())))
}

fn give_back(host: &mut Host) -> Result<()> {
    let leaked = host.pods.pop().context("a pod")?;
    let net = host.net.as_ref().context("a network")?;
    let file = net.leases().join(leaked.addresses[0].to_string());
    ensure!(file.exists());
    ip_line(&format!("netns del {}", leaked.netns.name()))?;
    eventually("the release", || {
        // It ends with 1 as long as something is left.
        let _ = agent("reclaim apply", &["--yes"])?;
        Ok((!file.exists()).then_some(()))
    })?;
    for pod in &host.pods {
        let file = net.leases().join(pod.addresses[0].to_string());
        ensure!(file.exists(), "{}", file.display());
    }
    let history = ask("reclaim history", &[])?;
    let entries: Vec<_> = list(&history, "entries").collect();
    ensure!(
        matches!(&entries[..], [entry] if entry["result"] == "released"),
        "{history:#}"
    );
    Ok(())
}

fn miss_nothing(_: &mut Host) -> Result<()> {
    // Whose port was attached to in time is not known over a restart: it counts from the attach.
    systemctl(&["restart"])?;
    let before = watched_since()?;
    let edited = fs::read_to_string(CONFIG)?;
    let ways: [(&str, Change); 3] = [
        ("a restart", || systemctl(&["restart"])),
        ("a kill", || systemctl(&["kill", "--signal=KILL"])),
        ("an upgrade", || {
            dpkg(&["--force-confold", "--install", PACKAGE])
        }),
    ];
    for (how, change) in ways {
        let old = main_pid()?;
        change()?;
        eventually("the next agent", || {
            let changed = main_pid().is_ok_and(|pid| pid != 0 && pid != old);
            Ok((changed && ask("segments", &[]).is_ok()).then_some(()))
        })
        .context(how)?;
        let after = watched_since()?;
        ensure!(
            after.duration_since(before).abs() < ROUNDING,
            "{how}: watched since {before}, then since {after}"
        );
    }
    ensure!(fs::read_to_string(CONFIG)? == edited);
    Ok(())
}

fn watched_since() -> Result<Timestamp> {
    let segments = ask("segments", &[])?;
    let bridge = list(&segments, "segments").find(|segment| segment["name"] == "cni0");
    let since = bridge.and_then(|segment| segment["watched_since"].as_str());
    Ok(since.with_context(|| format!("{segments:#}"))?.parse()?)
}

fn wrong_configuration(_: &mut Host) -> Result<()> {
    configure(&format!("{LABORATORY}nonsense: 1\n"))?;
    ensure!(systemctl(&["restart"]).is_err(), "it started");
    let line = LABORATORY.lines().count() + 1;
    let told = format!("{CONFIG}:{line}: unknown key `nonsense`");
    eventually("the refusal", || {
        Ok(journal().contains(&told).then_some(()))
    })?;
    let shown = run("systemctl", &["show", "-p", "ExecMainStatus", UNIT])?;
    ensure!(shown.trim() == "ExecMainStatus=2", "{shown}");
    configure(LABORATORY)?;
    // It tries again by itself.
    eventually("the mended agent", || {
        Ok(ask("segments", &[]).is_ok().then_some(()))
    })
}

fn remove(host: &mut Host) -> Result<()> {
    let net = host.net.as_ref().context("a network")?;
    let fence = net.leases().join(SQUATTED);
    let thief = &host.pods[1];
    let name = thief.netns.name();
    ip_line(&format!("-n {name} addr add {SQUATTED}/24 dev eth0"))?;
    eventually("the fence", || {
        thief
            .netns
            .speak_from(SQUATTED.parse()?, GATEWAY.parse()?)?;
        Ok(fence.exists().then_some(()))
    })?;
    let ports: Vec<_> = host.pods.iter().map(|pod| &pod.host_interface).collect();
    for port in &ports {
        ensure!(!programs(port)?.is_empty(), "{port} is not watched");
    }
    // Who can't lower it stays until it can.
    configure("stores: [{ kind: nonsense }]\n")?;
    ensure!(dpkg(&["--remove", "ipam-agent"]).is_err(), "it is removed");
    ensure!(fence.exists() && Path::new("/usr/bin/ipam-agent").exists());
    configure(LABORATORY)?;
    eventually("the agent again", || {
        Ok(ask("segments", &[]).is_ok().then_some(()))
    })?;
    // And nobody is there any more who could clean up.
    systemctl(&["kill", "--signal=KILL"])?;
    dpkg(&["--remove", "ipam-agent"])?;
    ensure!(!fence.exists(), "the fence is there");
    for port in ports {
        ensure!(programs(port)?.is_empty(), "a program is on {port}");
        ensure!(!has_clsact(port)?, "{port} has a clsact");
    }
    for gone in [PINS, "/run/ipam-agent", "/usr/bin/ipam-agent"] {
        ensure!(!Path::new(gone).exists(), "{gone} is there");
    }
    for pod in &host.pods {
        ensure!(net.leases().join(pod.addresses[0].to_string()).exists());
    }
    ensure!(fs::read_to_string(Path::new(STATE).join("journal.jsonl"))?.contains("released"));
    ensure!(Path::new(CONFIG).exists());
    Ok(())
}

fn install_again(_: &mut Host) -> Result<()> {
    dpkg(&["--force-confold", "--install", PACKAGE])?;
    for is in ["is-active", "is-enabled"] {
        systemctl(&[is, "--quiet"])?;
    }
    let history = ask("reclaim history", &[])?;
    ensure!(list(&history, "entries").count() > 0, "{history:#}");
    Ok(())
}

fn purge(_: &mut Host) -> Result<()> {
    dpkg(&["--purge", "ipam-agent"])?;
    for gone in [STATE, "/etc/ipam-agent"] {
        ensure!(!Path::new(gone).exists(), "{gone} is there");
    }
    let known = run("systemctl", &["list-unit-files", "--no-legend"])?;
    ensure!(!known.contains("ipam-agent"), "{known}");
    Ok(())
}

const UNIT: &str = "ipam-agent.service";

fn systemctl(args: &[&str]) -> Result<()> {
    run("systemctl", &[args, &[UNIT]].concat()).map(drop)
}

/// Non-interactive, as apt runs it.
fn dpkg(args: &[&str]) -> Result<()> {
    run("dpkg", args).map(drop)
}

fn main_pid() -> Result<u32> {
    let pid = run("systemctl", &["show", "-p", "MainPID", "--value", UNIT])?;
    Ok(pid.trim().parse()?)
}

/// What the unit said, and systemd of it.
fn journal() -> String {
    let args = ["--unit", UNIT, "--output", "cat", "--no-pager"];
    run("journalctl", &args).unwrap_or_default()
}

fn configure(text: &str) -> Result<()> {
    let mut file = OpenOptions::new().write(true).truncate(true).open(CONFIG)?;
    Ok(file.write_all(text.as_bytes())?)
}

/// Runs a command of the installed agent; the JSON that it prints.
fn ask(command: &str, args: &[&str]) -> Result<Value> {
    let (out, err) = agent(command, args)?;
    serde_json::from_str(&out).with_context(|| format!("{command}: {out}{err}"))
}

/// The same; what it prints and what it complains of.
fn agent(command: &str, args: &[&str]) -> Result<(String, String)> {
    let output = Command::new("/usr/bin/ipam-agent")
        .args(command.split(' '))
        .args(args)
        .args(["--output", "json"])
        .output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok((text(&output.stdout), text(&output.stderr)))
}

fn list<'a>(document: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    document[key].as_array().into_iter().flatten()
}
