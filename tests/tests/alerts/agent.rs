//! The agents themselves: down, gone, restarted, misconfigured, and stuck.

use std::{fs, os::fd::AsRawFd as _, path::Path};

use anyhow::Context as _;
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tests::runtime::Network;

use super::*;

fn wait() -> Result<()> {
    Ok(())
}

#[test]
fn an_agent_that_stops_is_forgotten_comes_back_and_restarts() {
    in_lab(|lab| {
        let config = config(lab, HOST_LOCAL, "");
        let daemon = start(lab, &config)?;
        let prometheus = watching(lab)?;
        fires(&prometheus, "IpamLabMode", "critical", wait)?;
        daemon.stop()?;
        let alert = fires(&prometheus, "IpamAgentDown", "critical", wait)?;
        ensure!(alert["labels"]["instance"] == TARGET, "{alert:#}");
        let daemon = start(lab, &config)?;
        resolves(&prometheus, "IpamAgentDown")?;

        // Beside another job's target.
        prometheus.scrape(&[])?;
        fires(&prometheus, "IpamAgentGone", "warning", wait)?;
        fires(&prometheus, "IpamAgentAbsent", "critical", wait)?;
        prometheus.scrape(&[TARGET])?;
        resolves(&prometheus, "IpamAgentGone")?;
        resolves(&prometheus, "IpamAgentAbsent")?;

        let mut running = Some(daemon);
        fires(&prometheus, "IpamAgentRestarts", "warning", || {
            if let Some(daemon) = running.take() {
                daemon.stop()?;
            }
            running = Some(start(lab, &config)?);
            thread::sleep(2 * prometheus::INTERVAL);
            Ok(())
        })?;
        resolves(&prometheus, "IpamAgentRestarts")?;
        if let Some(daemon) = running {
            daemon.stop()?;
        }
        let _daemon = start(lab, &config.replace(GATES, ""))?;
        resolves(&prometheus, "IpamLabMode")
    });
}

#[test]
fn a_configuration_that_is_refused_and_mended() {
    in_lab(|lab| {
        let daemon = start(lab, &config(lab, HOST_LOCAL, ""))?;
        let prometheus = watching(lab)?;
        let file = lab.disk().join("daemon/config.yaml");
        let right = fs::read_to_string(&file)?;
        let pid = Pid::from_raw(i32::try_from(daemon.pid())?);
        fs::write(&file, format!("{right}\nno_such_key: 1\n"))?;
        kill(pid, Signal::SIGHUP)?;
        fires(&prometheus, "IpamConfigRefused", "warning", wait)?;
        fs::write(&file, right)?;
        kill(pid, Signal::SIGHUP)?;
        resolves(&prometheus, "IpamConfigRefused")
    });
}

/// A network file system whose server is gone: whoever wants something of it waits.
struct Hung<'a> {
    place: &'a Path,
    /// Where a server would read what is asked. Closed, those who wait get an error.
    _server: fs::File,
}

impl<'a> Hung<'a> {
    fn mount(place: &'a Path) -> Result<Self> {
        let server = fs::File::options()
            .read(true)
            .write(true)
            .open("/dev/fuse")
            .context("this kernel has no FUSE")?;
        let options = format!(
            "fd={},rootmode=40000,user_id=0,group_id=0",
            server.as_raw_fd()
        );
        let none = MsFlags::empty();
        mount(Some("gone"), place, Some("fuse"), none, Some(&*options)).context("can't mount")?;
        Ok(Self {
            place,
            _server: server,
        })
    }
}

impl Drop for Hung<'_> {
    fn drop(&mut self) {
        let _ = umount2(self.place, MntFlags::MNT_DETACH);
    }
}

#[test]
fn a_store_that_is_damaged_then_hangs() {
    in_lab(|lab| {
        let net = Network::bridge("pods", "cni0", &["10.9.0.0/24"])?;
        net.start(lab, "one")?;
        let share = lab.disk().join("share");
        fs::create_dir(&share)?;
        let leases = share.join("leases.yaml");
        let right = "leases: [{ address: 10.9.0.77, holder: vm/db-0 }]\n";
        fs::write(&leases, right)?;
        let stores = format!("{HOST_LOCAL}, {{ kind: file, path: {} }}", leases.display());
        let _daemon = start(lab, &config(lab, &stores, ""))?;
        let prometheus = watching(lab)?;
        // As a power cut leaves it.
        fs::write(&leases, [0; 64])?;
        let alert = fires(&prometheus, "IpamStoreErrors", "warning", wait)?;
        let store = alert["labels"]["store"].as_str().unwrap_or_default();
        ensure!(store.starts_with("file:"), "{alert:#}");
        fs::write(&leases, right)?;
        resolves(&prometheus, "IpamStoreErrors")?;

        let share = Hung::mount(&share)?;
        fires(&prometheus, "IpamPassesStopped", "warning", wait)?;
        drop(share);
        resolves(&prometheus, "IpamPassesStopped")
    });
}
