//! The engine alone, with a million addresses in a thousand segments and a lease for each.
//!
//! Judged from scratch: an engine that knows the links is told of every lease and hears
//! every address once, on the thread that measures. A new claim is another machine's, of an
//! address out of that million: a look-up, a comparison and a verdict.

use std::{fs, hint::black_box, net::Ipv4Addr, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use ipam_agent::engine::{
    Engine,
    input::{Input, Seen},
    lease::{Generation, Holder, Lease, Mode, Place, Pool, StoreName, StoreView},
    owner::Owners,
    segment::{Bridge, Port, PortKind, Topology, Wiring},
    time::Timestamp,
};
use ipam_common::{Address, Evidence, Mac, Sighting, sighting::Tags};
use nix::time::ClockId;

use super::{Figure, mebibytes, median};
use crate::scenario;

const SEGMENTS: u32 = 1_000;
const ADDRESSES: u32 = 1_000;
/// New claims that are timed...
const CLAIMS: u32 = 10_000;
/// Of so many together, as asking for the time costs a tenth of one.
const BATCH: u32 = 50;

/// `judge_1m_s`, `judge_1m_mib`, `new_claim_us`.
pub fn figures() -> Result<Vec<Figure>> {
    let mut engine = Engine::new(scenario::settings());
    engine.handle(
        Input::Links {
            topology: Arc::new(topology()),
            since: Timestamp(1),
        },
        Timestamp(1),
    );
    // Of memory all that comes on top now counts: what the stores say, and the engine.
    fs::write("/proc/self/clear_refs", "5").context("can't reset the peak of memory")?;
    let before = memory("VmRSS")?;
    let views = (0..SEGMENTS).map(view).collect();
    let begin = cpu_time()?;
    engine.handle(
        Input::Stores {
            source: 0,
            views,
            failed: Vec::new(),
            owners: Owners::default(),
        },
        Timestamp(2),
    );
    drain(&mut engine);
    let leased = cpu_time()?;
    let mut now = Timestamp(1_000_000_000);
    for segment in 0..SEGMENTS {
        for number in 0..ADDRESSES {
            now = Timestamp(now.0 + 1_000);
            engine.handle(Input::Seen(seen(segment, number, 0, now)), now);
        }
        drain(&mut engine);
    }
    let judged = cpu_time()?;
    let (peak, after) = (memory("VmHWM")? - before, memory("VmRSS")? - before);
    let known = engine.entries().count();
    ensure!(
        known == (SEGMENTS * ADDRESSES) as usize,
        "{known} addresses are known"
    );
    ensure!(
        engine.conflicts().next().is_none(),
        "a conflict was invented"
    );
    eprintln!(
        "  {:.2} s for the leases, {:.2} s for the claims; {peak:.0} MiB at most, {after:.0} MiB at the end",
        (leased - begin).as_secs_f64(),
        (judged - leased).as_secs_f64(),
    );

    let mut took = Vec::new();
    for batch in 0..CLAIMS / BATCH {
        let begin = cpu_time()?;
        for claim in batch * BATCH..(batch + 1) * BATCH {
            now = Timestamp(now.0 + 1_000_000);
            // All over the table, in no order that a cache would like.
            let at = claim.wrapping_mul(0x9e37_79b1) % (SEGMENTS * ADDRESSES);
            let seen = seen(at / ADDRESSES, at % ADDRESSES, 1, now);
            engine.handle(black_box(Input::Seen(seen)), now);
            drain(&mut engine);
        }
        took.push((cpu_time()? - begin).as_secs_f64() * 1e6 / f64::from(BATCH));
    }
    ensure!(
        engine.conflicts().count() >= CLAIMS as usize / 2,
        "stranger's claims were not judged"
    );
    let figure = |name, value, unit, target| Figure {
        name,
        value,
        unit,
        target: Some(target),
        least: None,
        baseline: None,
    };
    Ok(vec![
        figure("judge_1m_s", (judged - begin).as_secs_f64(), "s", 2.0),
        figure("judge_1m_mib", peak, "MiB", 400.0),
        figure("new_claim_us", median(took), "µs", 5.0),
    ])
}

/// The CPU time of this thread.
pub(super) fn cpu_time() -> Result<Duration> {
    Ok(ClockId::CLOCK_THREAD_CPUTIME_ID.now()?.into())
}

fn memory(field: &str) -> Result<f64> {
    mebibytes(&fs::read_to_string("/proc/self/status")?, field)
}

fn drain(engine: &mut Engine) {
    while let Some(command) = engine.next_command() {
        black_box(command);
    }
}

fn bridge(segment: u32) -> Arc<str> {
    format!("br{segment}").into()
}

fn topology() -> Topology {
    let mut topology = Topology::default();
    for segment in 0..SEGMENTS {
        let port = Port::new(
            format!("veth{segment}"),
            PortKind::Veth,
            Wiring::bridge(bridge(segment)),
        );
        topology.ports.insert(segment + 1, port);
        let known = Bridge {
            ifindex: SEGMENTS + segment + 1,
            filtering: None,
        };
        topology.bridges.insert(bridge(segment), known);
    }
    topology
}

fn address(segment: u32, number: u32) -> Result<Address> {
    // 10.0.0.0/8, four hosts' worth of addresses apart.
    let ip = Ipv4Addr::from(0x0a00_0000 + segment * 1024 + number + 1);
    Address::from_ip(ip.into()).context("no address")
}

fn mac(segment: u32, number: u32, machine: u8) -> Result<Mac> {
    let [_, a, b, c] = (segment * ADDRESSES + number).to_be_bytes();
    Mac::new([2, machine, 0, a, b, c]).context("no MAC")
}

fn view(segment: u32) -> StoreView {
    let store = StoreName(format!("host-local:net{segment}").into());
    let leases = (0..ADDRESSES).filter_map(|number| {
        let id = format!("{:064x}", u64::from(segment) << 32 | u64::from(number));
        let address = address(segment, number).ok()?;
        let holder = Holder {
            container_id: Some(id.as_str().into()),
            interface: Some("eth0".into()),
            pod: Some(format!("default/pod-{segment}-{number}").into()),
            mac: mac(segment, number, 0).ok(),
            host_interface: None,
        };
        let generation = Generation {
            inode: u64::from(segment * ADDRESSES + number),
            modified: 1,
            content: format!("{id}\r\neth0").into_bytes().into(),
        };
        Some(Lease::new(
            store.clone(),
            address,
            &holder,
            &generation,
            None,
        ))
    });
    StoreView {
        fencing: Default::default(),
        mode: Mode::Observe,
        writable: Ok(()),
        place: Place::Bridge {
            bridge: bridge(segment),
            vlan: None,
        },
        pools: vec![Pool {
            prefix: ipnet::Ipv4Net::new_assert(Ipv4Addr::from(0x0a00_0000 + segment * 1024), 22)
                .into(),
            range: None,
            gateway: None,
            gateway_mac: None,
            exclude: Vec::new(),
            place: None,
        }],
        leases: leases.collect(),
        store,
    }
}

fn seen(segment: u32, number: u32, machine: u8, at: Timestamp) -> Seen {
    let mac = mac(segment, number, machine).unwrap_or_else(|error| panic!("{error}"));
    let address = address(segment, number).unwrap_or_else(|error| panic!("{error}"));
    Seen {
        again: false,
        at,
        ifindex: segment + 1,
        sighting: Sighting {
            address,
            mac,
            evidence: Evidence::ArpRequest,
            asked: None,
            tags: Tags::default(),
            ether_src: mac.bytes(),
            to: [0xff; 6],
            nonce: None,
        },
    }
}
