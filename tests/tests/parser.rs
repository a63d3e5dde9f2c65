//! What the parser believes and what it refuses, and why; and that no bytes break it.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipam_common::{
    Address, Captured, Evidence, Parsed, Refusal, Sighting, parse,
    sighting::{EventClass, PortBudget, Tally},
    source,
};
use proptest::prelude::*;
use tests::frames::{self, ALL_NODES, Arp, BROADCAST, DOT1AD, DOT1Q, Nd, flags, mac};

const X: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);
const G: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const T: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 5);
const L: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 9);

fn read(frame: &[u8]) -> Parsed {
    parse(&Captured::new(frame))
}

fn seen(frame: &[u8]) -> Sighting {
    match read(frame) {
        Parsed::Sighting(sighting) => sighting,
        other => panic!("{other:?}"),
    }
}

fn request() -> Arp {
    Arp::request(mac(1), X, G)
}

#[test]
fn arp_is_refused_for_what_does_not_fit() {
    let arp = |change: fn(&mut Arp)| {
        let mut arp = request();
        change(&mut arp);
        arp.frame()
    };
    let cases = [
        (arp(|arp| arp.hardware_type = 6), Refusal::HardwareType),
        (arp(|arp| arp.protocol = 0x86dd), Refusal::Protocol),
        (arp(|arp| arp.lengths = [8, 4]), Refusal::Lengths),
        (arp(|arp| arp.lengths = [6, 16]), Refusal::Lengths),
        (arp(|arp| arp.operation = 9), Refusal::Opcode),
        (arp(|arp| arp.operation = 4), Refusal::Opcode),
        (arp(|arp| arp.sender_mac = [0; 6]), Refusal::SenderMac),
        (arp(|arp| arp.sender_mac = BROADCAST), Refusal::SenderMac),
        (
            arp(|arp| arp.sender_mac = [1, 0, 0x5e, 0, 0, 1]),
            Refusal::SenderMac,
        ),
        (
            arp(|arp| arp.sender = Ipv4Addr::LOCALHOST),
            Refusal::SenderAddress,
        ),
        (
            arp(|arp| arp.sender = Ipv4Addr::BROADCAST),
            Refusal::SenderAddress,
        ),
        (
            arp(|arp| arp.sender = Ipv4Addr::new(224, 0, 0, 1)),
            Refusal::SenderAddress,
        ),
        (
            Arp::reply(mac(1), Ipv4Addr::UNSPECIFIED, mac(2), G).frame(),
            Refusal::SenderAddress,
        ),
        (
            Arp::probe(mac(1), Ipv4Addr::LOCALHOST).frame(),
            Refusal::TargetAddress,
        ),
        (
            Arp::probe(mac(1), Ipv4Addr::UNSPECIFIED).frame(),
            Refusal::TargetAddress,
        ),
        (request().frame()[..34].to_vec(), Refusal::Truncated),
        (request().frame()[..41].to_vec(), Refusal::Truncated),
        (request().frame()[..13].to_vec(), Refusal::Truncated),
        (
            frames::ethernet(BROADCAST, mac(1), 0x8035, &[0; 28]),
            Refusal::Rarp,
        ),
        (
            frames::tagged(&request().frame(), &[(DOT1AD, 1), (DOT1Q, 2), (DOT1Q, 3)]),
            Refusal::Tags,
        ),
    ];
    for (frame, refusal) in cases {
        assert_eq!(read(&frame), Parsed::Refused(refusal), "{frame:02x?}");
    }
}

#[test]
fn discovery_is_refused_for_what_rfc_4861_forbids() {
    let nd = |nd: Nd, change: fn(&mut Nd)| {
        let mut nd = nd;
        change(&mut nd);
        nd.frame()
    };
    let na = || Nd::advertisement(mac(1), T, flags::OVERRIDE);
    let ns = || Nd::solicitation(mac(1), L, T);
    let ra = || Nd::router_advertisement(mac(1), L);
    let extension = |kind: u8| (kind, vec![0; 7]);
    let cases = [
        (nd(na(), |nd| nd.hop_limit = 64), Refusal::HopLimit),
        (nd(na(), |nd| nd.hop_limit = 254), Refusal::HopLimit),
        (nd(na(), |nd| nd.checksum_error = 1), Refusal::Checksum),
        (nd(na(), |nd| nd.code = 1), Refusal::Code),
        (nd(na().bare(), |nd| nd.body.truncate(12)), Refusal::Lengths),
        (nd(na(), |nd| nd.options[1] = 0), Refusal::OptionLength),
        (nd(na(), |nd| nd.options[1] = 2), Refusal::OptionLength),
        (nd(na(), |nd| nd.options.truncate(4)), Refusal::OptionLength),
        (
            nd(na(), |nd| nd.options = [0; 600].into()),
            Refusal::Oversized,
        ),
        (
            nd(na(), |nd| nd.options = [9, 1, 0, 0, 0, 0, 0, 0].repeat(17)),
            Refusal::Options,
        ),
        (
            na().bare().link_layer(2, [0; 6]).frame(),
            Refusal::SenderMac,
        ),
        (
            Nd::advertisement(mac(1), ALL_NODES, 0).frame(),
            Refusal::TargetAddress,
        ),
        (
            Nd::advertisement(mac(1), T, flags::SOLICITED).frame(),
            Refusal::Destination,
        ),
        (nd(ns(), |nd| nd.source = ALL_NODES), Refusal::SenderAddress),
        (nd(ns(), |nd| nd.body[4] = 0xff), Refusal::TargetAddress),
        (
            Nd::dad(mac(1), T).link_layer(1, mac(1)).frame(),
            Refusal::SourceOption,
        ),
        (
            nd(Nd::dad(mac(1), T), |nd| nd.destination = ALL_NODES),
            Refusal::Destination,
        ),
        (nd(ra(), |nd| nd.source = T), Refusal::SenderAddress),
        (
            Nd::router_solicitation(mac(1), Ipv6Addr::UNSPECIFIED)
                .bare()
                .frame(),
            Refusal::SenderAddress,
        ),
        (
            Nd {
                extensions: vec![extension(44)],
                ..na()
            }
            .frame(),
            Refusal::Fragmented,
        ),
        (
            Nd {
                extensions: vec![extension(60); 6],
                ..na()
            }
            .frame(),
            Refusal::ExtensionHeaders,
        ),
        (
            Nd {
                extensions: vec![extension(60), extension(0)],
                ..na()
            }
            .frame(),
            Refusal::ExtensionHeaders,
        ),
        (na().frame()[..80].to_vec(), Refusal::Truncated),
    ];
    for (frame, refusal) in cases {
        assert_eq!(read(&frame), Parsed::Refused(refusal), "{frame:02x?}");
    }
    let extended = Nd {
        extensions: vec![extension(0), extension(60), extension(43)],
        ..na()
    };
    assert_eq!(
        seen(&extended.frame()).evidence,
        Evidence::NeighborAdvertisement
    );
    // Redirect (§4.5) and echo are other ICMPv6.
    for kind in [137, 128] {
        assert_eq!(read(&nd(Nd { kind, ..na() }, |_| ())), Parsed::Other);
    }
}

#[test]
fn every_extension_header_is_followed() {
    // Next header, length and contents: all are 16 bytes long, in words of eight beyond the
    // first, Authentication's in words of four beyond the second (RFC 4302 §2.2).
    for (kind, words) in [0, 43, 60, 135, 139, 140, 253, 254]
        .map(|kind| (kind, 1))
        .into_iter()
        .chain([(51, 2)])
    {
        let mut bytes = vec![0; 15];
        bytes[0] = words;
        let na = Nd {
            extensions: vec![(kind, bytes)],
            ..Nd::advertisement(mac(1), T, 0)
        };
        assert_eq!(seen(&na.frame()).mac.bytes(), mac(1), "{kind}");
    }
}

#[test]
fn who_speaks_for_what_and_asks_for_what() {
    let ns = seen(&Nd::solicitation(mac(1), L, T).nonce([7; 6]).frame());
    assert_eq!(
        (Some(ns.address), ns.asked),
        (Address::v6(L.octets()), Address::v6(T.octets()))
    );
    assert_eq!(ns.nonce, Some([7; 6]));
    // Of a longer one the first bytes; an answer's says nothing (RFC 3971 §5.3.3).
    let long = Nd::dad(mac(1), T).option(14, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]);
    assert_eq!(seen(&long.frame()).nonce, Some([1, 2, 3, 4, 5, 6]));
    let answer = Nd::advertisement(mac(1), T, 0).nonce([7; 6]);
    assert_eq!(seen(&answer.frame()).nonce, None);
    let zero = Nd::dad(mac(1), T).nonce([0; 6]);
    assert_eq!(seen(&zero.frame()).nonce, None);
    let dad = seen(&Nd::dad(mac(1), T).frame());
    assert_eq!(
        (Some(dad.address), dad.asked),
        (Address::v6(T.octets()), None)
    );
    assert_eq!(dad.evidence, Evidence::DadProbe);
    let na = Nd {
        ether_src: mac(9),
        ..Nd::advertisement(mac(1), T, 0)
    };
    assert_eq!(seen(&na.frame()).mac.bytes(), mac(1));
    assert_eq!(seen(&na.bare().frame()).mac.bytes(), mac(9));
    let arp = seen(&request().frame());
    assert_eq!(
        (Some(arp.address), arp.asked),
        (Address::v4(X.octets()), Address::v4(G.octets()))
    );
}

#[test]
fn a_reply_answers_somebody_or_is_gratuitous() {
    let reply = Arp::reply(mac(1), X, mac(2), G);
    let broadcast = Arp {
        ether_dst: BROADCAST,
        ..reply.clone()
    };
    let nobody = Arp {
        target_mac: BROADCAST,
        ..broadcast.clone()
    };
    let of = |arp: &Arp| seen(&arp.frame()).evidence;
    assert_eq!(of(&reply), Evidence::ArpReply);
    // RFC 3927 §2.5 has answers for link-local addresses broadcast.
    assert_eq!(of(&broadcast), Evidence::ArpReply);
    assert_eq!(of(&nobody), Evidence::ArpGratuitousReply);
    let to = |arp: &Arp| seen(&arp.frame()).to;
    assert_eq!([to(&reply), to(&broadcast)], [mac(2); 2]);
    assert_eq!(to(&nobody), BROADCAST);
    assert_eq!(
        of(&Arp { target: X, ..reply }),
        Evidence::ArpGratuitousReply
    );
}

#[test]
fn a_tag_in_metadata_is_the_outermost() {
    let frame = request().frame();
    let inner = frames::tagged(&frame, &[(DOT1Q, 100)]);
    let double = frames::tagged(&frame, &[(DOT1AD, 7), (DOT1Q, 100)]);
    let with = |bytes: &[u8], tag| {
        parse(&Captured {
            bytes,
            stripped_tag: Some(tag),
        })
    };
    for (parsed, tags) in [
        (with(&frame, 0xe064), (0, 100)),
        (with(&inner, 7), (7, 100)),
    ] {
        let Parsed::Sighting(sighting) = parsed else {
            panic!("{parsed:?}");
        };
        assert_eq!((sighting.tags.outer, sighting.tags.vlan), tags);
    }
    assert_eq!(with(&double, 1), Parsed::Refused(Refusal::Tags));
}

#[test]
fn discriminants_are_places_in_all() {
    for (place, refusal) in Refusal::ALL.iter().enumerate() {
        assert_eq!(*refusal as usize, place);
        let same = Refusal::ALL
            .iter()
            .filter(|other| other.name() == refusal.name());
        assert_eq!(same.count(), 1);
    }
    for (place, evidence) in Evidence::ALL.iter().enumerate() {
        assert_eq!(*evidence as usize, place);
        assert_eq!(Evidence::from_byte(place as u8), Some(*evidence));
    }
}

proptest! {
    #[test]
    fn no_bytes_break_it(
        mut bytes in prop::collection::vec(any::<u8>(), 0..200),
        ethertype in prop::sample::select(vec![0x0800_u16, 0x0806, 0x86dd, 0x8100, 0x88a8]),
        stripped_tag: Option<u16>,
    ) {
        if let Some(place) = bytes.get_mut(12..14) {
            place.copy_from_slice(&ethertype.to_be_bytes());
        }
        let frame = Captured { bytes: &bytes, stripped_tag };
        parse(&frame);
        source(&frame);
    }

    /// Padding says nothing, and what a frame says needs every byte of it.
    #[test]
    fn padding_is_ignored_and_a_cut_is_noticed(
        which in 0..frames::of_every_kind().len(),
        padding in 0..40_usize,
        cut in 1..20_usize,
    ) {
        let (_, frame) = frames::of_every_kind().swap_remove(which);
        let mut padded = frame.clone();
        padded.resize(frame.len() + padding, 0xa5);
        prop_assert_eq!(read(&frame), read(&padded));
        // One kind is padded already.
        let needed = if frame[13] == 6 { 42 } else { frame.len() };
        prop_assert_eq!(read(&frame[..needed - cut]), Parsed::Refused(Refusal::Truncated));
    }

    /// However often a port asks, it gets its burst and then its rate.
    #[test]
    fn a_port_gets_its_burst_and_then_its_rate(gap in 1..2_000_000_u64, class: bool) {
        let (class, rate) = if class {
            (EventClass::Change, PortBudget::CHANGE_PER_SECOND)
        } else {
            (EventClass::Fresh, PortBudget::FRESH_PER_SECOND)
        };
        let mut port = PortBudget::new(0, 0);
        let asked = 20_000;
        let sent = (1..=asked).filter(|n| port.take_event(class, n * gap)).count() as u64;
        let earned = PortBudget::EVENT_BURST + asked * gap * rate / 1_000_000_000;
        prop_assert!(sent <= earned);
        prop_assert!(sent + 1 >= earned.min(asked), "{} of {}", sent, earned);
    }

    /// Whatever comes, a tally's times are in order and its kinds are what came.
    #[test]
    fn a_tally_is_in_order(
        frames in prop::collection::vec((0..9_u8, 0..3_000_000_000_u64), 1..50),
    ) {
        let said = |byte| {
            let frame = Arp::request(mac(1), X, G).frame();
            let Parsed::Sighting(sighting) = parse(&Captured::new(&frame)) else {
                panic!("not a sighting");
            };
            let evidence = Evidence::from_byte(byte).unwrap_or(Evidence::ArpRequest);
            Sighting { evidence, ..sighting }
        };
        let evidence = |byte| said(byte).evidence;
        let mut tally = Tally::first(&said(frames[0].0), frames[0].1);
        for (byte, now) in &frames[1..] {
            let news = tally.is_news(&said(*byte), *now);
            prop_assert_eq!(news, tally.kinds & evidence(*byte).bit() == 0);
            tally.add(&said(*byte), *now);
            prop_assert!(tally.first_seen <= tally.last_seen);
            prop_assert!(tally.last_strong <= tally.last_seen);
        }
        let kinds = frames.iter().fold(0, |kinds, (byte, _)| kinds | evidence(*byte).bit());
        prop_assert_eq!((tally.frames as usize, tally.kinds), (frames.len(), kinds));
    }
}
