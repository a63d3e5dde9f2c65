//! The real host-local keeps its lock for half a minute.

use std::{
    fs::{self, File},
    time::{Duration, Instant},
};

use anyhow::ensure;
use nix::{sys::stat::Mode, unistd::mkfifo};
use tests::runtime::{Network, in_lab};

use super::*;

/// Longer than a pass waits for a lock, several times over.
const HELD: Duration = Duration::from_secs(30);

/// How often the daemon has given up on the lock of this network so far.
fn given_up(history: &Value, store: &str) -> usize {
    let of = list(history, "entries").filter(|entry| entry["store"] == store);
    let failed = of.filter(|entry| {
        let detail = entry["detail"].as_str().unwrap_or_default();
        entry["result"] == "failed" && detail.contains("held by host-local (process ")
    });
    failed.count()
}

#[test]
fn a_plugin_that_keeps_its_lock_stops_its_own_network_and_no_other() {
    in_lab(|lab| {
        let net = Network::bridge("pods", "cni0", &["10.9.0.0/24"])?;
        let other = Network::bridge("others", "cni1", &["10.8.0.0/24"])?;
        let stale = all(&pods(lab, &net, &["one", "two"])?);
        let free = all(&pods(lab, &other, &["three"])?);
        power_cut(lab)?;
        other.make_bridge()?;
        // ADD reads every file of its network under the lock: at this one it stays.
        let pipe = net.leases().join("zz-pipe");
        mkfifo(&pipe, Mode::S_IRWXU)?;
        let (added, waited) = thread::scope(|scope| {
            let adding = scope.spawn(|| net.start(lab, "slow"));
            let lock = File::open(net.leases().join("lock"))?;
            let deadline = Instant::now() + PATIENCE;
            while lock.try_lock().is_ok() {
                lock.unlock()?;
                ensure!(Instant::now() < deadline, "the plugin takes no lock");
                thread::sleep(Duration::from_millis(10));
            }
            let since = Instant::now();
            let waited = (|| {
                let daemon = start(lab, &config(lab, "continuous", ""))?;
                while since.elapsed() < HELD
                    || given_up(&history(&daemon, lab)?, "host-local:pods") < 2
                {
                    ensure!(since.elapsed() < 4 * HELD, "{}", daemon.log());
                    // It answers, and of what is locked nothing has changed.
                    daemon.query("report", &[])?;
                    ensure!(on_disk(&net)? == stale, "{:?}", on_disk(&net)?);
                    thread::sleep(Duration::from_millis(500));
                }
                ensure!(on_disk(&other)?.is_empty(), "{free:?} waited, too");
                Ok(daemon)
            })();
            // The plugin goes on.
            let writer = File::options().write(true).open(&pipe)?;
            fs::remove_file(&pipe)?;
            drop(writer);
            let added = adding.join().map_err(|_| anyhow!("the plugin failed"))?;
            anyhow::Ok((added?, waited))
        })?;
        let daemon = waited?;
        // What it gave meanwhile stays, what had leaked goes.
        let deadline = Instant::now() + PATIENCE;
        while on_disk(&net)? != all(std::slice::from_ref(&added)) {
            ensure!(
                Instant::now() < deadline,
                "{:?} {}",
                on_disk(&net)?,
                daemon.log()
            );
            thread::sleep(Duration::from_millis(100));
        }
        let told = history(&daemon, lab)?;
        let done = list(&told, "entries").filter(|entry| entry["result"] == "released");
        let done: BTreeSet<_> = done.filter_map(address).collect();
        ensure!(done == stale.union(&free).copied().collect(), "{told:#}");
        Ok(())
    });
}
