use proptest::prelude::*;

use super::*;

fn address(text: &str) -> Address {
    Address::from_ip(text.parse().expect("an address")).expect("claimable")
}

fn pool(prefix: &str) -> Pool {
    Pool {
        prefix: prefix.parse().expect("a prefix"),
        range: None,
        gateway: None,
        gateway_mac: None,
        exclude: Vec::new(),
        place: None,
    }
}

fn wire() -> SegmentName {
    SegmentName {
        name: "mgmt-br".to_owned(),
        vlan: None,
        outer_vlan: None,
    }
}

/// A store of these pools and leases, and what is said of its pools.
fn told(pools: Vec<Pool>, leases: &[(&str, LeaseState)], contested: &[&str]) -> Vec<PoolRecord> {
    let chart = Chart {
        store: StoreName("host-local:net".into()),
        mode: Mode::Observe,
        failed: None,
        read_only: None,
        pools: { pools.into_iter() }
            .map(|pool| (pool, Wire::Segment(wire())))
            .collect(),
        found: { leases.iter() }
            .map(|&(text, state)| (address(text), state))
            .collect(),
    };
    let contested = contested.iter().map(|text| (address(text), wire()));
    chart.pool_records(&contested.collect::<Vec<_>>())
}

fn rows(record: &PoolRecord) -> Vec<String> {
    let rows = record.rows.iter();
    rows.map(|row| format!("{} {}", row.first, row.cells))
        .collect()
}

#[test]
fn every_address_of_a_small_pool_is_told() {
    use LeaseState::{Active, Fenced, Quarantined, Stale};
    let mut of_24 = pool("10.52.0.0/24");
    of_24.gateway = Some(address("10.52.0.1"));
    of_24.exclude = vec![(address("10.52.0.250"), address("10.52.0.252"))];
    let leases = [
        ("10.52.0.2", Active),
        ("10.52.0.3", Active),
        ("10.52.0.4", Stale),
        ("10.52.0.7", Quarantined),
        ("10.52.0.8", Fenced),
        // Released, and leased anew.
        ("10.52.0.3", Quarantined),
        ("10.52.0.251", Active),
    ];
    let told = told(vec![of_24], &leases, &["10.52.0.2", "10.52.0.9"]);
    let [record] = told.as_slice() else {
        panic!("{told:?}")
    };
    assert_eq!(rows(record), ["10.52.0.0 x2Aas.2rf!.240xax.2x"]);
    assert_eq!((record.addresses, record.free), (Some(250), Some(245)));
    assert_eq!((record.leases.active, record.leases.total()), (3, 6));
    assert_eq!(record.contested, 2);
}

#[test]
fn a_range_of_a_large_prefix_is_drawn_alone() {
    let mut of_16 = pool("10.52.0.0/16");
    of_16.range = Some((address("10.52.3.10"), address("10.52.4.19")));
    let told = told(vec![of_16], &[("10.52.3.11", LeaseState::Quiet)], &[]);
    assert_eq!(rows(&told[0]), ["10.52.3.0 x10.q.244", "10.52.4.0 .20x236"]);
    assert_eq!((told[0].addresses, told[0].free), (Some(266), Some(265)));
    assert_eq!(told[0].first, Some([10, 52, 3, 10].into()));
}

#[test]
fn of_a_vast_pool_only_rows_with_something_in_them_are_told() {
    let leases = [
        ("10.200.7.5", LeaseState::Active),
        ("fd00:52::1:5", LeaseState::Active),
        ("192.0.2.9", LeaseState::Unknown),
        ("2001:db8::9", LeaseState::Unknown),
    ];
    let records = told(
        vec![pool("10.0.0.0/8"), pool("fd00:52::/64"), pool("::/0")],
        &leases[..3],
        &["10.3.0.1"],
    );
    assert_eq!(rows(&records[0]), ["10.3.0.0 .!.254", "10.200.7.0 .5a.250"]);
    assert_eq!(records[0].addresses, Some((1 << 24) - 2));
    assert_eq!(rows(&records[1]), ["fd00:52::1:0 .5a.250"]);
    assert_eq!((records[1].addresses, records[1].free), (None, None));
    assert_eq!(rows(&records[2]), Vec::<String>::new());
    assert_eq!((records[3].prefix.as_ref(), records.len()), (None, 4));
    assert_eq!(rows(&records[3]), ["192.0.2.0 x9ux246"]);
    let told = told(vec![pool("10.0.0.0/30")], &leases[2..], &[]);
    assert_eq!(rows(&told[0]), ["10.0.0.0 x.2x"]);
    assert_eq!(rows(&told[2]), ["2001:db8:: x9ux246"]);
}

#[test]
fn rows_are_bounded_and_those_left_out_counted() {
    let leases: Vec<(Address, LeaseState)> = (0..5000_u32)
        .map(|row| ip((0x0a00_0001 + (row << 8)).into(), false))
        .map(|ip| (Address::from_ip(ip).expect("claimable"), LeaseState::Active))
        .collect();
    let chart = Chart {
        store: StoreName("host-local:net".into()),
        mode: Mode::Observe,
        failed: None,
        read_only: None,
        pools: vec![(pool("10.0.0.0/8"), Wire::Any)],
        found: leases,
    };
    let told = chart.pool_records(&[]);
    assert_eq!((told[0].rows.len(), told[0].rows_left_out), (ROWS, 904));
    assert_eq!(told[0].leases.active, 5000);
}

proptest! {
    /// What rows say is what the stores say, address by address, whatever the pool.
    #[test]
    fn rows_say_what_stores_say(
        length in 16u8..=32,
        base in any::<u32>(),
        leased in prop::collection::btree_set(any::<u16>(), 0..40),
        range in prop::option::of((any::<u16>(), any::<u16>())),
        excluded in prop::collection::vec((any::<u16>(), 0u16..300), 0..4),
        gateway in prop::option::of(any::<u16>()),
    ) {
        let net = ipnet::Ipv4Net::new((base & 0x00ff_ffff | 0x0a00_0000).into(), length).expect("valid").trunc();
        let at = |offset: u16| {
            let number = u32::from(net.network()) | (u32::from(offset) & u32::from(net.hostmask()));
            Address::from_ip(IpAddr::V4(number.into()))
        };
        let pool = Pool {
            range: range.and_then(|(a, b)| Some((at(a.min(b))?, at(a.max(b))?))).filter(|r| r.0 <= r.1),
            gateway: gateway.and_then(at),
            exclude: { excluded.into_iter() }
                .filter_map(|(from, more)| Some((at(from)?, at(from.saturating_add(more))?)))
                .filter(|(from, to)| from <= to)
                .collect(),
            ..pool(&net.to_string())
        };
        let found: Vec<(Address, LeaseState)> = { leased.into_iter() }
            .filter_map(|offset| Some((at(offset)?, LeaseState::Active)))
            .collect();
        let leases: BTreeMap<_, _> = found.iter().map(|&(a, s)| (number(a.ip()), s)).collect();
        let record = pool_record(&pool, &Wire::Any, leases.clone(), &[]);
        let mut drawn = BTreeMap::new();
        for row in &record.rows {
            for (at, cell) in (number(row.first)..).zip(row.cells()) {
                prop_assert!(drawn.insert(at, cell.kind).is_none());
            }
        }
        let (mut given, mut free) = (0, 0);
        for ip in net.network().to_bits()..=net.broadcast().to_bits() {
            let managed = Address::from_ip(IpAddr::V4(ip.into())).is_some_and(|a| pool.manages(a));
            let kind = match leases.get(&ip.into()) {
                Some(&state) => CellKind::Leased(state),
                None if managed => CellKind::Free,
                None => CellKind::Excluded,
            };
            given += u64::from(managed);
            free += u64::from(managed && kind == CellKind::Free);
            match drawn.get(&ip.into()) {
                Some(&told) => prop_assert_eq!(told, kind),
                None => prop_assert!(!matches!(kind, CellKind::Leased(_))),
            }
        }
        prop_assert_eq!(record.addresses, Some(given));
        prop_assert_eq!(record.free, Some(free));
    }
}
