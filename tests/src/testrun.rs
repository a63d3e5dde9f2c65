//! The eBPF object under BPF_PROG_TEST_RUN: one frame at a time, and what a packet costs.
//!
//! Needs root (or BPF, NET_ADMIN and PERFMON). A test run has its own skb: nothing on the
//! machine's wires is touched. It strips no tag: all tags stay in the frame.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use aya::{
    Ebpf, EbpfLoader,
    maps::{HashMap, MapData, PerCpuArray, RingBuf},
    programs::{SchedClassifier, TestRun as _, TestRunOptions},
};
use ipam_agent::source::live::pod;
use ipam_common::{
    Address, Counter,
    sighting::{Event, PortBudget, Stamps},
};
use nix::time::ClockId;

use crate::{
    bench::{Figure, median},
    frames::{self, Arp},
};

/// The object that the repository keeps.
pub const OBJECT: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../ipam-ebpf/object/ipam-ebpf.o"
);

/// The port that a test run's skb comes in by: the loopback device of the namespace.
pub const IFINDEX: u32 = 1;

/// What `TC_ACT_UNSPEC`, -1, is as the return value of a test run.
pub const TC_ACT_UNSPEC: u32 = u32::MAX;

/// How many entries the object's LRU maps have unless the agent says otherwise.
const ENTRIES: u32 = 262_144;

/// The object, loaded.
pub struct Object {
    ebpf: Ebpf,
    events: RingBuf<MapData>,
}

impl Object {
    /// Load it, with the stamping of data packets on or off, with so many `entries` in its
    /// LRU maps, and with one port, the test run's, which may put in as many as it likes.
    pub fn load(data_plane: bool, entries: u32) -> anyhow::Result<Self> {
        let mut ebpf = EbpfLoader::new()
            .override_global("DATA_PLANE", &u8::from(data_plane), true)
            .map_max_entries("SIGHTINGS", entries)
            .map_max_entries("SPEAKERS", entries)
            .load_file(OBJECT)
            .context("can't load the eBPF object (needs root, or BPF, NET_ADMIN, PERFMON)")?;
        for name in ["ipam_agent", "empty"] {
            program(&mut ebpf, name)?.load()?;
        }
        let events = ebpf
            .take_map("EVENTS")
            .context("the object has no map EVENTS")?;
        let mut object = Self {
            ebpf,
            events: events.try_into()?,
        };
        object.refill()?;
        Ok(object)
    }

    /// Give the port its whole share and its event tokens back.
    pub fn refill(&mut self) -> anyhow::Result<()> {
        self.port(PortBudget::new(i64::MAX, 0))
    }

    /// Set what the port may put in.
    pub fn port(&mut self, budget: PortBudget) -> anyhow::Result<()> {
        let budget = pod::PortBudget(budget);
        self.hash::<u32, pod::PortBudget>("PORTS")?
            .insert(IFINDEX, budget, 0)?;
        Ok(())
    }

    /// Put a lease there.
    pub fn lease(&mut self, address: Address) -> anyhow::Result<()> {
        let stamps = pod::Stamps(Stamps::default());
        self.hash::<[u8; 16], pod::Stamps>("LEASED")?
            .insert(address.mapped(), stamps, 0)?;
        Ok(())
    }

    /// A hash map of the object, LRU or not.
    pub fn hash<K: aya::Pod, V: aya::Pod>(
        &mut self,
        name: &str,
    ) -> anyhow::Result<HashMap<&mut MapData, K, V>> {
        let map = self
            .ebpf
            .map_mut(name)
            .with_context(|| format!("the object has no map {name}"))?;
        Ok(map.try_into()?)
    }

    /// What the ring buffer holds; it is empty then.
    pub fn events(&mut self) -> anyhow::Result<Vec<Event>> {
        let mut events = Vec::new();
        while let Some(entry) = self.events.next() {
            events.push(pod::event(&entry).context("an event of another size")?);
        }
        Ok(events)
    }

    /// All counters, summed over CPUs, by index.
    pub fn counters(&mut self) -> anyhow::Result<Vec<u64>> {
        let map = self
            .ebpf
            .map_mut("COUNTERS")
            .context("the object has no map COUNTERS")?;
        let map = PerCpuArray::<_, u64>::try_from(map)?;
        (0..Counter::LEN)
            .map(|index| Ok(map.get(&index, 0)?.iter().sum()))
            .collect()
    }

    /// Whether a test run takes this frame: an Ethernet header and something behind it and,
    /// since Linux 6.17, a whole IP header behind the type of one.
    pub fn takes(frame: &[u8]) -> bool {
        let shortest = match frame.get(12..14) {
            Some([0x08, 0x00]) => 14 + 20,
            Some([0x86, 0xdd]) => 14 + 40,
            _ => 14 + 1,
        };
        frame.len() >= shortest
    }

    /// Run `frame` through once. Yields the return value and the frame as it came out.
    pub fn run(&mut self, frame: &[u8]) -> anyhow::Result<(u32, Vec<u8>)> {
        let mut out = vec![0; frame.len() + 256];
        let result = program(&mut self.ebpf, "ipam_agent")?.test_run(TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ..TestRunOptions::default()
        })?;
        out.truncate(result.data_size_out as usize);
        Ok((result.return_value, out))
    }

    /// The mean time that `name` takes for `frame`, in nanoseconds, over `repeat` runs in a
    /// row. By this thread's CPU time, as the kernel's own figure is in whole nanoseconds.
    fn time(&mut self, name: &str, frame: &[u8], repeat: u32) -> anyhow::Result<f64> {
        let program = program(&mut self.ebpf, name)?;
        let before = CPU_TIME.now()?;
        let result = program.test_run(TestRunOptions {
            data_in: Some(frame),
            repeat,
            ..TestRunOptions::default()
        })?;
        let took = Duration::from(CPU_TIME.now()? - before);
        ensure!(
            result.return_value == TC_ACT_UNSPEC,
            "{name} returned {}",
            result.return_value
        );
        Ok(took.as_secs_f64() * 1e9 / f64::from(repeat))
    }
}

const CPU_TIME: ClockId = ClockId::CLOCK_THREAD_CPUTIME_ID;

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> anyhow::Result<&'a mut SchedClassifier> {
    ebpf.program_mut(name)
        .with_context(|| format!("the object has no program {name}"))?
        .try_into()
        .map_err(Into::into)
}

/// What a packet costs beyond an empty classifier, in nanoseconds.
///
/// A run's level depends on what else the machine does. So both programs run by turns, and
/// a figure is the median of the differences of neighbours.
pub fn figures() -> anyhow::Result<Vec<Figure>> {
    let v4 = Ipv4Addr::new(10, 0, 0, 5);
    let v6 = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 5);
    let other = Ipv4Addr::new(10, 0, 0, 9);
    let ipv4 = frames::ipv4_data(frames::mac(5), v4, other);
    let ipv6 = frames::ipv6_data(
        frames::mac(5),
        v6,
        Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 9),
    );
    let claim = Arp::request(frames::mac(5), v4, other).frame();
    let leased = Address::from_ip(v4.into()).context("not an address of a host")?;

    let mut off = Object::load(false, ENTRIES)?;
    off.lease(leased)?;
    // Enters the claim; from the second frame on it is a known one.
    off.run(&claim)?;
    let mut on = Object::load(true, ENTRIES)?;
    on.lease(leased)?;
    Ok(vec![
        over_empty(&mut off, "ipv4_over_empty_ns", &ipv4, 2.0)?,
        over_empty(&mut off, "ipv6_over_empty_ns", &ipv6, 5.0)?,
        over_empty(&mut on, "data_plane_over_empty_ns", &ipv4, 30.0)?,
        over_empty(&mut off, "known_claim_over_empty_ns", &claim, 90.0)?,
    ])
}

const ROUNDS: usize = 2001;
/// Short, so that neighbours meet the same caches and the same clock rate.
const REPEAT: u32 = 5_000;

fn over_empty(
    object: &mut Object,
    name: &'static str,
    frame: &[u8],
    target: f64,
) -> anyhow::Result<Figure> {
    let mut over = Vec::with_capacity(ROUNDS);
    let mut empty = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let nothing = object.time("empty", frame, REPEAT)?;
        let ours = object.time("ipam_agent", frame, REPEAT)?;
        over.push(ours - nothing);
        empty.push(nothing);
    }
    Ok(Figure {
        name,
        value: median(over),
        unit: "ns",
        target: Some(target),
        least: None,
        baseline: Some(median(empty)),
    })
}
