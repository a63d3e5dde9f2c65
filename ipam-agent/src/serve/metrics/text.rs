//! A snapshot as text, in the two forms that scrapers ask for.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text::encode},
    metrics::{MetricType, exemplar::Exemplar},
    registry::Registry,
};

use super::{
    Histogram, Snapshot,
    catalogue::{self, Family, Kind},
    process::Process,
    result, stage,
};
use crate::engine::{
    conflict::{self, EventKind, Severity},
    gauges::{Gauges, OTHER, PoolCount},
    segment::PortKind,
};

/// The content type of OpenMetrics.
pub const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The content type of Prometheus' older text format.
pub const CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Which of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// OpenMetrics 1.0.0.
    OpenMetrics,
    /// Prometheus' text format 0.0.4.
    Classic,
}

impl Form {
    /// What a scraper that says `accept` gets: OpenMetrics, but for who names plain text and
    /// not that.
    pub fn asked(accept: &str) -> Self {
        let names = |kind| accept.contains(kind);
        match names("text/plain") && !names("application/openmetrics-text") {
            true => Self::Classic,
            false => Self::OpenMetrics,
        }
    }

    /// Its content type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => OPENMETRICS,
            Self::Classic => CLASSIC,
        }
    }
}

/// The text of a snapshot; `info`: with the conflicts' addresses and MACs.
///
/// # Errors
/// None that is known of: writing to a string doesn't fail.
pub fn text(snapshot: &Snapshot, info: bool, form: Form) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Exposition::of(snapshot, info)));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(match form {
        Form::OpenMetrics => text,
        Form::Classic => classic(&text),
    })
}

/// The older format: a counter's comments have its suffix, an info is a gauge, and there is
/// neither a unit nor an end.
fn classic(text: &str) -> String {
    let suffixes: BTreeMap<String, &str> = { catalogue::ALL.iter() }
        .filter_map(|family| {
            let suffix = match family.kind {
                Kind::Counter => "_total",
                Kind::Info => "_info",
                Kind::Gauge | Kind::Histogram => return None,
            };
            Some((family.family_name(), suffix))
        })
        .collect();
    let mut classic = String::with_capacity(text.len() + 1024);
    for line in text.lines() {
        let comment = { line.strip_prefix("# ") }.and_then(|rest| {
            let (word, rest) = rest.split_once(' ')?;
            let (name, rest) = rest.split_once(' ')?;
            Some((word, name, rest))
        });
        match comment {
            Some(("UNIT", ..)) => continue,
            Some((word, name, rest)) => {
                let suffix = suffixes.get(name).copied().unwrap_or_default();
                let rest = match (word, rest) {
                    ("TYPE", "info") => "gauge",
                    _ => rest,
                };
                classic.extend(["# ", word, " ", name, suffix, " ", rest]);
            }
            None if line == "# EOF" => continue,
            None => classic.push_str(line),
        }
        classic.push('\n');
    }
    classic
}

type Labels = Vec<(&'static str, String)>;

#[derive(Debug)]
enum Value {
    Gauge(f64),
    Count(u64),
    Seconds(f64),
    Took(Histogram),
    Info,
}

/// Every family with its samples.
#[derive(Debug, Default)]
struct Exposition(Vec<(Family, Vec<(Labels, Value)>)>);

impl Exposition {
    fn of(snapshot: &Snapshot, info: bool) -> Self {
        let mut all = Self::default();
        all.conflicts(snapshot, info);
        all.leases(&snapshot.gauges);
        all.reclaim(snapshot);
        all.wire(snapshot);
        all.daemon(snapshot);
        if let Some(process) = Process::read() {
            all.process(&process);
        }
        all
    }

    fn add<const N: usize>(
        &mut self,
        family: Family,
        samples: impl IntoIterator<Item = ([Cow<'static, str>; N], Value)>,
    ) {
        debug_assert_eq!(family.labels.len(), N, "{}", family.base);
        let samples = samples.into_iter().map(|(labels, value)| {
            let labels = labels.into_iter().map(Cow::into_owned);
            (family.labels.iter().copied().zip(labels).collect(), value)
        });
        self.0.push((family, samples.collect()));
    }

    fn one(&mut self, family: Family, value: Value) {
        self.add(family, [([], value)]);
    }

    fn conflicts(&mut self, snapshot: &Snapshot, info: bool) {
        let gauges = &snapshot.gauges;
        let by_segment = gauges.segments.iter().flat_map(|(name, segment)| {
            // Zero where there is something to be watched: that a conflict ended shows.
            let kinds = conflict::Kind::ALL.into_iter();
            kinds.filter_map(|kind| {
                let count = segment.conflicts.get(&kind).copied();
                let count = count.or(segment.covered.map(|_| 0))?;
                let labels = [kind.name().into(), name.to_string().into()];
                Some((labels, Value::Gauge(count as f64)))
            })
        });
        self.add(catalogue::CONFLICTS, by_segment);
        let by_severity = conflict::Kind::ALL.into_iter().flat_map(|kind| {
            let severities = [Severity::Critical, Severity::Warning, Severity::Info];
            severities.into_iter().map(move |severity| {
                let count = gauges.severities.get(&(kind, severity)).copied();
                let labels = [kind.name().into(), severity_name(severity).into()];
                (labels, Value::Gauge(count.unwrap_or(0) as f64))
            })
        });
        self.add(catalogue::CONFLICTS_BY_SEVERITY, by_severity);
        let detected = conflict::Kind::ALL.into_iter().map(|kind| {
            let count = snapshot.meters.detected.get(&kind).copied();
            ([kind.name().into()], Value::Count(count.unwrap_or(0)))
        });
        self.add(catalogue::DETECTED, detected);
        if info {
            let each = gauges.conflicts.iter().map(|conflict| {
                let segment = &conflict.segment;
                let vlan = match (segment.outer_vlan, segment.vlan) {
                    (None, None) => String::new(),
                    (None, Some(vlan)) => vlan.to_string(),
                    (Some(outer), vlan) => format!("{outer}.{}", vlan.unwrap_or(0)),
                };
                let macs = conflict.macs.iter().map(ToString::to_string);
                let labels = [
                    conflict.kind.name().into(),
                    segment.name.to_string().into(),
                    vlan.into(),
                    conflict.address.to_string().into(),
                    macs.collect::<Vec<_>>().join(",").into(),
                    severity_name(conflict.severity).into(),
                ];
                (labels, Value::Gauge(1.0))
            });
            self.add(catalogue::CONFLICT_INFO, each);
            let left_out = gauges.conflicts_left_out;
            let left_out = Value::Gauge(left_out as f64);
            self.one(catalogue::CONFLICT_INFO_DROPPED, left_out);
        }
        let kinds = [
            EventKind::AddressMoved,
            EventKind::ProbeCollision,
            EventKind::SenderMismatch,
            EventKind::ReleasedButAlive,
        ];
        let events = kinds.map(|kind| {
            let count = snapshot.meters.events.get(&kind).copied();
            ([kind.name().into()], Value::Count(count.unwrap_or(0)))
        });
        self.add(catalogue::EVENTS, events);
    }

    fn leases(&mut self, gauges: &Gauges) {
        let pools = || {
            gauges.pools.iter().map(|((store, prefix), count)| {
                let other = if *store.0 == *OTHER { OTHER } else { "" };
                let pool = prefix.map_or_else(|| other.to_owned(), |prefix| prefix.to_string());
                (store.to_string(), pool, count)
            })
        };
        let leases = pools().flat_map(|(store, pool, count)| {
            states(count).map(|(state, number)| {
                let labels = [store.clone().into(), pool.clone().into(), state.into()];
                (labels, Value::Gauge(number as f64))
            })
        });
        self.add(catalogue::LEASES, leases);
        let known = || pools().filter(|(_, pool, _)| !pool.is_empty());
        let sizes = known().map(|(store, pool, count)| {
            ([store.into(), pool.into()], Value::Gauge(count.addresses))
        });
        self.add(catalogue::POOL_ADDRESSES, sizes);
        let used = known().map(|(store, pool, count)| {
            let used = Value::Gauge(count.used as f64);
            ([store.into(), pool.into()], used)
        });
        self.add(catalogue::POOL_USED, used);
        let left_out = Value::Gauge(gauges.pools_left_out as f64);
        self.one(catalogue::POOLS_DROPPED, left_out);
    }

    fn reclaim(&mut self, snapshot: &Snapshot) {
        let meters = &snapshot.meters;
        // Zero too, so that a first release is a rise.
        let mut reclaims: BTreeMap<(String, &str), u64> = { snapshot.stores.keys() }
            .flat_map(|store| result::ALL.map(|result| ((store.to_string(), result), 0)))
            .collect();
        for ((store, result), count) in &meters.reclaims {
            reclaims.insert((store.to_string(), result), *count);
        }
        let reclaims = reclaims.into_iter().map(|((store, result), count)| {
            let labels = [store.into(), result.to_owned().into()];
            (labels, Value::Count(count))
        });
        self.add(catalogue::RECLAIMS, reclaims);
        let blocked = snapshot.gauges.blocked.iter();
        let blocked = blocked.map(|((store, reason), count)| {
            let labels = [store.to_string().into(), reason.name().into()];
            (labels, Value::Gauge(*count as f64))
        });
        self.add(catalogue::RECLAIM_BLOCKED, blocked);
        self.one(catalogue::PAUSED, flag(snapshot.paused));
        self.one(catalogue::LAB, flag(snapshot.lab));
        self.one(catalogue::STATE_PERSISTENT, flag(snapshot.persistent));
    }

    fn wire(&mut self, snapshot: &Snapshot) {
        let segments = &snapshot.gauges.segments;
        let observed = segments.iter().map(|(name, segment)| {
            let count = Value::Gauge(segment.observed as f64);
            ([name.to_string().into()], count)
        });
        self.add(catalogue::OBSERVED, observed);
        let coverage = segments.iter().filter_map(|(name, segment)| {
            let covered = segment.covered?.as_secs_f64();
            Some(([name.to_string().into()], Value::Gauge(covered)))
        });
        self.add(catalogue::COVERAGE, coverage);
        let left_out = Value::Gauge(snapshot.gauges.segments_left_out as f64);
        self.one(catalogue::SEGMENTS_DROPPED, left_out);
        let (watched, missing) = snapshot.ports;
        self.add(
            catalogue::PORTS,
            [("watched", watched), ("missing", missing)]
                .map(|(state, count)| ([state.into()], Value::Gauge(count as f64))),
        );
        let frame = |kind: &'static str, protocol: &'static str, result: &'static str, count| {
            let labels = [kind.into(), protocol.into(), result.into()];
            (labels, Value::Count(count))
        };
        let [arp, nd] = snapshot.kernel.parsed;
        let mut frames = vec![
            frame("any", "arp", "parsed", arp),
            frame("any", "nd", "parsed", nd),
        ];
        for (&(kind, is_arp), &count) in &snapshot.meters.frames {
            let kind = kind.map_or("unknown", PortKind::name);
            frames.push(frame(
                kind,
                if is_arp { "arp" } else { "nd" },
                "recorded",
                count,
            ));
        }
        let refused = snapshot.kernel.refused.iter();
        frames.extend(refused.map(|&(why, count)| frame("any", "any", why, count)));
        self.add(catalogue::FRAMES, frames);
        let counts = &snapshot.engine;
        let kernel = snapshot.kernel.lost.iter().copied();
        let lost = kernel.chain([
            ("malformed", snapshot.malformed),
            ("unknown-port", counts.unknown_port),
            ("unsegmented", counts.unsegmented),
            ("table-full", counts.evicted),
            ("unfollowed", counts.unfollowed),
        ]);
        let lost = lost.map(|(reason, count)| ([reason.into()], Value::Count(count)));
        self.add(catalogue::LOST, lost);
        let detection = Value::Took(snapshot.meters.detection.clone());
        self.one(catalogue::DETECTION, detection);
    }

    fn daemon(&mut self, snapshot: &Snapshot) {
        let meters = &snapshot.meters;
        let stages = stage::ALL.map(|stage| {
            let took = meters.stages.get(stage).cloned().unwrap_or_default();
            ([stage.into()], Value::Took(took))
        });
        self.add(catalogue::PASS, stages);
        let age = Value::Gauge(snapshot.pass_age.as_secs_f64());
        self.one(catalogue::PASS_AGE, age);
        let interval = Value::Gauge(snapshot.pass_interval.as_secs_f64());
        self.one(catalogue::PASS_INTERVAL, interval);
        let mut errors: BTreeMap<String, u64> = { snapshot.stores.keys() }
            .map(|store| (store.to_string(), 0))
            .collect();
        for (store, count) in &meters.store_errors {
            errors.insert(store.to_string(), *count);
        }
        let errors = errors.into_iter();
        let errors = errors.map(|(store, count)| ([store.into()], Value::Count(count)));
        self.add(catalogue::STORE_ERRORS, errors);
        let up =
            { snapshot.stores.iter() }.map(|(store, up)| ([store.to_string().into()], flag(*up)));
        self.add(catalogue::STORE_UP, up);
        let watchers = Value::Gauge(snapshot.watchers as f64);
        self.one(catalogue::WATCHERS, watchers);
        let reloads = [
            ("applied", meters.reloads_applied),
            ("refused", meters.reloads_refused),
        ];
        let reloads = reloads.map(|(result, count)| ([result.into()], Value::Count(count)));
        self.add(catalogue::RELOADS, reloads);
        self.one(catalogue::CONFIG_CURRENT, flag(snapshot.config_current));
        let build = [
            env!("CARGO_PKG_VERSION").into(),
            std::env::consts::ARCH.into(),
        ];
        self.add(catalogue::BUILD, [(build, Value::Info)]);
    }

    fn process(&mut self, process: &Process) {
        self.one(catalogue::CPU, Value::Seconds(process.cpu_seconds));
        for (family, number) in [
            (catalogue::RSS, process.resident),
            (catalogue::VSZ, process.virtual_),
            (catalogue::OPEN_FDS, process.open_fds),
            (catalogue::MAX_FDS, process.max_fds),
            (catalogue::THREADS, process.threads),
        ] {
            self.one(family, Value::Gauge(number as f64));
        }
        self.one(catalogue::STARTED, Value::Gauge(process.started));
    }
}

fn flag(on: bool) -> Value {
    Value::Gauge(f64::from(u8::from(on)))
}

fn severity_name(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => "critical",
        Severity::Warning => "warning",
        Severity::Info => "info",
    }
}

fn states(count: &PoolCount) -> [(&'static str, u64); 6] {
    [
        ("active", count.active),
        ("quiet", count.quiet),
        ("stale", count.stale),
        ("quarantined", count.quarantined),
        ("fenced", count.fenced),
        ("unknown", count.unknown),
    ]
}

impl Collector for Exposition {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for (family, samples) in &self.0 {
            let kind = match family.kind {
                Kind::Gauge => MetricType::Gauge,
                Kind::Counter => MetricType::Counter,
                Kind::Histogram => MetricType::Histogram,
                Kind::Info => MetricType::Info,
            };
            let unit = family.unit();
            let mut metric =
                encoder.encode_descriptor(family.base, family.help, unit.as_ref(), kind)?;
            for (labels, value) in samples {
                if let Value::Info = value {
                    metric.encode_info(labels)?;
                } else if labels.is_empty() {
                    sample(&mut metric, value)?;
                } else {
                    sample(&mut metric.encode_family(labels)?, value)?;
                }
            }
        }
        Ok(())
    }
}

fn sample(metric: &mut MetricEncoder<'_>, value: &Value) -> fmt::Result {
    type None_ = Exemplar<NoLabelSet, f64>;
    match value {
        Value::Gauge(number) => metric.encode_gauge(number),
        Value::Count(number) => metric.encode_counter(number, None::<&None_>),
        Value::Seconds(number) => metric.encode_counter(number, None::<&None_>),
        Value::Took(histogram) => {
            let (sum, count, buckets) = histogram.told();
            metric.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
        }
        Value::Info => Ok(()),
    }
}
