//! What the kernel says of this process: the process collector's metrics.

use std::fs;

use nix::{
    sys::resource::{Resource, getrlimit},
    unistd::{SysconfVar, sysconf},
};

/// The numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Process {
    /// CPU time, in seconds.
    pub cpu_seconds: f64,
    /// Resident memory, in bytes.
    pub resident: u64,
    /// Virtual memory, in bytes.
    pub virtual_: u64,
    /// Open descriptors.
    pub open_fds: u64,
    /// How many there may be.
    pub max_fds: u64,
    /// Threads.
    pub threads: u64,
    /// When it started, seconds since 1970.
    pub started: f64,
}

impl Process {
    /// Now; `None` without a readable `/proc`.
    pub fn read() -> Option<Self> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        let host = fs::read_to_string("/proc/stat").ok()?;
        let boot = host.lines().find_map(|line| line.strip_prefix("btime "))?;
        // With the one that reads the directory.
        let open_fds = fs::read_dir("/proc/self/fd").ok()?.count() as u64;
        let (max_fds, _) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
        let unit = |name| sysconf(name).ok().flatten();
        let ticks = unit(SysconfVar::CLK_TCK)? as f64;
        let page = u64::try_from(unit(SysconfVar::PAGE_SIZE)?).ok()?;
        let stat = Stat::parse(&stat)?;
        Some(Self {
            cpu_seconds: stat.ticks as f64 / ticks,
            resident: stat.pages.saturating_mul(page),
            virtual_: stat.virtual_,
            open_fds: open_fds.saturating_sub(1),
            max_fds,
            threads: stat.threads,
            started: boot.trim().parse::<f64>().ok()? + stat.started as f64 / ticks,
        })
    }
}

/// The fields of `/proc/PID/stat` (proc(5)).
struct Stat {
    ticks: u64,
    threads: u64,
    started: u64,
    virtual_: u64,
    pages: u64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The second is the command in brackets, and may hold anything.
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        // Numbered from 1 in the manual; the first here is the third.
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self {
            ticks: field(14)? + field(15)?,
            threads: field(20)?,
            started: field(22)?,
            virtual_: field(23)?,
            pages: field(24)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_such_numbers() {
        let process = Process::read().expect("/proc");
        assert!(process.resident > 1 << 20 && process.virtual_ >= process.resident);
        assert!((3..process.max_fds).contains(&process.open_fds));
        assert!(process.threads >= 1 && process.cpu_seconds >= 0.0);
        assert!(process.started > 1.6e9, "{}", process.started);
    }

    #[test]
    fn a_command_may_be_called_anything() {
        let fields: Vec<String> = (4..=52).map(|number| number.to_string()).collect();
        let text = format!("7 (a) S 9 (b)) S {}", fields.join(" "));
        let stat = Stat::parse(&text).expect("parsed");
        assert_eq!((stat.ticks, stat.threads, stat.started), (29, 20, 22));
        assert_eq!((stat.virtual_, stat.pages), (23, 24));
        assert!(Stat::parse("7 (a S").is_none());
    }
}
