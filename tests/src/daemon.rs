//! The agent as its users start it: the real binary, its socket, its reports.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// Where a daemon logs to, in its directory.
const LOG: &str = "daemon.log";

/// A running daemon; killed when dropped.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    log: PathBuf,
    config: PathBuf,
}

/// The agent's binary, beside this program's.
pub fn binary() -> Result<PathBuf> {
    beside("ipam-agent")
}

/// A program of the workspace, beside this one.
pub fn beside(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let beside = own.ancestors().skip(1).take(2).map(|dir| dir.join(name));
    beside
        .into_iter()
        .find(|path| path.is_file())
        .context("the agent isn't built: `cargo build --workspace`, or `cargo xtask test`")
}

/// What a command of the agent printed, and how it ended.
#[derive(Clone, Debug)]
pub struct Answer {
    /// stdout.
    pub out: String,
    /// stderr.
    pub err: String,
    /// The exit status, `None` if a signal ended it.
    pub status: Option<i32>,
}

impl Answer {
    /// What was printed, as JSON.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.out).with_context(|| format!("no JSON: {self:?}"))
    }
}

/// Runs a command of the agent to its end.
pub fn agent(args: &[&str]) -> Result<Answer> {
    run(Command::new(binary()?).args(args))
}

/// Runs a command of the agent to its end as a root without capabilities `capabilities`, as
/// setpriv(1) names them.
pub fn agent_without(capabilities: &str, args: &[&str]) -> Result<Answer> {
    run(program(capabilities)?.args(args))
}

/// Runs a command of the agent to its end as a user who may do nothing.
pub fn agent_as_nobody(args: &[&str]) -> Result<Answer> {
    // Where it was built need not be for everybody to look into.
    let copy = Path::new("/run/ipam-agent-for-nobody");
    if !copy.exists() {
        fs::copy(binary()?, copy)?;
    }
    let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    run(Command::new("setpriv").args(nobody).arg(copy).args(args))
}

/// The agent, without these capabilities.
fn program(without: &str) -> Result<Command> {
    let mut command = Command::new("setpriv");
    command
        .arg(format!("--bounding-set={without}"))
        .arg(binary()?);
    Ok(command)
}

fn run(command: &mut Command) -> Result<Answer> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("can't run {command:?}"))?;
    Ok(Answer {
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
        status: output.status.code(),
    })
}

/// What the agent may do: `linux/capability.h`'s CAP_NET_ADMIN, CAP_NET_RAW, CAP_PERFMON and
/// CAP_BPF.
const CAPABILITIES: u64 = 1 << 12 | 1 << 13 | 1 << 38 | 1 << 39;

/// Its process, of which this is `/proc/PID/status`, has these privileges and no others.
pub fn is_confined(status: &str) -> Result<()> {
    let is = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        line.map(str::trim).unwrap_or_default()
    };
    for set in ["CapPrm:", "CapEff:", "CapBnd:"] {
        ensure!(
            u64::from_str_radix(is(set), 16)? == CAPABILITIES,
            "{status}"
        );
    }
    ensure!(
        is("NoNewPrivs:") == "1" && is("Seccomp:") == "2",
        "{status}"
    );
    Ok(())
}

/// The log of a daemon whose directory this is, to append to.
fn log_in(dir: &Path) -> Result<File> {
    fs::create_dir_all(dir)?;
    let mut options = fs::OpenOptions::new();
    Ok(options.create(true).append(true).open(dir.join(LOG))?)
}

impl Daemon {
    /// Starts the daemon with this configuration, which is written to `dir`, and waits
    /// until it answers.
    pub fn start(dir: &Path, config: &str) -> Result<Self> {
        Self::spawn(dir, config)?.answering()
    }

    /// The same, and it dies as by a power cut at this point of a release or an undo
    /// (`tests/src/bin/faulty.rs`), of which debug builds alone know.
    pub fn start_dying_at(point: &str, dir: &Path, config: &str) -> Result<Self> {
        let mut program = Command::new(beside("faulty")?);
        program.env("IPAM_AGENT_DIES_AT", point);
        Self::spawn_program(program, dir, config, log_in(dir)?)?.answering()
    }

    /// The same, and it panics there.
    pub fn start_panicking_at(point: &str, dir: &Path, config: &str) -> Result<Self> {
        let mut program = Command::new(beside("faulty")?);
        program.env("IPAM_AGENT_PANICS_AT", point);
        Self::spawn_program(program, dir, config, log_in(dir)?)?.answering()
    }

    /// The same without these capabilities, as setpriv(1) names them.
    pub fn start_without(capabilities: &str, dir: &Path, config: &str) -> Result<Self> {
        Self::spawn_program(program(capabilities)?, dir, config, log_in(dir)?)?.answering()
    }

    /// The same as a pod whose sandbox has its files in `sandbox`.
    pub fn start_as_pod(sandbox: &Path, dir: &Path, config: &str) -> Result<Self> {
        let mut program = Command::new("unshare");
        // What kubelet and the runtime do for every container.
        program
            .args(["--mount", "sh", "-c"])
            .arg("mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"")
            .arg(sandbox.join("resolv.conf"))
            .arg(binary()?)
            .env("KUBERNETES_SERVICE_HOST", "10.43.0.1");
        Self::spawn_program(program, dir, config, log_in(dir)?)?.answering()
    }

    fn answering(self) -> Result<Self> {
        let mut daemon = self;
        let deadline = Instant::now() + Duration::from_secs(20);
        while daemon.query("segments", &[]).is_err() {
            if let Some(status) = daemon.child.try_wait()? {
                bail!("the daemon ended with {status}:\n{}", daemon.log());
            }
            if Instant::now() > deadline {
                bail!("the daemon doesn't answer:\n{}", daemon.log());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(daemon)
    }

    /// Starts the daemon and doesn't wait.
    pub fn spawn(dir: &Path, config: &str) -> Result<Self> {
        Self::spawn_logging(dir, config, log_in(dir)?)
    }

    /// Starts the daemon with its log going to `log`, and doesn't wait.
    pub fn spawn_logging(dir: &Path, config: &str, log: impl Into<Stdio>) -> Result<Self> {
        Self::spawn_program(Command::new(binary()?), dir, config, log)
    }

    fn spawn_program(
        mut program: Command,
        dir: &Path,
        config: &str,
        log: impl Into<Stdio>,
    ) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let file = dir.join("config.yaml");
        let socket = dir.join("agent.sock");
        fs::write(&file, format!("{config}\nsocket: {}\n", socket.display()))?;
        let child = program
            .args(["run", "--config"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("can't start the daemon")?;
        Ok(Self {
            child,
            log: dir.join(LOG),
            config: file,
        })
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.config.with_file_name("agent.sock")
    }

    /// Waits until it has ended, and gives back how.
    pub fn wait(mut self) -> Result<std::process::ExitStatus> {
        self.ended()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it logged.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Runs a command of the agent against it and gives back the JSON that it prints.
    pub fn query(&self, command: &str, args: &[&str]) -> Result<Value> {
        let (output, _) = self.command(command, args)?;
        serde_json::from_str(&output)
            .with_context(|| format!("{command} printed no JSON: {output}"))
    }

    /// Runs a command of the agent against it; what it prints, and its exit status.
    pub fn command(&self, command: &str, args: &[&str]) -> Result<(String, Option<i32>)> {
        let output = Command::new(binary()?)
            .args(command.split(' '))
            .args(args)
            .args(["--output", "json", "--config"])
            .arg(&self.config)
            .stdin(Stdio::null())
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if text.is_empty() && !output.status.success() {
            bail!(
                "{command}: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok((text, output.status.code()))
    }

    /// Runs a command of the agent against it as a person would; what it prints.
    pub fn text(&self, command: &str, args: &[&str]) -> Result<String> {
        let output = Command::new(binary()?)
            .args(command.split(' '))
            .args(args)
            .arg("--config")
            .arg(&self.config)
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .output()?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs a query again and again until `found` finds what it looks for.
    pub fn wait_for<T>(
        &self,
        what: &str,
        patience: Duration,
        command: &str,
        found: impl Fn(&Value) -> Option<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + patience;
        loop {
            let document = self.query(command, &[])?;
            if let Some(value) = found(&document) {
                return Ok(value);
            }
            if Instant::now() > deadline {
                bail!(
                    "waited {} s for {what}; {command} says:\n{document:#}\nlog:\n{}",
                    patience.as_secs(),
                    self.log()
                );
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Kills it as a power cut does.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Stops it as systemd and kubelet do, and gives back how it ended.
    pub fn stop(mut self) -> Result<std::process::ExitStatus> {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id())?);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?;
        self.ended()
    }

    fn ended(&mut self) -> Result<std::process::ExitStatus> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("the daemon doesn't end:\n{}", self.log());
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
