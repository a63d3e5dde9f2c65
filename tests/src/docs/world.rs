//! The host of a page: pods of a network as Harvester has one, the documented paths, and
//! what happens between the commands.

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    mount::{MsFlags, mount},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    containerd::wait_for,
    daemon::binary,
    lab::{self, Lab},
    runtime::{Network, Pod},
};

/// How long the agent may take over anything.
const PATIENCE: Duration = Duration::from_secs(120);
/// The network: 13 addresses for pods, so that it is full soon.
const NETWORK: &str = "k8s-pod-network";
const SUBNET: &str = "10.52.0.0/28";
const GATEWAY: &str = "10.52.0.1";
/// What the documentation says where files are.
const CONFIG: &str = "/etc/ipam-agent/config.yaml";
/// Gates of seconds in place of minutes, so that nobody waits; and no container runtime is
/// asked, as there is none here.
const LABORATORY: [&str; 2] = [
    "holders: { cri: off }",
    "reclaim: { lab: true, gate: 6s, damaged_gate: 8s, asked_gate: 30s, asked_damaged_gate: 35s, \
     reboot_gate: 3s, pass_interval: 1s }",
];

/// What a command printed, and how it ended.
#[derive(Clone, Debug)]
pub struct Ran {
    /// On both streams.
    pub output: String,
    /// Its exit status; 128 and the number of the signal that ended it.
    pub status: i32,
}

/// A host, and what runs on it.
pub struct World<'a> {
    lab: &'a mut Lab,
    network: Network,
    pods: Vec<Pod>,
    daemon: Option<Child>,
    /// What the page showed last: a configuration or a lease file.
    pub shown: Option<String>,
    directory: PathBuf,
}

impl<'a> World<'a> {
    /// With the documented directories, empty, and a capture of an incident.
    pub fn new(lab: &'a mut Lab) -> Result<Self> {
        for place in ["/etc/ipam-agent", "/var/lib/ipam-agent"] {
            let disk = lab.disk().join(place.replace('/', "-"));
            fs::create_dir_all(&disk)?;
            fs::create_dir_all(place)?;
            let none: Option<&str> = None;
            mount(Some(&disk), place, none, MsFlags::MS_BIND, none)
                .with_context(|| format!("can't bind {place}"))?;
        }
        let directory = lab.disk().join("work");
        let programs = lab.disk().join("bin");
        fs::create_dir_all(&directory)?;
        fs::create_dir_all(&programs)?;
        std::os::unix::fs::symlink(binary()?, programs.join("ipam-agent"))?;
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/demo");
        fs::copy(fixtures.join("cni0.pcap"), directory.join("incident.pcap"))?;
        fs::copy(fixtures.join("leases.yaml"), directory.join("leases.yaml"))?;
        Ok(Self {
            lab,
            network: Network::bridge(NETWORK, "cni0", &[SUBNET])?,
            pods: Vec::new(),
            daemon: None,
            shown: None,
            directory,
        })
    }

    /// Where commands are run.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Runs a command as a person types it.
    pub fn run(&mut self, command: &str) -> Result<Ran> {
        if command == "ipam-agent run &" {
            self.start()?;
            return Ok(Ran {
                output: String::new(),
                status: 0,
            });
        }
        let path = std::env::var("PATH").unwrap_or_default();
        let programs = self.lab.disk().join("bin");
        let output = Command::new("timeout")
            .args([&PATIENCE.as_secs().to_string(), "bash", "-c"])
            .arg(format!("exec 2>&1\n{command}"))
            .current_dir(&self.directory)
            .env("PATH", format!("{}:{path}", programs.display()))
            .env("NO_COLOR", "1")
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::null())
            .output()
            .context("can't run bash")?;
        Ok(Ran {
            output: String::from_utf8_lossy(&output.stdout).into_owned(),
            status: output.status.code().unwrap_or(128),
        })
    }

    /// Has something happen.
    pub fn act(&mut self, what: &str) -> Result<()> {
        let words: Vec<&str> = what.split(' ').collect();
        match words[..] {
            // What the page showed is written to a file.
            ["file", path] => {
                let shown = self.shown.as_deref().context("nothing was shown")?;
                Ok(fs::write(path, shown)?)
            }
            ["pods", prefix, number] => {
                for n in 1..=number.parse()? {
                    self.pod(&format!("{prefix}-{n}"))?;
                }
                Ok(())
            }
            ["pod", name] => self.pod(name),
            ["no-pod-starts"] => match self.network.start(self.lab, "job-0") {
                Ok(_) => bail!("a pod starts"),
                Err(error) => {
                    // kubelet removes what it could not set up; the kernel takes its time.
                    lab::ip(&["netns", "del", "job-0"])?;
                    wait_for("its veth to go", || {
                        let veths = lab::run("ip", &["-o", "link", "show", "type", "veth"])?;
                        Ok(veths.is_empty().then_some(()))
                    })?;
                    let why = format!("{error:#}");
                    ensure!(
                        why.contains("no IP addresses available in range set"),
                        "{why}"
                    );
                    Ok(())
                }
            },
            // Leases of those that died: some are empty files, as after any power cut.
            ["power-cut"] => {
                self.stop(Signal::SIGKILL)?;
                self.lab.power_cut()?;
                for pod in self.pods.iter().take(2) {
                    let address = pod.address(false)?;
                    fs::write(self.network.leases().join(address.to_string()), "")?;
                }
                Ok(())
            }
            // It comes back with its old address, and asks no plugin for it.
            ["returns", name] => {
                let pod = self.lab.restore(&self.network, self.called(name)?)?;
                speak(&pod)
            }
            ["speaks", name] => speak(self.called(name)?),
            [thief, "takes-the-address-of", owner] => {
                let (thief, owner) = (self.called(thief)?, self.called(owner)?);
                let address = owner.address(false)?;
                let add = ["address", "add", &format!("{address}/28"), "dev", "eth0"];
                lab::ip(&[&["-n", thief.netns.name()], &add[..]].concat())?;
                thief.netns.speak_from(address, GATEWAY.parse()?)?;
                speak(owner)
            }
            ["daemon"] => self.start(),
            ["hand-over"] => self.stop(Signal::SIGUSR2),
            ["no-daemon"] => self.stop(Signal::SIGTERM),
            // Until a command prints something: `until WORDS: COMMAND`.
            ["until", ..] => {
                let what = what.trim_start_matches("until ");
                let (text, command) = what.split_once(": ").context("until WORDS: COMMAND")?;
                self.until(text, command)
            }
            _ => bail!("unknown"),
        }
    }

    fn until(&mut self, text: &str, command: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let ran = self.run(command)?;
            if ran.output.contains(text) {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "`{command}` prints no `{text}`:\n{}\nlog:\n{}",
                ran.output,
                self.log()
            );
            thread::sleep(Duration::from_millis(200));
        }
    }

    fn called(&self, name: &str) -> Result<&Pod> {
        let mut pods = self.pods.iter().rev();
        let pod = pods.find(|pod| pod.name == name);
        pod.with_context(|| format!("no pod {name}"))
    }

    fn pod(&mut self, name: &str) -> Result<()> {
        let pod = self.network.start(self.lab, name)?;
        speak(&pod)?;
        self.pods.push(pod);
        Ok(())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.lab.disk().join("daemon.log")).unwrap_or_default()
    }

    /// The daemon with the page's configuration and a laboratory's gates.
    fn start(&mut self) -> Result<()> {
        let written = fs::read_to_string(CONFIG).unwrap_or_default();
        let mut config: String = written
            .lines()
            .filter(|line| !line.starts_with("holders:") && !line.starts_with("reclaim:"))
            .map(|line| format!("{line}\n"))
            .collect();
        config += &LABORATORY.join("\n");
        let file = self.lab.disk().join("laboratory.yaml");
        fs::write(&file, config)?;
        let log = fs::File::create(self.lab.disk().join("daemon.log"))?;
        let child = Command::new(binary()?)
            .args(["run", "--config"])
            .arg(file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        self.daemon = Some(child);
        self.until("ipam-agent/segments", "ipam-agent segments --output json")
    }

    fn stop(&mut self, signal: Signal) -> Result<()> {
        let Some(mut child) = self.daemon.take() else {
            return Ok(());
        };
        kill(Pid::from_raw(i32::try_from(child.id())?), signal)?;
        child.wait()?;
        Ok(())
    }

    /// The page is over.
    pub fn end(mut self) -> Result<()> {
        self.stop(Signal::SIGTERM)
    }
}

impl Drop for World<'_> {
    fn drop(&mut self) {
        if let Some(child) = &mut self.daemon {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn speak(pod: &Pod) -> Result<()> {
    let gateway: IpAddr = GATEWAY.parse()?;
    pod.netns.speak_to(gateway)
}
