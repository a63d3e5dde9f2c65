//! A true power cut: what the page cache held is lost. The real host-local grants leases at
//! every age, the agent runs beside it with its state on the same disk; after the next boot
//! both find what the kernel had written by then.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::IpAddr,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use ipam_agent::{
    engine::{lease::Damage, plan::Asker},
    report::document::{Applied, History, HistoryEntry, LeaseState, Leases, Plan, ReleaseResult},
};
use nix::mount::{MsFlags, mount};
use tests::{
    daemon::Daemon,
    lab::{Lab, run},
    runtime::{Network, Pod},
};

use crate::{
    clock,
    host::{eventually, ip_line},
};

const DISK: &str = "/disk";
/// 13 addresses for pods.
const SUBNET: &str = "10.9.0.0/28";
const ROOM: usize = 13;
/// Leaked before the cut, and given back before it.
const EARLY: [&str; 2] = ["early1", "early2"];
/// Leaked so shortly before it that they may be given back before it, in it, or after it.
const LATE: [&str; 2] = ["late1", "late2"];
/// Granted so long before it that nothing of them is lost.
const OLD: [&str; 2] = ["old1", "old2"];
/// host-local grants one after the other: what those get that leak.
const LEAKED: [&str; 4] = ["10.9.0.2", "10.9.0.3", "10.9.0.4", "10.9.0.5"];
/// Granted one after the other, the last right before the cut: what room is left.
const GRANTS: usize = 7;
/// Then the late ones leak.
const LATE_AFTER: usize = GRANTS - 3;
/// From one grant to the next: of the first nothing is lost, of the last nothing is written.
const BETWEEN: Duration = Duration::from_millis(1200);

/// The first boot: gives back the machine as it runs when its power is cut.
pub fn up_to() -> Result<(Lab, Daemon)> {
    let (lab, net) = boot()?;
    // The installation is long past.
    nix::unistd::sync();
    let daemon = start(&lab, "continuous", QUICK)?;
    let mut leaking = Vec::new();
    for (name, expected) in EARLY.into_iter().chain(LATE).zip(LEAKED) {
        let pod = net.start(&lab, name)?;
        ensure!(pod.address(false)?.to_string() == expected, "{pod:?}");
        leaking.push(pod);
    }
    let late = leaking.split_off(EARLY.len());
    leaking.iter().try_for_each(end)?;
    for name in OLD {
        net.start(&lab, name)?;
    }
    eventually("the first releases", || {
        let released = history(&daemon, &lab)?.entries;
        let released = released.iter().filter(|entry| is_released(entry)).count();
        Ok((released == EARLY.len()).then_some(()))
    })
    .with_context(|| daemon.log())?;
    // The kernel does so by itself, half a minute after a write.
    nix::unistd::sync();

    let mut grants = Vec::new();
    for n in 0..GRANTS {
        if n == LATE_AFTER {
            late.iter().try_for_each(end)?;
        }
        let pod = net.start(&lab, &format!("pod{n}"))?;
        let granted = Instant::now();
        grants.push((pod.address(false)?, granted));
        thread::sleep(BETWEEN.saturating_sub(granted.elapsed()));
    }
    for (address, granted) in grants {
        let age = granted.elapsed().as_secs_f64();
        println!("{address} was granted {age:.1} s before the cut");
    }
    Ok((lab, daemon))
}

/// A pod goes and nobody tells the plugins.
pub fn end(pod: &Pod) -> Result<()> {
    ip_line(&format!("netns del {}", pod.netns.name()))
}

/// The second boot.
pub fn after() -> Result<()> {
    let (lab, net) = boot()?;
    let left = look(&net)?;
    for (address, left) in &left {
        let how = left.map_or_else(|| "intact".into(), |damage| format!("{damage:?}"));
        println!("{address} is {how} after the cut");
    }
    let (damaged, intact): (Vec<IpAddr>, Vec<IpAddr>) =
        left.keys().partition(|address| left[address].is_some());
    ensure!(!damaged.is_empty(), "the cut damaged no lease: {left:?}");
    ensure!(
        intact.len() >= OLD.len(),
        "the cut left too little: {left:?}"
    );

    // Its clock had no battery: all that is written down is of a year to come.
    clock::shift(-1)?;

    // Two of them live on, without asking a plugin: as what restores itself does.
    let alive = BTreeSet::from([damaged[0], intact[intact.len() - 1]]);
    boot_script(&net, alive.len())?;
    let bridge = net.make_bridge()?;
    for (n, address) in alive.iter().enumerate() {
        let name = format!("alive{n}");
        lab.guest(&name, &format!("veth{n}"), &bridge)?;
        ip_line(&format!("-n {name} address add {address}/28 dev eth0"))?;
    }
    given_back(&lab, &net, &left, &alive)?;

    // The pool is usable again to its end, and nobody had to help.
    let mut new = Vec::new();
    for n in 0..ROOM - alive.len() {
        let pod = net.start(&lab, &format!("new{n}"))?;
        let address = pod.address(false)?;
        ensure!(!alive.contains(&address), "{address} was granted twice");
        new.push(pod);
    }
    clock::jumps(&lab, &net, &new[0])
}

/// Runs the agent until all but these are given back: unasked what it knows from before the
/// cut, the rest when a person asks.
fn given_back(lab: &Lab, net: &Network, left: &Left, alive: &BTreeSet<IpAddr>) -> Result<()> {
    let started = uptime()?;
    let daemon = start(lab, "after-reboot", QUICK)?;
    eventually("the first free address", || {
        Ok((look(net)?.len() < left.len()).then_some(()))
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
        let there: BTreeSet<_> = look(net)?.into_keys().collect();
        let wanted: BTreeSet<_> = there.difference(alive).copied().collect();
        let planned: BTreeSet<_> = plan.releases.iter().map(|of| of.address).collect();
        ensure!(planned.is_disjoint(alive), "{plan:#?}");
        Ok((planned == wanted).then_some(()))
    })
    .with_context(|| daemon.log())?;
    let (applied, _) = daemon.command("reclaim apply", &["--yes"])?;
    let applied: Applied = serde_json::from_str(&applied)?;
    let there: BTreeSet<_> = look(net)?.into_keys().collect();
    ensure!(there == *alive, "{there:?} are left: {applied:#?}");

    let leases: Leases = serde_json::from_value(daemon.query("leases", &[])?)?;
    for address in alive {
        let mut of = leases.leases.iter();
        let of = of.find(|of| of.lease.address == *address);
        let of = of.with_context(|| format!("{address} isn't in {leases:#?}"))?;
        ensure!(left.get(address) == Some(&of.damage), "{of:#?}");
        ensure!(of.lease.state == LeaseState::Active, "{of:#?}");
    }
    journal_says(&daemon, lab, left, alive)
}

/// The journal of before the cut is whole and true, and says of each release after it why.
fn journal_says(daemon: &Daemon, lab: &Lab, left: &Left, alive: &BTreeSet<IpAddr>) -> Result<()> {
    let history = history(daemon, lab)?;
    ensure!(history.damaged_lines == 0, "{history:#?}");
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let (now, before): (Vec<_>, Vec<_>) = history
        .entries
        .into_iter()
        .partition(|entry| entry.boot_id == boot.trim());

    for entry in &before {
        let address = entry.address.to_string();
        ensure!(LEAKED.contains(&&*address), "{entry:#?}");
        let there = left.contains_key(&entry.address);
        ensure!(is_released(entry) != there, "there {there}: {entry:#?}");
    }
    let early = before.iter().filter(|entry| is_released(entry));
    ensure!(early.count() >= EARLY.len(), "{before:#?}");

    let released: BTreeMap<_, _> = now.iter().map(|of| (of.address, of.damage)).collect();
    let leaked = left.iter().filter(|(address, _)| !alive.contains(address));
    let leaked: BTreeMap<_, _> = leaked.map(|(address, left)| (*address, *left)).collect();
    ensure!(released == leaked, "{leaked:#?} leaked: {now:#?}");
    ensure!(now.len() == leaked.len(), "{now:#?}");
    for entry in &now {
        ensure!(is_released(entry) && !entry.reason.is_empty(), "{entry:#?}");
    }
    let damaged = leaked.values().flatten().count();
    let unasked = now.iter().filter(|entry| entry.asker == Asker::Daemon);
    let unasked = unasked.count();
    println!(
        "given back before the cut: {}; after it: {}, {damaged} of them damaged, {unasked} \
         of them unasked",
        before.len(),
        now.len()
    );
    // What was on disk before the cut is known after it, or the database is lost and told so.
    let lost = lab.disk().join("state/state.redb.damaged-0").exists();
    let told = daemon.log().contains("the state database was damaged");
    ensure!(lost != (unasked > 0), "lost {lost}\n{}", daemon.log());
    ensure!(lost == told, "lost {lost}\n{}", daemon.log());
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

/// What is wrong with the leases on the disk.
pub type Left = BTreeMap<IpAddr, Option<Damage>>;

/// Looks at the disk without the agent.
pub fn look(net: &Network) -> Result<Left> {
    let mut left = Left::new();
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
        let damage = match &content[..] {
            [] => Some(Damage::Empty),
            nul if nul.iter().all(|byte| *byte == 0) => Some(Damage::Nul),
            whole if whole.len() == 70 && whole.ends_with(b"\r\neth0") => None,
            _ => Some(Damage::Truncated),
        };
        left.insert(address, damage);
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

/// Gates of seconds.
pub const QUICK: &str = "gate: 2s, damaged_gate: 3s, asked_gate: 2s, asked_damaged_gate: 3s, \
                         reboot_gate: 2s";

pub fn start(lab: &Lab, mode: &str, gates: &str) -> Result<Daemon> {
    let config = format!(
        "state_dir: {}\nholders: {{ cri: off }}\n\
         stores: [{{ kind: host-local, dir: /var/lib/cni/networks, reclaim: {mode} }}]\n\
         reclaim: {{ lab: true, {gates}, pass_interval: 1s }}\n",
        lab.disk().join("state").display()
    );
    Daemon::start(&lab.disk().join("agent"), &config)
}

pub fn history(daemon: &Daemon, lab: &Lab) -> Result<History> {
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
