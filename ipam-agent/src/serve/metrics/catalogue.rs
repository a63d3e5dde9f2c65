//! Every metric: its name, unit, labels, meaning, and what to do about it. What is served,
//! and what `docs/metrics.md` says, is made from this.

use std::fmt::Write as _;

use prometheus_client::registry::Unit;

/// What kind of metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A number that goes up and down.
    Gauge,
    /// A number that only goes up while the daemon runs.
    Counter,
    /// How often something took how long.
    Histogram,
    /// Labels with the value 1.
    Info,
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// The name, without unit and suffix.
    pub base: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// Its unit; part of the name.
    pub unit: Option<&'static str>,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it says.
    pub help: &'static str,
    /// What to do, for `docs/metrics.md`.
    pub todo: &'static str,
}

impl Family {
    /// The name under which its samples are found.
    pub fn name(&self) -> String {
        let mut name = self.family_name();
        match self.kind {
            Kind::Counter => name.push_str("_total"),
            Kind::Info => name.push_str("_info"),
            Kind::Gauge | Kind::Histogram => {}
        }
        name
    }

    /// OpenMetrics' name of the family: without the counter's suffix.
    pub fn family_name(&self) -> String {
        match self.unit {
            Some(unit) => format!("{}_{unit}", self.base),
            None => self.base.to_owned(),
        }
    }

    pub(super) fn unit(&self) -> Option<Unit> {
        self.unit.map(|unit| match unit {
            "seconds" => Unit::Seconds,
            "bytes" => Unit::Bytes,
            other => Unit::Other(other.to_owned()),
        })
    }
}

macro_rules! families {
    ($($id:ident = $base:literal, $kind:ident, $unit:expr, [$($label:literal),*], $help:literal, $todo:literal;)*) => {
        $(
            #[doc = $help]
            pub const $id: Family = Family {
                base: $base,
                kind: Kind::$kind,
                unit: $unit,
                labels: &[$($label),*],
                help: $help,
                todo: $todo,
            };
        )*
        /// All of them, in the order in which they are told.
        pub const ALL: &[Family] = &[$($id),*];
    };
}

const S: Option<&str> = Some("seconds");
const B: Option<&str> = Some("bytes");

families! {
    CONFLICTS = "ipam_conflicts", Gauge, None, ["kind", "segment"],
        "Conflicts that are active now.",
        "`ipam-agent report` names both machines; docs/verdicts.md says what each kind means.";
    CONFLICTS_BY_SEVERITY = "ipam_conflicts_by_severity", Gauge, None, ["kind", "severity"],
        "The same conflicts by how bad they are: critical, warning, info.",
        "Wake somebody for critical ones: traffic is being lost now.";
    DETECTED = "ipam_conflicts_detected", Counter, None, ["kind"],
        "Conflicts that were found, got worse or came back.",
        "A rate that stays up is a machine that goes on fighting for an address.";
    CONFLICT_INFO = "ipam_conflict_info", Gauge, None, ["kind", "segment", "vlan", "address", "macs", "severity"],
        "One active conflict each, with its address and MACs; the worst and oldest, at most metrics.max_conflict_info.",
        "Use it in the text of an alert. Beyond loopback it is served only with `metrics.expose_conflict_info: true`.";
    CONFLICT_INFO_DROPPED = "ipam_conflict_info_dropped", Gauge, None, [],
        "Active conflicts that ipam_conflict_info leaves out.",
        "`ipam-agent report` has all of them.";
    EVENTS = "ipam_events", Counter, None, ["kind"],
        "What happened that is no conflict: address-moved, probe-collision, sender-mismatch, released-but-alive.",
        "released-but-alive must stay at 0: the agent gave away an address that was in use, and put it back. Set `reclaim: observe`, and tell us.";
    LEASES = "ipam_leases", Gauge, None, ["store", "pool", "state"],
        "Leases by their state at the last pass; pool is empty outside of every known one.",
        "Many stale ones: `ipam-agent reclaim plan`. Many unknown ones: the agent is blind, see `ipam-agent segments`.";
    POOL_ADDRESSES = "ipam_pool_addresses", Gauge, None, ["store", "pool"],
        "Addresses that a pool hands out.",
        "The whole against which ipam_pool_addresses_used counts.";
    POOL_USED = "ipam_pool_addresses_used", Gauge, None, ["store", "pool"],
        "Addresses of a pool that are leased or reserved.",
        "Near ipam_pool_addresses, new pods will not start: give back what is stale, or enlarge the pool.";
    POOLS_DROPPED = "ipam_pools_dropped", Gauge, None, [],
        "Pools beyond the 256 that are told apart; they are in store \"other\".",
        "Nothing is lost: `ipam-agent leases` has all of them.";
    RECLAIMS = "ipam_reclaims", Counter, None, ["store", "result"],
        "Leases that a plan was to release: released, kept at the last moment, failed; and put-back.",
        "failed: the log says why. put-back: a released address was in use, or a person asked.";
    RECLAIM_BLOCKED = "ipam_reclaim_blocked", Gauge, None, ["store", "reason"],
        "Leases that this reason kept from being released unasked at the last pass; one can have several.",
        "`ipam-agent reclaim plan` says it of each lease, and until when.";
    PAUSED = "ipam_reclaim_paused", Gauge, None, [],
        "1 while a person has paused unattended releases.",
        "`ipam-agent reclaim resume` lets them go on.";
    LAB = "ipam_reclaim_lab", Gauge, None, [],
        "1 with `reclaim.lab: true`: the floors under gates and budgets are lifted.",
        "Must be 0 wherever leases matter: remove the key.";
    STATE_PERSISTENT = "ipam_state_persistent", Gauge, None, [],
        "1 while what must survive a reboot is written and would survive it.",
        "0: nothing is released. `ipam-agent doctor` says why; usually the state directory is in memory.";
    OBSERVED = "ipam_observed_addresses", Gauge, None, ["segment"],
        "Addresses heard in a segment, all its VLANs together.",
        "A sudden rise is a flood of forged addresses or a loop.";
    COVERAGE = "ipam_segment_coverage", Gauge, S, ["segment"],
        "For how long a segment has been watched without a gap; of its VLANs the shortest; 0: not now.",
        "0 for minutes: `ipam-agent segments` says which port is missing and why. Nothing on it is released meanwhile.";
    SEGMENTS_DROPPED = "ipam_segments_dropped", Gauge, None, [],
        "Segments beyond the 256 that are told apart; they are in \"other\".",
        "Nothing is lost: `ipam-agent segments` has all of them.";
    PORTS = "ipam_ports", Gauge, None, ["state"],
        "Interfaces that are to be watched: watched, or missing.",
        "missing: the log and /readyz say which, and why.";
    FRAMES = "ipam_frames", Counter, None, ["interface_kind", "protocol", "result"],
        "ARP and Neighbor Discovery frames. parsed: said something of an address, counted at once over all interfaces (any); recorded: the same by kind of interface, counted every 10 s; else why it was refused.",
        "Refusals are malformed or forged frames. No parsed frames at all on a busy node: the agent is blind.";
    LOST = "ipam_sightings_lost", Counter, None, ["reason"],
        "Sightings that came late or not at all, by what lost them: rate-limited, ring-full, port-share, map-refused, malformed, unknown-port, unsegmented, table-full, unfollowed.",
        "Detection suffers, releases don't become unsafe. One port's flood is rate-limited or port-share; ring-full is a host that is too slow.";
    DETECTION = "ipam_detection_latency", Histogram, S, [],
        "From the frame that proves a duplicate to its verdict.",
        "Seconds instead of milliseconds: events are lost (ipam_sightings_lost_total), and the look every 10 s finds them.";
    PASS = "ipam_pass_duration", Histogram, S, ["stage"],
        "How long a pass over the leases takes: stores read, holders asked, leases judged, wire probed, releases executed.",
        "holders: a container runtime that answers slowly. probe: seconds are normal.";
    PASS_AGE = "ipam_pass_age", Gauge, S, [],
        "Since when no pass was completed; since the start, before the first.",
        "More than a few `reclaim.pass_interval`: a store or a container runtime hangs; the log says which.";
    PASS_INTERVAL = "ipam_pass_interval", Gauge, S, [],
        "From one pass to the next, as configured (`reclaim.pass_interval`).",
        "What ipam_pass_age_seconds is to be compared with.";
    STORE_ERRORS = "ipam_store_errors", Counter, None, ["store"],
        "How often a store could not be read.",
        "The log and /readyz say why. What was known of its leases stays known; nothing of it is released.";
    STORE_UP = "ipam_store_up", Gauge, None, ["store"],
        "1 if the store could be read the last time.",
        "As ipam_store_errors_total.";
    WATCHERS = "ipam_watchers", Gauge, None, [],
        "Clients of `ipam-agent watch` and of the status page's stream.",
        "At 8 nobody else can watch.";
    RELOADS = "ipam_config_reloads", Counter, None, ["result"],
        "SIGHUPs: applied, or refused.",
        "refused: the file is wrong or asks for what only a restart can change; the log names it. The old configuration goes on.";
    CONFIG_CURRENT = "ipam_config_current", Gauge, None, [],
        "1 if the last reload was applied, or there was none; 0: the daemon runs an older configuration than the file.",
        "Mend the file, then SIGHUP again.";
    BUILD = "ipam_build", Info, None, ["version", "arch"],
        "The agent that runs.",
        "Two versions in a cluster for hours: an upgrade got stuck.";
    CPU = "process_cpu", Counter, S, [],
        "User and system CPU time of the daemon.",
        "Idle it takes a thousandth of a CPU.";
    RSS = "process_resident_memory", Gauge, B, [],
        "Resident memory of the daemon.",
        "Its tables are bounded; docs/performance.md has figures.";
    VSZ = "process_virtual_memory", Gauge, B, [],
        "Virtual memory of the daemon.",
        "Nothing.";
    OPEN_FDS = "process_open_fds", Gauge, None, [],
        "Open file descriptors of the daemon.",
        "Near process_max_fds: raise LimitNOFILE.";
    MAX_FDS = "process_max_fds", Gauge, None, [],
        "How many file descriptors it may open.",
        "As above.";
    THREADS = "process_threads", Gauge, None, [],
        "Threads of the daemon.",
        "Nothing.";
    STARTED = "process_start_time", Gauge, S, [],
        "When the daemon started, in seconds since 1970.",
        "Changes often: it restarts; look at its log.";
}

/// `docs/metrics.md`.
pub fn document() -> String {
    let mut text = String::from(
        "# Metrics

The daemon serves them on `http://127.0.0.1:9477/metrics` (`listen`), as OpenMetrics
(`application/openmetrics-text; version=1.0.0`), or in Prometheus' older text format for who asks
for `text/plain`. On an address beyond loopback `ipam_conflict_info` is left out unless
`metrics.expose_conflict_info` is true.

No label holds an address, a MAC, a container or a pod, except on `ipam_conflict_info`. A scrape
stays below 1 MiB whatever the network does: at most 256 segments and 256 pools are told apart
(the rest is `other`), and 100 conflicts (`metrics.max_conflict_info`, at most 1000). A segment is
named by its bridge or uplink; its VLANs are counted together.

This file is made from the catalogue in `ipam-agent/src/serve/metrics/catalogue.rs`, and a test
compares the two.

| metric | kind | labels | what it says | what to do |
|---|---|---|---|---|
",
    );
    for family in ALL {
        let labels: Vec<String> = { family.labels.iter() }
            .map(|label| format!("`{label}`"))
            .collect();
        let kind = format!("{:?}", family.kind).to_lowercase();
        // Writing to a string doesn't fail.
        let _ = writeln!(
            text,
            "| `{}` | {kind} | {} | {} | {} |",
            family.name(),
            labels.join(" "),
            family.help,
            family.todo,
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use std::{env, fs, path::Path};

    use super::*;

    /// With `UPDATE=1` in the environment the file is written instead.
    #[test]
    fn the_documentation_is_that_of_the_catalogue() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
        let text = document();
        if env::var_os("UPDATE").is_some() {
            fs::write(&file, &text).expect("written");
        }
        let published = fs::read_to_string(&file).unwrap_or_default();
        assert!(
            published == text,
            "docs/metrics.md differs: run this test with UPDATE=1"
        );
    }

    #[test]
    fn names_are_used_once() {
        let mut names: Vec<String> = ALL.iter().map(Family::name).collect();
        names.sort();
        let before = names.len();
        names.dedup();
        assert_eq!(names.len(), before);
    }
}
