//! Directories and files of leases that are not as host-local writes them.

use std::{
    fs,
    net::Ipv4Addr,
    os::unix::{
        fs::{PermissionsExt as _, symlink},
        net::UnixListener,
    },
    path::Path,
};

use anyhow::{Result, ensure};
use serde_json::Value;
use tests::{
    daemon::{Daemon, agent_without},
    lab::{self, in_lab},
};

use super::{
    LEASE, NETWORKS, PATIENCE, blind, config, leased, list, network, small, start, still_watches,
};

#[test]
fn a_lease_directory_that_is_none() {
    in_lab(|lab| {
        fs::write(NETWORKS, "no directory")?;
        let daemon = start(lab, &config(lab))?;
        let (report, status) = daemon.command("report", &[])?;
        let report: Value = serde_json::from_str(&report)?;
        ensure!(status == Some(3), "{status:?} {report:#}");
        ensure!(
            blind(&report).iter().any(|why| why.contains(NETWORKS)),
            "{report:#}"
        );
        still_watches(lab, &daemon, "one")?;
        // Mended, it is read.
        fs::remove_file(NETWORKS)?;
        network("pods", "10.9.0.2")?;
        leased(&daemon, 1)?;
        let (report, status) = daemon.command("report", &[])?;
        ensure!(status == Some(0), "{report}");
        Ok(())
    });
}

#[test]
fn a_network_that_cannot_be_read_keeps_what_is_known_of_it() {
    in_lab(|lab| {
        network("pods", "10.9.0.2")?;
        network("others", "10.8.0.2")?;
        // Root may read everything: one who may not stands for a disk that fails.
        let limited = "-dac_override,-dac_read_search";
        let dir = lab.disk().join("daemon");
        let daemon = Daemon::start_without(limited, &dir, &config(lab))?;
        leased(&daemon, 2)?;
        let pods = Path::new(NETWORKS).join("pods");
        fs::set_permissions(&pods, fs::Permissions::from_mode(0o000))?;
        fs::write(format!("{NETWORKS}/others/10.8.0.3"), LEASE)?;
        let told = leased(&daemon, 3)?;
        ensure!(
            blind(&told).iter().any(|why| why.contains("pods")),
            "{told:#}"
        );
        let plan = daemon.query("reclaim plan", &[])?;
        let mut kept = list(&plan, "kept").filter(|kept| kept["address"] == "10.9.0.2");
        let down = kept.next().and_then(|kept| {
            list(kept, "blockers")
                .find(|blocker| blocker["reason"] == "source-down")
                .cloned()
        });
        let said = down.is_some_and(|down| down["detail"].to_string().contains("pods"));
        ensure!(said, "{plan:#}");
        fs::set_permissions(&pods, fs::Permissions::from_mode(0o755))?;
        fs::write(pods.join("10.9.0.3"), LEASE)?;
        let told = leased(&daemon, 4)?;
        ensure!(blind(&told).is_empty(), "{told:#}");
        Ok(())
    });
}

#[test]
fn a_network_that_could_never_be_read_is_told_of() {
    in_lab(|lab| {
        network("pods", "10.9.0.2")?;
        network("others", "10.8.0.2")?;
        let pods = Path::new(NETWORKS).join("pods");
        fs::set_permissions(&pods, fs::Permissions::from_mode(0o000))?;
        let limited = "-dac_override,-dac_read_search";
        let dir = lab.disk().join("daemon");
        let daemon = Daemon::start_without(limited, &dir, &config(lab))?;
        let told = leased(&daemon, 1)?;
        ensure!(
            blind(&told).iter().any(|why| why.contains("pods")),
            "{told:#}"
        );
        let (plan, status) = daemon.command("reclaim plan", &[])?;
        ensure!(status == Some(3), "{status:?} {plan}");
        let warned = "host-local:pods is down: cannot read /var/lib/cni/networks/pods";
        ensure!(
            daemon.log().matches(warned).count() == 1,
            "{}",
            daemon.log()
        );
        let alone = ["leases", "--leases", "host-local"];
        let told = agent_without(limited, &alone)?;
        ensure!(told.status == Some(2), "{told:?}");
        ensure!(told.err.contains("cannot read"), "{told:?}");

        fs::set_permissions(&pods, fs::Permissions::from_mode(0o755))?;
        fs::write(pods.join("10.9.0.3"), LEASE)?;
        let told = leased(&daemon, 3)?;
        ensure!(blind(&told).is_empty(), "{told:#}");
        let back = "host-local:pods is back";
        ensure!(daemon.log().contains(back), "{}", daemon.log());
        Ok(())
    });
}

#[test]
fn what_is_no_lease_is_passed_over_and_damaged_ones_are_named() {
    in_lab(|lab| {
        network("pods", "10.9.0.2")?;
        let dir = Path::new(NETWORKS).join("pods");
        for name in [
            "hello",
            "10.9.0.300",
            "127.0.0.1",
            "10.9.0.2.bak",
            "last_reserved_ip.0",
            "::ffff:1.2.3.4",
            "\u{1b}[31m",
        ] {
            fs::write(dir.join(name), LEASE)?;
        }
        fs::create_dir(dir.join("10.9.0.9"))?;
        symlink("/etc/passwd", dir.join("10.9.0.10"))?;
        lab::run("mkfifo", &[&dir.join("10.9.0.11").display().to_string()])?;
        let damaged: [(&str, &[u8], &str); 4] = [
            ("10.9.0.3", b"", "empty"),
            ("10.9.0.4", &[0; 17], "nul"),
            ("10.9.0.5", b"0123456789abcdef\r\n", "truncated"),
            ("10.9.0.6", &[b'a'; 64], "id-only"),
        ];
        for (name, bytes, _) in damaged {
            fs::write(dir.join(name), bytes)?;
        }
        fs::write(dir.join("10.9.0.7"), vec![b'x'; 1 << 20])?;
        let daemon = start(lab, &config(lab))?;
        let told = leased(&daemon, 2 + damaged.len())?;
        for (address, _, damage) in damaged {
            let lease = list(&told, "leases").find(|lease| lease["address"] == *address);
            ensure!(
                lease.is_some_and(|lease| lease["damage"] == *damage),
                "{address} {damage}: {told:#}"
            );
        }
        let log = daemon.log();
        for words in [
            "name is no address: 4",
            "address that no machine can have: 2",
            "symbolic link, not followed: 10.9.0.10",
            "but no file: 2",
            "never released: 10.9.0.7",
        ] {
            ensure!(log.contains(words), "{words:?} is not told: {log}");
        }
        ensure!(
            !log.contains('\u{1b}'),
            "a file's name reaches the terminal: {log:?}"
        );
        still_watches(lab, &daemon, "one")?;
        Ok(())
    });
}

#[test]
fn what_is_no_file_where_files_are_read() {
    in_lab(|lab| {
        network("pods", "10.9.0.2")?;
        let file = lab.disk().join("leases.yaml");
        let right = "leases: [{ address: 10.9.0.77 }]\n";
        fs::write(&file, right)?;
        let stores = format!(
            "stores: [{{ kind: host-local }}, {{ kind: file, path: {} }}]\n",
            file.display()
        );
        let daemon = start(lab, &(config(lab) + &stores))?;
        leased(&daemon, 2)?;
        // Pipes into which nobody writes.
        for dir in ["/etc/cni/net.d", "/var/lib/cni/results", NETWORKS] {
            fs::create_dir_all(dir)?;
            lab::run("mkfifo", &[&format!("{dir}/10-pipe.conf")])?;
        }
        let aside = lab.disk().join("aside");
        let put = |number: u8| -> Result<()> {
            // Read all the same, whatever stands in the lease file's place.
            fs::write(format!("{NETWORKS}/pods/10.9.0.1{number}"), LEASE)?;
            Ok(fs::rename(&aside, &file)?)
        };
        for (number, kind) in [(0, "a pipe"), (1, "a socket"), (2, "a device")] {
            let _listener;
            match kind {
                "a pipe" => drop(lab::run("mkfifo", &[&aside.display().to_string()])?),
                "a socket" => _listener = UnixListener::bind(&aside)?,
                _ => symlink("/dev/zero", &aside)?,
            }
            put(number)?;
            let told = daemon.wait_for(kind, PATIENCE, "leases", |told| {
                let new = format!("10.9.0.1{number}");
                let mut leases = list(told, "leases");
                let read = leases.any(|lease| lease["address"] == *new);
                (read && blind(told).iter().any(|why| why.contains(kind))).then(|| told.clone())
            })?;
            ensure!(blind(&told).len() == 1, "told once: {told:#}");
            // What was in the file is kept as known.
            let mut leases = list(&told, "leases");
            ensure!(
                leases.any(|lease| lease["address"] == "10.9.0.77"),
                "{told:#}"
            );
            let doctor = daemon.query("doctor", &[])?;
            let mut checks = list(&doctor, "checks");
            let said = checks.any(|check| check["detail"].to_string().contains(kind));
            ensure!(said, "{doctor:#}");
        }
        fs::write(&aside, right)?;
        put(3)?;
        let told = leased(&daemon, 6)?;
        ensure!(blind(&told).is_empty(), "{told:#}");
        still_watches(lab, &daemon, "one")
    });
}

#[test]
fn a_hundred_thousand_leases() {
    in_lab(|lab| {
        const COUNT: u32 = 100_000;
        // In memory: the time to make so many files is not what is looked at.
        small(Path::new(NETWORKS), 512 << 10)?;
        network("pods", "10.128.0.1")?;
        let dir = Path::new(NETWORKS).join("pods");
        for n in 1..COUNT {
            let ip = Ipv4Addr::from(0x0a80_0001 + n);
            fs::write(dir.join(ip.to_string()), LEASE)?;
        }
        let daemon = start(lab, &config(lab))?;
        let told = leased(&daemon, COUNT as usize)?;
        ensure!(blind(&told).is_empty(), "{:?}", blind(&told));
        // One more is still known soon, and wires are still watched.
        fs::write(dir.join("10.200.0.1"), LEASE)?;
        leased(&daemon, COUNT as usize + 1)?;
        still_watches(lab, &daemon, "one")?;
        ensure!(daemon.stop()?.success());
        Ok(())
    });
}
