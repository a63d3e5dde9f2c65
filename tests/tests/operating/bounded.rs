//! A scrape stays small whatever the network does.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use ipam_agent::{
    engine::{
        Counts, Engine,
        gauges::{MAX_SEGMENTS, OTHER},
        input::{Input, Seen},
        segment::{Port, PortKind, Topology, Wiring},
        time::Timestamp,
    },
    serve::metrics::{Form, Kernel, Meters, Snapshot, text},
};
use ipam_common::{Address, Evidence, Mac, Sighting, sighting::Tags};
use tests::scenario;

/// What docs/metrics.md says.
const MOST_BYTES: usize = 1 << 20;
const PORTS: u32 = 400;
const CONFLICTS: u32 = 100_000;
const SECOND: u64 = 1_000_000_000;

fn topology() -> Topology {
    let port = |ifindex: u32| Port {
        // The others are only heard.
        wanted: ifindex.is_multiple_of(2),
        ..Port::new(format!("bond{ifindex}"), PortKind::Bond, Wiring::Uplink)
    };
    Topology {
        ports: (1..=PORTS)
            .map(|ifindex| (ifindex, port(ifindex)))
            .collect(),
        ..Topology::default()
    }
}

fn snapshot(engine: &Engine, most: usize, now: Timestamp) -> Snapshot {
    Snapshot {
        gauges: engine.gauges(most, now),
        engine: Counts::default(),
        meters: Meters::default(),
        kernel: Kernel::default(),
        malformed: 0,
        stores: BTreeMap::new(),
        ports: (0, 0),
        paused: false,
        lab: false,
        persistent: true,
        pass_age: Duration::ZERO,
        pass_interval: Duration::from_secs(60),
        watchers: 0,
        config_current: true,
    }
}

#[test]
fn a_hundred_thousand_conflicts_on_forged_vlans_fit_into_a_scrape() -> Result<()> {
    let mut engine = Engine::new(scenario::settings());
    engine.handle(
        Input::Links {
            topology: Arc::new(topology()),
            since: Timestamp(SECOND),
        },
        Timestamp(SECOND),
    );
    let mut now = Timestamp(0);
    for (round, last) in [(0, 1u8), (1, 2), (2, 1)] {
        for number in 0..CONFLICTS {
            now = Timestamp((2 + round) * SECOND + u64::from(number));
            let [_, a, b, c] = number.to_be_bytes();
            let mac = Mac::new([2, 0, a, b, c, last]).context("a MAC")?;
            let sighting = Sighting {
                address: Address::v4([10, a, b, c]).context("an address")?,
                mac,
                evidence: Evidence::ArpAnnouncement,
                asked: None,
                tags: Tags {
                    outer: 0,
                    vlan: u16::try_from(number % 4094)? + 1,
                },
                ether_src: mac.bytes(),
                to: [0xff; 6],
                nonce: None,
            };
            let seen = Seen {
                at: now,
                ifindex: number % PORTS + 1,
                sighting,
                again: false,
            };
            engine.handle(Input::Seen(seen), now);
            while engine.next_command().is_some() {}
        }
    }
    for (most, info) in [(100, true), (1000, true), (0, false)] {
        let snapshot = snapshot(&engine, most, now);
        let gauges = &snapshot.gauges;
        let all: u64 = gauges.severities.values().sum();
        // As many contests as the engine follows.
        ensure!(all >= 65_536, "{all} conflicts");
        ensure!(gauges.conflicts.len() == most);
        ensure!(gauges.conflicts_left_out == all - most as u64);
        // What is to be watched is told apart before what is only heard.
        ensure!(gauges.segments.len() == MAX_SEGMENTS + 1);
        ensure!(gauges.segments_left_out == u64::from(PORTS) - MAX_SEGMENTS as u64);
        ensure!(gauges.segments.contains_key("bond400") && gauges.segments.contains_key(OTHER));
        let by_segment = gauges
            .segments
            .values()
            .flat_map(|of| of.conflicts.values());
        ensure!(by_segment.sum::<u64>() == all, "none is lost in {OTHER}");
        for form in [Form::OpenMetrics, Form::Classic] {
            let text = text(&snapshot, info, form)?;
            ensure!(text.len() < MOST_BYTES, "{} bytes", text.len());
            eprintln!("{most} conflicts told, {form:?}: {} bytes", text.len());
        }
    }
    Ok(())
}
