//! What happens on the wire, and what is true of it.
//!
//! In the language of [`crate::scenario`], so that what the agent says of an incident here
//! can be looked into without a kernel. Every incident has addresses of its own, the
//! letters, and stations of its own; Q1 is who asks. Times are seconds; at [`RESTART`]
//! every detector is ended and started again.

use crate::scenario::Family;

/// When the detectors are restarted, on the incidents' clock, which stands still meanwhile.
pub const RESTART: f64 = 16.0;
/// When the last frame has been sent and everything that is pending has ripened.
pub const END: f64 = 23.0;

/// What there is to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truth {
    /// An address that two machines use, or one that it doesn't belong to.
    Conflict,
    /// No conflict yet, but something that an operator wants to know.
    Event,
    /// Nothing is wrong.
    Nothing,
}

/// Something that happens.
#[derive(Debug)]
pub struct Incident {
    /// In words.
    pub name: &'static str,
    /// What is true of it.
    pub truth: Truth,
    /// ARP or Neighbor Discovery.
    pub family: Family,
    /// The addresses that it is about, one letter each.
    pub addresses: &'static str,
    /// What happens.
    pub script: &'static str,
}

const fn v4(
    name: &'static str,
    truth: Truth,
    addresses: &'static str,
    script: &'static str,
) -> Incident {
    Incident {
        name,
        truth,
        family: Family::V4,
        addresses,
        script,
    }
}

const fn v6(
    name: &'static str,
    truth: Truth,
    addresses: &'static str,
    script: &'static str,
) -> Incident {
    Incident {
        family: Family::V6,
        ..v4(name, truth, addresses, script)
    }
}

use Truth::{Conflict, Event, Nothing};

/// All of them.
pub const INCIDENTS: &[Incident] = &[
    v4(
        "two machines announce one address, by turns",
        Conflict,
        "A",
        "0 vA ANN A1 A
         0.5 vB ANN A2 A
         1 vA ANN A1 A
         1.5 vB ANN A2 A",
    ),
    v4(
        "flapping: ten changes in five seconds",
        Conflict,
        "B",
        "0.1,1.1,2.1,3.1,4.1,5.1 vA ANN B1 B
         0.6,1.6,2.6,3.6,4.6 vB ANN B2 B",
    ),
    v4(
        "two that never announce and only answer, asked twice",
        Conflict,
        "C",
        "1,2 vC REQ Q1 Q C
         1.01,2.01 vA REP C1 C Q1 Q
         1.02,2.02 vB REP C2 C Q1 Q",
    ),
    v4(
        "two that answer one question, and say nothing else",
        Conflict,
        "D",
        "1.2 vC REQ Q1 Q D
         1.21 vA REP D1 D Q1 Q
         1.22 vB REP D2 D Q1 Q",
    ),
    v4(
        "a stranger speaks once, and the owner nine seconds later",
        Conflict,
        "E",
        "0.2 vA ANN E1 E
         5 vB ANN E2 E
         14 vA ANN E1 E",
    ),
    v4(
        "three machines on one address",
        Conflict,
        "F",
        "0.3 vA ANN F1 F
         0.8 vB ANN F2 F
         1.3 vC ANN F3 F
         1.8 vA ANN F1 F",
    ),
    v4(
        "a forged gateway: unasked replies beside the real ones",
        Conflict,
        "G",
        "0.4 up REP G1 G Q1 Q
         3 vB REP G2 G Q1 Q
         3.4 vB REP G2 G Q1 Q
         4 up REQ G1 G Q",
    ),
    v4(
        "a guest asserts the host's own address",
        Conflict,
        "H",
        "2,2.5,3.5 vA ANN H1 H",
    ),
    v4(
        "a duplicate inside a tagged VLAN",
        Conflict,
        "I",
        "0.5,1.5 up ANN I1 I tag 100
         1,2 up ANN I2 I tag 100",
    ),
    v4(
        "a squatter on a leased address whose holder is silent",
        Conflict,
        "L",
        "lease L L1
         1,3 vB REQ L2 L Q",
    ),
    v4(
        "a stranger speaks once on an address leased to another",
        Conflict,
        "Y",
        "lease Y Y1
         0.6 vA ANN Y1 Y
         4 vB ANN Y2 Y",
    ),
    v4(
        "an address of a managed pool, used without a lease",
        Conflict,
        "Z",
        "1,4 vB ANN Z1 Z",
    ),
    v4(
        "a duplicate that goes on over the detector's restart",
        Conflict,
        "O",
        "1 vA ANN O1 O
         17,18 vB ANN O2 O
         17.5,18.5 vA ANN O1 O",
    ),
    v4(
        "the restart falls between the owner's word and the stranger's, who says one",
        Conflict,
        "T",
        "1 vA ANN T1 T
         17.1 vB ANN T2 T
         17.6 vA ANN T1 T",
    ),
    v4(
        "a new machine probes for an address in use, and gives way",
        Event,
        "M",
        "0.7 vA ANN M1 M
         3,4,5 vB PROBE M2 M
         3.01,4.01,5.01 vA REP M1 M M2 -",
    ),
    v4(
        "Ethernet's source and ARP's sender differ",
        Event,
        "N",
        "1.3,2.3 vA FORGED N1 N N2",
    ),
    v4(
        "one address in two VLANs",
        Nothing,
        "V",
        "0.8,1.8,2.8 up ANN V1 V tag 100
         1.3,2.3,3.3 up ANN V2 V tag 200",
    ),
    v4(
        "failover: a virtual address goes to another router, and stays",
        Nothing,
        "K",
        "0.9,1.9 vA ANN K1 K
         5,5.1,5.2,9 vB ANN K2 K",
    ),
    v4(
        "a DHCP lease ends, another machine gets the address",
        Nothing,
        "J",
        "lease J J1
         0.2,2.2 vA REQ J1 J Q
         5 grant J J2
         7,8 vB REQ J2 J Q",
    ),
    v4(
        "probes before the first use of a free address",
        Nothing,
        "P",
        "1,2,3 vB PROBE P1 P
         5,7 vB ANN P1 P",
    ),
    v4(
        "proxy ARP: a router answers for two machines elsewhere",
        Nothing,
        "RS",
        "1.3 vC REQ Q1 Q R
         1.31 vA REP R1 R Q1 Q
         1.6 vC REQ Q1 Q S
         1.61 vA REP R1 S Q1 Q",
    ),
    v4(
        "one machine with two MACs, configured as one owner",
        Nothing,
        "U",
        "owner U1 U2
         1.4,3.4,5.4 vA REP U1 U Q1 Q
         2.4,4.4,6.4 vA REP U2 U Q1 Q",
    ),
    v4(
        "a switch's unicast probes, answered",
        Nothing,
        "W",
        "1 vA ANN W1 W
         3,6 vC UPROBE S9 W W1
         3.01,6.01 vA REP W1 W S9 -",
    ),
    v6(
        "IPv6: two machines advertise one address",
        Conflict,
        "A",
        "0.1,1.1 vA ANN A1 A
         0.6,1.6 vB ANN A2 A",
    ),
    v6(
        "IPv6: duplicate address detection fails",
        Event,
        "M",
        "0.7 vA ANN M1 M
         3 vB PROBE M2 M
         3.01 vA ANN M1 M",
    ),
    v6(
        "IPv6: anycast, two advertise without Override",
        Nothing,
        "W",
        "0.9,1.9,2.9 vA WEAK W1 W
         1.4,2.4,3.4 vB WEAK W2 W",
    ),
    v6(
        "IPv6: advertisements that came through a router",
        Nothing,
        "X",
        "1,3 vA ANN X1 X
         2,4 vB FAR X2 X",
    ),
];
