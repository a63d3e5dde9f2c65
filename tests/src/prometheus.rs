//! The real Prometheus: scrapes what it is told to, evaluates rules, and is asked.

use std::{
    env, fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use crate::process::Process;

/// How often it scrapes and evaluates here.
pub const INTERVAL: Duration = Duration::from_millis(500);

/// A running Prometheus; killed when dropped.
#[derive(Debug)]
pub struct Prometheus {
    process: Process,
    address: SocketAddr,
    config: PathBuf,
    log: PathBuf,
}

/// A program of Debian's Prometheus (`prometheus`, `promtool`), where `cargo xtask setup`
/// unpacks it.
pub fn program(name: &str) -> Result<PathBuf> {
    let home = || Some(env::home_dir()?.join(".cache"));
    let cache = env::var_os("XDG_CACHE_HOME").filter(|dir| !dir.is_empty());
    let cache = cache.map(PathBuf::from).or_else(home);
    let program = cache.map(|cache| cache.join("ipam-agent/prometheus/usr/bin").join(name));
    program
        .filter(|program| program.is_file())
        .with_context(|| format!("there is no {name}: run `cargo xtask setup`"))
}

/// Whether the programs are here; if not, the mend.
pub fn available() -> Result<(), String> {
    let all = ["prometheus", "promtool"];
    all.into_iter()
        .try_for_each(|name| program(name).map(drop))
        .map_err(|error| format!("{error:#}"))
}

/// Rules in a hurry, for tests that wait for alerts: every minute that they wait is 200 ms,
/// but two seconds at least and twenty at most; every minute that they look back 400 ms, but
/// eight seconds at least and twenty at most. Nothing else of them is changed.
pub fn hurried(rules: &str) -> String {
    let mut hurried = String::new();
    for line in rules.split_inclusive('\n') {
        let mut rest = line;
        // Each number with a unit behind `for: `, `[` or `offset `.
        while let Some((at, length)) = duration(rest) {
            let (number, unit) = rest[at..at + length].split_at(length - 1);
            let minutes =
                number.parse::<u64>().unwrap_or_default() * if unit == "h" { 60 } else { 1 };
            let millis = match rest[..at].ends_with("for: ") {
                true => (minutes * 200).clamp(2000, 20_000),
                false => (minutes * 400).clamp(8000, 20_000),
            };
            hurried += &rest[..at];
            hurried += &format!("{millis}ms");
            rest = &rest[at + length..];
        }
        hurried += rest;
    }
    hurried
}

/// Where the first duration of minutes or hours in a line of a rule is, and its length.
fn duration(line: &str) -> Option<(usize, usize)> {
    let starts = ["for: ", "[", "offset "];
    let found = starts.iter().flat_map(|start| {
        let after = line.match_indices(start).map(|(at, _)| at + start.len());
        after.filter_map(|at| {
            let digits = line[at..].bytes().take_while(u8::is_ascii_digit).count();
            let unit = line[at + digits..].bytes().next()?;
            (digits > 0 && matches!(unit, b'm' | b'h')).then_some((at, digits + 1))
        })
    });
    found.min()
}

impl Prometheus {
    /// Starts it in this thread's network namespace, where it listens on the loopback at
    /// `port`, scrapes `targets` (`host:port`) as the job `ipam-agent`, and evaluates these
    /// rules; what it keeps is in `dir`.
    pub fn start(dir: &Path, port: u16, targets: &[&str], rules: &str) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let interval = format!("{}ms", INTERVAL.as_millis());
        // JSON is YAML.
        let config = json!({
            "global": {
                "scrape_interval": interval, "scrape_timeout": interval,
                "evaluation_interval": interval,
            },
            "rule_files": ["rules.yaml"],
            "scrape_configs": [{
                "job_name": "ipam-agent",
                "static_configs": [{ "targets": targets }],
            }],
        });
        let file = dir.join("prometheus.yaml");
        fs::write(&file, serde_json::to_vec_pretty(&config)?)?;
        fs::write(dir.join("rules.yaml"), rules)?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let log = dir.join("prometheus.log");
        let mut command = Command::new(program("prometheus")?);
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                dir.join("data").display()
            ))
            .arg(format!("--web.listen-address={address}"));
        let mut started = Self {
            process: Process::spawn(command, &log, &log)?,
            address,
            config: file,
            log,
        };
        let deadline = Instant::now() + Duration::from_secs(30);
        while started.get("/-/ready").is_err() {
            if let Err(error) = started.process.still_runs() {
                bail!("{error:#}:\n{}", started.log());
            }
            ensure!(
                Instant::now() < deadline,
                "it doesn't answer:\n{}",
                started.log()
            );
            thread::sleep(Duration::from_millis(50));
        }
        Ok(started)
    }

    /// Has it scrape other targets from now on.
    pub fn scrape(&self, targets: &[&str]) -> Result<()> {
        let text = fs::read_to_string(&self.config)?;
        let mut config: Value = serde_json::from_str(&text)?;
        config["scrape_configs"][0]["static_configs"][0]["targets"] = json!(targets);
        fs::write(&self.config, serde_json::to_vec_pretty(&config)?)?;
        kill(
            Pid::from_raw(i32::try_from(self.process.pid())?),
            Signal::SIGHUP,
        )?;
        Ok(())
    }

    /// What it logged.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// What an expression is now: `data.result` of the HTTP API.
    pub fn query(&self, expression: &str) -> Result<Vec<Value>> {
        let path = format!("/api/v1/query?query={}", encoded(expression));
        let answer = self.api(&path).with_context(|| expression.to_owned())?;
        Ok(answer["result"].as_array().cloned().unwrap_or_default())
    }

    /// What an expression was, from `start` to `end` (Unix seconds), a value each `step`
    /// seconds.
    pub fn range(&self, expression: &str, start: f64, end: f64, step: f64) -> Result<Vec<Value>> {
        let path = format!(
            "/api/v1/query_range?start={start}&end={end}&step={step}&query={}",
            encoded(expression)
        );
        let answer = self.api(&path).with_context(|| expression.to_owned())?;
        Ok(answer["result"].as_array().cloned().unwrap_or_default())
    }

    /// The alerts that are pending or fire.
    pub fn alerts(&self) -> Result<Vec<Value>> {
        let answer = self.api("/api/v1/alerts")?;
        Ok(answer["alerts"].as_array().cloned().unwrap_or_default())
    }

    /// The alerts of this name that fire.
    pub fn firing(&self, name: &str) -> Result<Vec<Value>> {
        let is =
            |alert: &Value| alert["labels"]["alertname"] == *name && alert["state"] == "firing";
        Ok(self.alerts()?.into_iter().filter(is).collect())
    }

    /// The rules as it read them, by group.
    pub fn rules(&self) -> Result<Value> {
        self.api("/api/v1/rules")
    }

    fn api(&self, path: &str) -> Result<Value> {
        let answer: Value = serde_json::from_str(&self.get_any(path)?.1)?;
        ensure!(answer["status"] == "success", "{answer:#}");
        Ok(answer["data"].clone())
    }

    fn get(&self, path: &str) -> Result<String> {
        let (status, body) = self.get_any(path)?;
        ensure!(status == 200, "{status}: {body}");
        Ok(body)
    }

    fn get_any(&self, path: &str) -> Result<(u16, String)> {
        get(self.address, path)
    }
}

/// One GET over TCP: the status and the body.
pub fn get(address: SocketAddr, path: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    // HTTP/1.0: the body ends with the connection.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP")?;
    let status = head.split(' ').nth(1).context("no status")?;
    Ok((status.parse()?, body.to_owned()))
}

/// As a value in a query string.
fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

/// The project's rules.
pub fn rules() -> Result<String> {
    read("deploy/prometheus/rules.yaml")
}

/// The project's dashboard.
pub fn dashboard() -> Result<Value> {
    Ok(serde_json::from_str(&read(
        "deploy/grafana/ipam-agent.json",
    )?)?)
}

fn read(file: &str) -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
    fs::read_to_string(&path).with_context(|| format!("can't read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_in_a_hurry() {
        let rules = "a:\n  expr: increase(x[1h]) > 0 or y[5m] offset 30m\n  for: 24h\n  for: 15m\n  \
                     description: waits for: 5 minutes, [sic]\n";
        let hurried = hurried(rules);
        assert_eq!(
            hurried,
            "a:\n  expr: increase(x[20000ms]) > 0 or y[8000ms] offset 12000ms\n  for: 20000ms\n  \
             for: 3000ms\n  description: waits for: 5 minutes, [sic]\n"
        );
    }
}
