//! A true power cut: what the page cache held is lost. The real host-local grants leases at
//! every age, the agent runs beside it with its state on the same disk; after the next boot
//! both find what the kernel had written by then.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::IpAddr,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use ipam_agent::{
    engine::plan::Asker,
    report::document::{Applied, History, HistoryEntry, Plan, ReleaseResult},
};
use nix::mount::{MsFlags, mount};
use tests::{
    daemon::Daemon,
    lab::{Lab, run},
    runtime::Network,
};

use crate::host::{eventually, ip_line};

const DISK: &str = "/disk";
/// 13 addresses for pods.
const SUBNET: &str = "10.9.0.0/28";
const ROOM: usize = 13;
/// Leaked before the cut, and given back before it.
const LEAKED_BEFORE: [&str; 2] = ["leaked1", "leaked2"];
/// Granted one after the other, the last right before the cut.
const GRANTS: usize = 9;
/// From one grant to the next: of the first nothing is lost, of the last nothing is written.
const BETWEEN: Duration = Duration::from_millis(1200);

/// The first boot: gives back the machine as it runs when its power is cut.
pub fn up_to() -> Result<(Lab, Daemon)> {
    let (lab, net) = boot()?;
    // The installation is long past.
    nix::unistd::sync();
    let daemon = start(&lab, "continuous")?;
    for name in LEAKED_BEFORE {
        let pod = net.start(&lab, name)?;
        ip_line(&format!("netns del {}", pod.netns.name()))?;
    }
    eventually("the first releases", || {
        let released = history(&daemon, &lab)?.entries;
        let released = released.iter().filter(|entry| is_released(entry)).count();
        Ok((released == LEAKED_BEFORE.len()).then_some(()))
    })
    .with_context(|| daemon.log())?;

    let mut grants = Vec::new();
    for n in 0..GRANTS {
        let pod = net.start(&lab, &format!("pod{n}"))?;
        let granted = Instant::now();
        grants.push((pod.address(false)?, granted));
        std::thread::sleep(BETWEEN.saturating_sub(granted.elapsed()));
    }
    for (address, granted) in grants {
        let age = granted.elapsed().as_secs_f64();
        println!("{address} was granted {age:.1} s before the cut");
    }
    Ok((lab, daemon))
}

/// The second boot.
pub fn after() -> Result<()> {
    let (lab, net) = boot()?;
    let left = left(&net)?;
    for (address, left) in &left {
        println!("{address} is {left:?} after the cut");
    }
    let of = |kind: Left| left.iter().filter(move |(_, left)| **left == kind);
    let damaged = of(Left::Empty).chain(of(Left::Nul)).map(|(ip, _)| *ip);
    let intact = of(Left::Intact).map(|(ip, _)| *ip);
    let [damaged, intact]: [Vec<IpAddr>; 2] = [damaged.collect(), intact.collect()];
    ensure!(!damaged.is_empty(), "the cut damaged no lease: {left:?}");
    ensure!(intact.len() >= 2, "the cut left too little: {left:?}");

    // Two of them live on, without asking a plugin: as what restores itself does.
    let alive = BTreeSet::from([damaged[0], intact[0]]);
    boot_script(&net, alive.len())?;
    let bridge = net.make_bridge()?;
    for (n, address) in alive.iter().enumerate() {
        let name = format!("alive{n}");
        lab.guest(&name, &format!("veth{n}"), &bridge)?;
        ip_line(&format!("-n {name} address add {address}/28 dev eth0"))?;
    }
    let leaked: BTreeSet<_> = left.keys().copied().collect();
    let leaked: BTreeSet<_> = leaked.difference(&alive).copied().collect();
    released_are(&lab, &leaked, &alive, &net)?;

    // The pool is usable again to its end, and nobody had to help.
    for n in 0..ROOM - alive.len() {
        let pod = net.start(&lab, &format!("new{n}"))?;
        let address = pod.address(false)?;
        ensure!(!alive.contains(&address), "{address} was granted twice");
    }
    Ok(())
}

/// Runs the agent until exactly these are given back: unasked what it knows from before the
/// cut, the rest when a person asks.
fn released_are(
    lab: &Lab,
    leaked: &BTreeSet<IpAddr>,
    alive: &BTreeSet<IpAddr>,
    net: &Network,
) -> Result<()> {
    let started = uptime()?;
    let daemon = start(lab, "after-reboot")?;
    eventually("the first free address", || {
        let there = left(net)?;
        Ok((there.len() < leaked.len() + alive.len()).then_some(()))
    })
    .with_context(|| daemon.log())?;
    println!(
        "the agent, started {started:.1} s after the boot with gates of 2 s: the first free \
         address after {:.1} s, and none that is in use",
        uptime()?
    );
    // What is left needs a person's word.
    eventually("the plan", || {
        let plan: Plan = serde_json::from_value(daemon.query("reclaim plan", &[])?)?;
        let there: BTreeSet<_> = left(net)?.into_keys().collect();
        let wanted: BTreeSet<_> = there.difference(alive).copied().collect();
        let planned: BTreeSet<_> = plan.releases.iter().map(|of| of.address).collect();
        ensure!(planned.is_disjoint(alive), "{plan:#?}");
        Ok((planned == wanted).then_some(()))
    })
    .with_context(|| daemon.log())?;
    let (applied, _) = daemon.command("reclaim apply", &["--yes"])?;
    let applied: Applied = serde_json::from_str(&applied)?;
    let left: BTreeSet<_> = left(net)?.into_keys().collect();
    ensure!(left == *alive, "{left:?} are left: {applied:#?}");
    journal_says(&daemon, lab, leaked)
}

/// The journal of before the cut is whole, and says of each release after it why.
fn journal_says(daemon: &Daemon, lab: &Lab, leaked: &BTreeSet<IpAddr>) -> Result<()> {
    let history = history(daemon, lab)?;
    ensure!(history.damaged_lines == 0, "{history:#?}");
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let (now, before): (Vec<_>, Vec<_>) = history
        .entries
        .into_iter()
        .partition(|entry| entry.boot_id == boot.trim());
    ensure!(before.len() == LEAKED_BEFORE.len(), "{before:#?}");
    ensure!(before.iter().all(is_released), "{before:#?}");
    let released: BTreeSet<_> = now.iter().map(|entry| entry.address).collect();
    ensure!(released == *leaked && now.len() == leaked.len(), "{now:#?}");
    for entry in &now {
        ensure!(is_released(entry) && !entry.reason.is_empty(), "{entry:#?}");
    }
    let damaged = now.iter().filter(|entry| entry.damage.is_some()).count();
    let unasked = now.iter().filter(|entry| entry.asker == Asker::Daemon);
    let unasked = unasked.count();
    println!(
        "given back: {}, {damaged} of them damaged, {unasked} of them unasked",
        now.len()
    );
    // What was on disk before the cut is known after it, or the database is lost and told so.
    let lost = lab.disk().join("state/state.redb.damaged-0").exists();
    ensure!(lost != (unasked > 0), "lost {lost}\n{}", daemon.log());
    ensure!(
        !lost || daemon.log().contains("the state database was damaged"),
        "{}",
        daemon.log()
    );
    Ok(())
}

/// What a script that removes all leases at boot would have done with the same disk.
fn boot_script(net: &Network, alive: usize) -> Result<()> {
    let copy = Path::new(DISK).join("copy").display().to_string();
    run(
        "busybox",
        &["cp", "-r", &net.leases().display().to_string(), &copy],
    )?;
    run("busybox", &["rm", "-rf", &copy])?;
    println!(
        "rm -rf at boot: the first free address after {:.1} s, and {alive} that are in use",
        uptime()?
    );
    Ok(())
}

/// What a power cut left of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    Intact,
    Empty,
    Nul,
    Torn,
}

/// The leases on the disk.
fn left(net: &Network) -> Result<BTreeMap<IpAddr, Left>> {
    let mut left = BTreeMap::new();
    for entry in fs::read_dir(net.leases())? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(address) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let content = match fs::read(entry.path()) {
            Ok(content) => content,
            // Given back since.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error.into()),
        };
        let kind = match &content[..] {
            [] => Left::Empty,
            nul if nul.iter().all(|byte| *byte == 0) => Left::Nul,
            whole if whole.len() == 70 && whole.ends_with(b"\r\neth0") => Left::Intact,
            _ => Left::Torn,
        };
        left.insert(address, kind);
    }
    Ok(left)
}

/// The machine, with its disk and its network.
fn boot() -> Result<(Lab, Network)> {
    let none = None::<&str>;
    fs::create_dir_all(DISK)?;
    mount(Some("/dev/vda"), DISK, Some("ext4"), MsFlags::empty(), none)
        .context("can't mount the disk")?;
    let lab = Lab::whole_machine(Path::new(DISK))?;
    let net = Network::bridge("pods", "cni0", &[SUBNET])?;
    Ok((lab, net))
}

fn start(lab: &Lab, mode: &str) -> Result<Daemon> {
    let config = format!(
        "state_dir: {}\nholders: {{ cri: off }}\n\
         stores: [{{ kind: host-local, dir: /var/lib/cni/networks, reclaim: {mode} }}]\n\
         reclaim: {{ lab: true, gate: 2s, damaged_gate: 3s, asked_gate: 2s, \
         asked_damaged_gate: 3s, reboot_gate: 2s, pass_interval: 1s }}\n",
        lab.disk().join("state").display()
    );
    Daemon::start(&lab.disk().join("agent"), &config)
}

fn history(daemon: &Daemon, lab: &Lab) -> Result<History> {
    let state = lab.disk().join("state").display().to_string();
    let history = daemon.query("reclaim history", &["--state-dir", &state])?;
    Ok(serde_json::from_value(history)?)
}

fn is_released(entry: &HistoryEntry) -> bool {
    entry.result == ReleaseResult::Released
}

/// Seconds since the boot.
fn uptime() -> Result<f64> {
    let uptime = fs::read_to_string("/proc/uptime")?;
    let seconds = uptime.split(' ').next().context("no uptime")?;
    Ok(seconds.parse()?)
}
