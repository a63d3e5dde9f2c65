//! The real host-local plugin allocates and frees while leaked leases are released.

use std::{
    collections::BTreeSet,
    io::Write,
    path::PathBuf,
    process::{Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use super::*;

/// The plugin of this machine; without one the test is skipped, visibly.
fn plugin() -> Option<PathBuf> {
    let places = ["/usr/lib/cni/host-local", "/opt/cni/bin/host-local"];
    let found = places
        .into_iter()
        .map(PathBuf::from)
        .find(|path| path.is_file());
    if found.is_none() {
        assert!(
            std::env::var_os("IPAM_AGENT_NO_SKIP").is_none(),
            "no host-local plugin"
        );
        eprintln!("skipped: no host-local plugin (Debian: containernetworking-plugins)");
    }
    found
}

struct Plugin {
    binary: PathBuf,
    configuration: String,
}

impl Plugin {
    fn new(binary: PathBuf, directory: &Path) -> Self {
        let configuration = serde_json::json!({
            "cniVersion": "1.0.0",
            "name": "net",
            "ipam": {
                "type": "host-local",
                "dataDir": directory,
                "ranges": [[{ "subnet": "10.9.0.0/25" }], [{ "subnet": "fd00:9::/64" }]],
            },
        });
        Self {
            binary,
            configuration: configuration.to_string(),
        }
    }

    fn call(&self, command: &str, id: &str) -> std::io::Result<std::process::Output> {
        let mut child = Command::new(&self.binary)
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", id)
            .env("CNI_NETNS", "/unused")
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", "/unused")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        child
            .stdin
            .take()
            .expect("its input")
            .write_all(self.configuration.as_bytes())?;
        child.wait_with_output()
    }

    /// The addresses given, if there are any left.
    fn add(&self, id: &str) -> Option<Vec<Address>> {
        let output = self.call("ADD", id).expect("the plugin runs");
        if !output.status.success() {
            return None;
        }
        let result: serde_json::Value = serde_json::from_slice(&output.stdout).expect("a result");
        let ips = result["ips"].as_array().expect("addresses").iter();
        let address = |ip: &serde_json::Value| {
            let text = ip["address"]
                .as_str()
                .expect("an address")
                .split('/')
                .next()
                .expect("an address");
            Address::from_ip(text.parse().expect("an address")).expect("claimable")
        };
        Some(ips.map(address).collect())
    }

    fn delete(&self, id: &str) {
        assert!(
            self.call("DEL", id)
                .expect("the plugin runs")
                .status
                .success()
        );
    }
}

#[test]
fn leaked_leases_go_and_live_ones_stay_while_host_local_works() {
    let Some(binary) = plugin() else {
        return;
    };
    let base = tempfile::tempdir().expect("a directory");
    let plugin = Plugin::new(binary, base.path());
    let source = source(base.path());
    // Who died without a DEL.
    let leaked: Mutex<BTreeSet<String>> = Mutex::default();
    let done = AtomicBool::new(false);
    let (mut released, mut live) = (0, Vec::new());

    thread::scope(|scope| {
        let workers: Vec<_> = (0..3)
            .map(|worker| {
                let (plugin, leaked) = (&plugin, &leaked);
                scope.spawn(move || {
                    let mut live: Vec<(String, Vec<Address>)> = Vec::new();
                    for n in 0..60 {
                        let id = format!("{worker:032x}{n:032x}");
                        let Some(addresses) = plugin.add(&id) else {
                            continue;
                        };
                        assert_eq!(addresses.len(), 2);
                        match n % 4 {
                            0 => live.push((id, addresses)),
                            1 | 2 => drop(leaked.lock().expect("the set").insert(id)),
                            _ => plugin.delete(&id),
                        }
                    }
                    live
                })
            })
            .collect();
        let reclaimer = scope.spawn(|| {
            let mut released = 0;
            loop {
                let last = done.load(Ordering::Acquire);
                for lease in source
                    .read()
                    .views
                    .into_iter()
                    .flatten()
                    .flat_map(|view| view.leases)
                {
                    let is_leaked = |id: &Arc<str>| leaked.lock().expect("the set").contains(&**id);
                    if lease.holder().container_id.as_ref().is_some_and(is_leaked) {
                        match release(&source, &lease) {
                            Ok(()) => released += 1,
                            Err(error) => panic!("{error:?}"),
                        }
                    }
                }
                if last {
                    return released;
                }
            }
        });
        for worker in workers {
            live.extend(worker.join().expect("a worker"));
        }
        done.store(true, Ordering::Release);
        released = reclaimer.join().expect("the reclaimer");
    });

    assert_eq!(released, 2 * leaked.lock().expect("the set").len());
    let view = view(&source);
    let mut expected: Vec<(Address, Option<Arc<str>>)> = live
        .iter()
        .flat_map(|(id, addresses)| {
            let id: Option<Arc<str>> = Some(id.as_str().into());
            addresses.iter().map(move |address| (*address, id.clone()))
        })
        .collect();
    expected.sort_unstable();
    let left: Vec<(Address, Option<Arc<str>>)> = view
        .leases
        .iter()
        .map(|lease| (lease.address, lease.holder().container_id))
        .collect();
    assert_eq!(
        left, expected,
        "exactly what is live is leased, each to its own"
    );
    for (id, _) in &live {
        plugin.delete(id);
    }
    assert_eq!(super::view(&source).leases, []);
}
