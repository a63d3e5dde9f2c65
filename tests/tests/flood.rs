//! A flood of forged addresses: the engine's table stays within its bound, keeps what is
//! leased or contested before what is not, and says how many it dropped.
//!
//! A twentieth more addresses than the table holds, or as many as `IPAM_AGENT_FLOOD` says;
//! the engine alone, without a kernel that would limit the flood before it gets here.

use std::{
    collections::BTreeSet,
    env, fs,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use ipam_agent::{
    engine::{
        Engine,
        input::{Input, Seen},
        lease::{Generation, Holder, Lease, Mode, Place, StoreName, StoreView},
        owner::Owners,
        table::MAX_ENTRIES,
        time::Timestamp,
    },
    report::compose::{Composer, WallClock},
};
use ipam_common::{
    Address, Mac,
    sighting::{Evidence, Sighting, Tags},
};
use tests::scenario::{Family, World};

/// The first port of [`World`].
const PORT: u32 = 1;
const LEASED: u32 = 1000;
const CONTESTED: u32 = 100;
/// What the process may take at its peak, most of it the table: 300 bytes an entry.
const PEAK_MIB: u64 = 300;

struct Wire {
    world: World,
    now: Timestamp,
}

impl Wire {
    fn new() -> Self {
        let world = World::play(Family::V4, tests::scenario::Telling::Events, "").unwrap();
        Self {
            world,
            now: Timestamp(2_000_000_000),
        }
    }

    fn engine(&mut self) -> &mut Engine {
        &mut self.world.engine
    }

    /// An announcement, a microsecond after the last.
    fn announce(&mut self, mac: u32, address: Ipv4Addr) {
        self.now = self.now + Duration::from_micros(1);
        let [a, b, c, d] = mac.to_be_bytes();
        let seen = Seen {
            again: false,
            at: self.now,
            ifindex: PORT,
            sighting: Sighting {
                address: Address::from_ip(address.into()).unwrap(),
                mac: Mac::new([6, 0, a, b, c, d]).unwrap(),
                evidence: Evidence::ArpAnnouncement,
                asked: None,
                tags: Tags::default(),
                ether_src: [6, 0, a, b, c, d],
                to: [0xff; 6],
                nonce: None,
            },
        };
        let now = self.now;
        self.engine().handle(Input::Seen(seen), now);
        while self.engine().next_command().is_some() {}
    }

    fn lease(&mut self, addresses: impl Iterator<Item = Ipv4Addr>) {
        let store = StoreName("host-local:net".into());
        let leases = addresses.map(|address| {
            let address = Address::from_ip(address.into()).unwrap();
            let (holder, grant) = (Holder::default(), Generation::default());
            Lease::new(store.clone(), address, &holder, &grant, None)
        });
        let view = StoreView {
            fencing: Default::default(),
            store: store.clone(),
            mode: Mode::Observe,
            writable: Ok(()),
            place: Place::Bridge {
                bridge: "br0".into(),
                vlan: None,
            },
            pools: Vec::new(),
            leases: leases.collect(),
        };
        let stores = Input::Stores {
            source: 0,
            views: vec![view],
            failed: Vec::new(),
            owners: Owners::default(),
        };
        let now = self.now;
        self.engine().handle(stores, now);
    }

    fn known(&self) -> BTreeSet<IpAddr> {
        let entries = self.world.engine.entries();
        entries.map(|(_, address, _)| address.ip()).collect()
    }
}

fn leased(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 1, 0, 1).to_bits() + number)
}

fn contested(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 2, 0, 1).to_bits() + number)
}

/// Every address from 11.0.0.0 on can be claimed, for longer than any flood lasts.
fn forged(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(11, 0, 0, 0).to_bits() + number)
}

#[test]
fn a_flooded_table_keeps_what_is_leased_or_contested_and_says_what_it_dropped() {
    let flood = env::var("IPAM_AGENT_FLOOD").map(|count| count.parse().unwrap());
    let flood: u32 = flood.unwrap_or(MAX_ENTRIES as u32 / 20 * 21);
    let mut wire = Wire::new();
    wire.lease((0..LEASED).map(leased));
    // Heard first, so that they are the longest unheard.
    for number in 0..LEASED {
        wire.announce(number, leased(number));
    }
    for number in 0..CONTESTED {
        for mac in [1 << 20, 2 << 20, 1 << 20] {
            wire.announce(mac + number, contested(number));
        }
    }
    for number in 0..flood {
        wire.announce(number, forged(number));
        assert!(
            number % 65_536 != 0 || wire.world.engine.entries().count() <= MAX_ENTRIES,
            "after {number}"
        );
    }

    let known = wire.known();
    assert!(known.len() <= MAX_ENTRIES, "{}", known.len());
    for number in 0..LEASED {
        assert!(known.contains(&leased(number).into()), "{}", leased(number));
    }
    let conflicts: BTreeSet<IpAddr> = wire
        .world
        .conflicts()
        .iter()
        .map(|(address, _)| address.ip())
        .collect();
    let planted: BTreeSet<IpAddr> = (0..CONTESTED).map(|n| contested(n).into()).collect();
    assert_eq!(conflicts, planted);
    // The youngest stay.
    assert!(known.contains(&forged(flood - 1).into()));

    let dropped = u64::from(LEASED + CONTESTED + flood) - known.len() as u64;
    assert!(dropped > 0);
    let segments = Composer {
        engine: &wire.world.engine,
        clock: WallClock::default(),
        now: wire.now,
        host: "host",
        boot: None,
        blind: &[],
    }
    .segments();
    for segment in &segments.segments {
        assert_eq!(segment.evicted, dropped);
    }
    assert!(!segments.segments.is_empty());

    if flood > 2 * MAX_ENTRIES as u32 {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib: u64 = peak
            .unwrap()
            .trim()
            .trim_end_matches(" kB")
            .parse()
            .unwrap();
        println!(
            "{flood} forged addresses: {dropped} dropped, peak {} MiB",
            kib / 1024
        );
        assert!(kib / 1024 <= PEAK_MIB, "{} MiB", kib / 1024);
    }
}
