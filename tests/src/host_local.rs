//! The real host-local at full speed, and beside it a process that releases what leaked. Who
//! holds what is known from what the plugin answered, not from its files.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write,
    net::IpAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use ipam_agent::{
    cni,
    engine::{
        Engine, Settings, Windows,
        evidence::{Held, PassEvidence, Source, SourceReport},
        input::Input,
        lease::{Mode, Place, StoreView},
        owner::Owners,
        plan::{Asker, ReclaimPlan},
        reclaim::ReclaimSettings,
        time::Timestamp,
    },
    executor,
    journal::Journal,
    store::{LeaseStore, host_local::HostLocal},
};
use ipam_common::{Address, sighting::Stamps};
use ipnet::IpNet;
use serde_json::json;

use crate::plugins::Plugins;

/// The network's name.
const NETWORK: &str = "net";

/// A directory of host-local's with one network, what leaked in it, and a journal.
pub struct Bench {
    directory: PathBuf,
    plugin: PathBuf,
    configuration: String,
}

impl Bench {
    /// In this directory, with addresses from `prefix`.
    pub fn new(directory: &Path, prefix: IpNet, plugins: &Plugins) -> Result<Self> {
        fs::create_dir_all(directory.join("leases"))?;
        fs::write(directory.join("truth"), "")?;
        let configuration = json!({
            "cniVersion": plugins.version,
            "name": NETWORK,
            "ipam": {
                "type": "host-local",
                "dataDir": directory.join("leases"),
                "ranges": [[{ "subnet": prefix }]],
            },
        });
        Ok(Self {
            directory: directory.to_owned(),
            plugin: plugins.dir.join("host-local"),
            configuration: configuration.to_string(),
        })
    }

    /// Has an address given to `id`; `None`: there is none left.
    pub fn add(&self, id: &str) -> Result<Option<IpAddr>> {
        let (done, answer) = self.call("ADD", id)?;
        if !done {
            let full = answer.contains("no IP addresses available");
            return if full {
                Ok(None)
            } else {
                Err(anyhow!("ADD of {id}: {answer}"))
            };
        }
        let answer: serde_json::Value = serde_json::from_str(&answer)?;
        let address = answer["ips"][0]["address"].as_str().context("an address")?;
        Ok(Some(address.parse::<IpNet>()?.addr()))
    }

    /// Has what `id` was given freed.
    pub fn delete(&self, id: &str) -> Result<()> {
        let (done, answer) = self.call("DEL", id)?;
        ensure!(done, "DEL of {id}: {answer}");
        Ok(())
    }

    /// Says, for the releaser, that the lease of `id` has leaked, or that `id` lives again.
    pub fn tell(&self, id: &str, leaked: bool) -> Result<()> {
        let word = if leaked { "leaked" } else { "lives" };
        let mut truth = fs::OpenOptions::new()
            .append(true)
            .open(self.directory.join("truth"))?;
        truth.write_all(format!("{word} {id}\n").as_bytes())?;
        Ok(())
    }

    /// The lease files, by address.
    pub fn files(&self) -> Result<BTreeMap<IpAddr, Vec<u8>>> {
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(self.directory.join("leases").join(NETWORK))? {
            let entry = entry?;
            if let Some(address) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            {
                files.insert(address, fs::read(entry.path())?);
            }
        }
        Ok(files)
    }

    /// The file of one lease.
    pub fn file(&self, address: IpAddr) -> Option<Vec<u8>> {
        fs::read(
            self.directory
                .join("leases")
                .join(NETWORK)
                .join(address.to_string()),
        )
        .ok()
    }

    /// What the releaser wrote down.
    pub fn history(&self) -> Result<ipam_agent::journal::History> {
        Ok(ipam_agent::journal::history(
            &self.directory.join("state"),
            usize::MAX,
        )?)
    }

    fn call(&self, command: &str, id: &str) -> Result<(bool, String)> {
        let mut child = Command::new(&self.plugin)
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", id)
            .env("CNI_NETNS", "/unused")
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", "/unused")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut stdin = child.stdin.take().context("its input")?;
        stdin.write_all(self.configuration.as_bytes())?;
        drop(stdin);
        let output = child.wait_with_output()?;
        let answer = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok((output.status.success(), answer))
    }
}

/// Releases what leaked, again and again; plans that are long stale, too. Drained: until
/// nothing that leaked is left.
pub fn release_what_leaked(directory: &Path, drain: bool) -> Result<()> {
    let paths = cni::Paths {
        configurations: Vec::new(),
        caches: Vec::new(),
        flannel: directory.join("no-flannel"),
    };
    let cni = Arc::new(cni::Reader::new(paths));
    let source = HostLocal::new(directory.join("leases"), Mode::Observe, Vec::new(), cni);
    let stores: [Arc<dyn LeaseStore>; 1] = [Arc::new(source)];
    let view = || -> Result<Option<StoreView>> {
        Ok(stores[0].read().views.into_iter().next().transpose()?)
    };
    let clock = ipam_agent::driver::clock::when;
    let mut journal = Journal::open(&directory.join("state"), "boot")?;
    let there = view()?;
    executor::settle(&mut journal, &there.iter().collect::<Vec<_>>(), &clock)?;
    let mut before: Option<ReclaimPlan> = None;
    let mut idle = 0;
    loop {
        // The leases first: what lives again by then is told before it has its lease.
        let leases = view()?;
        let truth = fs::read_to_string(directory.join("truth"))?;
        let leaked = leaked(&truth);
        let plan = leases.map(|leases| plan(leases, &leaked));
        let plan = plan.filter(|plan| !plan.releases.is_empty());
        for plan in before.iter().chain(&plan) {
            executor::execute(plan, None, &stores, &mut journal, &clock, &mut |_| Ok(()));
        }
        idle = if plan.is_none() { idle + 1 } else { 0 };
        if drain && idle > 1 {
            return Ok(());
        }
        if plan.is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        before = plan.or(before);
    }
}

/// The ids whose leases have leaked. Half a line at the end is no word yet.
fn leaked(truth: &str) -> BTreeSet<&str> {
    let whole = truth.rfind('\n').map_or("", |end| &truth[..end]);
    let mut leaked = BTreeSet::new();
    for line in whole.lines() {
        match line.split_once(' ') {
            Some(("leaked", id)) => drop(leaked.insert(id)),
            Some((_, id)) => drop(leaked.remove(id)),
            None => {}
        }
    }
    leaked
}

/// What the engine has released where nobody is known to hold what leaked, and everything else
/// has a holder.
fn plan(mut view: StoreView, leaked: &BTreeSet<&str>) -> ReclaimPlan {
    view.place = Place::Routed;
    let is_leaked = |id: &Option<Arc<str>>| id.as_deref().is_some_and(|id| leaked.contains(id));
    let held = view
        .leases
        .iter()
        .filter(|lease| !is_leaked(&lease.holder().container_id));
    let held = held
        .map(|lease| Held {
            address: lease.address,
            ifindex: None,
        })
        .collect();
    let stamps = Stamps {
        since: 1,
        ..Stamps::default()
    };
    let evidence = PassEvidence {
        ports: Vec::new(),
        stamps: view
            .leases
            .iter()
            .map(|lease| (lease.address, stamps))
            .collect(),
        sources: vec![SourceReport {
            source: Source::Namespaces,
            answer: Ok(held),
        }],
        runtimes: None,
        person: true,
    };
    let addresses: Vec<Address> = view.leases.iter().map(|lease| lease.address).collect();
    let mut engine = Engine::new(settings());
    let inputs = [
        Input::WatchedSince(Timestamp(1)),
        Input::Links {
            topology: Arc::default(),
            since: Timestamp(1),
        },
        Input::State(Ok(())),
        Input::Stores {
            source: 0,
            views: vec![view],
            failed: Vec::new(),
            owners: Owners::default(),
        },
        Input::Watching(addresses),
        Input::Evidence(evidence.clone()),
        Input::Evidence(evidence),
    ];
    for (at, input) in (1..).zip(inputs) {
        engine.handle(input, Timestamp(at));
    }
    engine.plan(Asker::Person, Timestamp(100))
}

/// No time has to pass: what leaked is known.
fn settings() -> Settings {
    Settings {
        boot: "boot".into(),
        owners: Owners::default(),
        confirm: Vec::new(),
        windows: Windows::default(),
        reclaim: ReclaimSettings {
            gate: Duration::ZERO,
            damaged_gate: Duration::ZERO,
            asked_gate: Duration::ZERO,
            asked_damaged_gate: Duration::ZERO,
            reboot_gate: Duration::ZERO,
            pass_interval: Duration::ZERO,
            max_per_pass: usize::MAX,
            max_percent: 100,
            keep: Vec::new(),
            data_plane: true,
        },
    }
}

/// Why the files can't be what they should be, or `Ok`.
pub fn exactly(files: &BTreeMap<IpAddr, Vec<u8>>, live: &BTreeMap<IpAddr, String>) -> Result<()> {
    let expected: BTreeMap<IpAddr, Vec<u8>> = live
        .iter()
        .map(|(address, id)| (*address, format!("{id}\r\neth0").into_bytes()))
        .collect();
    if *files != expected {
        bail!("the files are {files:?}\ninstead of {expected:?}");
    }
    Ok(())
}
