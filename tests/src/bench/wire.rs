//! What experiments on a wire share: pods on a bridge, and a daemon that watches them.

use std::{
    io::{BufRead as _, BufReader, PipeReader, pipe},
    net::Ipv4Addr,
    path::Path,
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{
    daemon::Daemon,
    lab::{Lab, Netns, ip},
};

/// The bridge.
pub const BRIDGE: &str = "br0";

/// How long a daemon may take for anything before the experiment is given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Pods on the bridge, each behind `veth0`, `veth1`, … with an `eth0` of its own.
pub fn pods(lab: &Lab, count: usize) -> Result<Vec<Netns>> {
    ip(&["link", "add", BRIDGE, "type", "bridge"])?;
    ip(&["link", "set", BRIDGE, "up"])?;
    let pods = (0..count).map(|number| {
        let pod = lab.pod(&format!("pod{number}"))?;
        let veth = format!("veth{number}");
        ip(&[
            "link",
            "add",
            &veth,
            "master",
            BRIDGE,
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            pod.name(),
        ])?;
        ip(&["link", "set", &veth, "up"])?;
        ip(&["-n", pod.name(), "link", "set", "eth0", "up"])?;
        Ok(pod)
    });
    pods.collect()
}

/// The address of the claim or pod of this number.
pub fn address(number: u16) -> Ipv4Addr {
    let [high, low] = number.to_be_bytes();
    Ipv4Addr::new(10, 20, high, low)
}

/// A daemon that observes, whose every word is stamped as it comes.
pub struct Watched {
    /// The daemon.
    pub daemon: Daemon,
    /// How long it took from its start to the word that it watches all that is there.
    pub start: Duration,
    words: Receiver<(Instant, String)>,
}

impl Watched {
    /// Starts a daemon with defaults, its state and socket in `dir`, and waits until it
    /// watches.
    pub fn start(dir: &Path) -> Result<Self> {
        let config = format!(
            "state_dir: {}\nholders: {{ cri: off }}",
            dir.join("state").display()
        );
        let (log, writer) = pipe()?;
        let started = Instant::now();
        let daemon = Daemon::spawn_logging(dir, &config, writer)?;
        let mut watched = Self {
            daemon,
            start: Duration::ZERO,
            words: listen(log),
        };
        let watching = |line: &str| line.contains("watching; the socket is").then_some(());
        watched.start = watched.wait_for("it to watch", watching)?.0 - started;
        Ok(watched)
    }

    /// Reads on in the log until `found` finds what it looks for; what, and when the line
    /// came.
    pub fn wait_for<T>(
        &self,
        what: &str,
        found: impl Fn(&str) -> Option<T>,
    ) -> Result<(Instant, T)> {
        let deadline = Instant::now() + PATIENCE;
        let mut last = String::from("nothing");
        loop {
            match self.words.recv_timeout(deadline - Instant::now()) {
                Ok((at, line)) => match found(&line) {
                    Some(value) => return Ok((at, value)),
                    None => last = line,
                },
                Err(RecvTimeoutError::Timeout) => {
                    bail!(
                        "waited {} s for {what}; the daemon said last: {last}",
                        PATIENCE.as_secs()
                    )
                }
                Err(RecvTimeoutError::Disconnected) => {
                    bail!("waited for {what}; the daemon ended: {last}")
                }
            }
        }
    }

    /// Ends it, which must leave nothing behind.
    pub fn stop(self) -> Result<()> {
        let status = self.daemon.stop()?;
        status
            .success()
            .then_some(())
            .with_context(|| format!("the daemon ended with {status}"))
    }
}

/// Reads lines for as long as there are any, so that the daemon never waits for a reader.
fn listen(log: PipeReader) -> Receiver<(Instant, String)> {
    let (sender, words) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(log).lines().map_while(Result::ok) {
            let _ = sender.send((Instant::now(), line));
        }
    });
    words
}
