//! Which MACs are one machine, and which contest nobody.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, Ipv4Addr},
    str::FromStr,
    sync::Arc,
};

use ipam_common::{Address, Mac, address::ParseMacError};
use ipnet::IpNet;

/// A MAC, or all that begin alike: `00:00:5e:00:01:*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacPattern {
    bytes: [u8; 6],
    /// How many of them count, from the front.
    length: usize,
}

impl MacPattern {
    /// Whether the pattern names this MAC.
    pub fn matches(&self, mac: Mac) -> bool {
        mac.bytes()[..self.length] == self.bytes[..self.length]
    }

    /// Whether there are MACs that both patterns name.
    pub fn overlaps(&self, other: &Self) -> bool {
        let common = self.length.min(other.length);
        self.bytes[..common] == other.bytes[..common]
    }
}

impl From<Mac> for MacPattern {
    fn from(mac: Mac) -> Self {
        Self {
            bytes: mac.bytes(),
            length: 6,
        }
    }
}

impl FromStr for MacPattern {
    type Err = ParseMacError;

    /// A MAC whose last groups may be left out for one `*`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let Some(front) = text.strip_suffix('*') else {
            return text.parse::<Mac>().map(Self::from);
        };
        let mut pattern = Self {
            bytes: [0; 6],
            length: 0,
        };
        if front.is_empty() {
            return Ok(pattern);
        }
        let groups = front.strip_suffix([':', '-']).ok_or(ParseMacError)?;
        for group in groups.split([':', '-']) {
            if pattern.length == 5 || group.len() != 2 || !group.is_ascii() {
                return Err(ParseMacError);
            }
            pattern.bytes[pattern.length] =
                u8::from_str_radix(group, 16).map_err(|_| ParseMacError)?;
            pattern.length += 1;
        }
        Ok(pattern)
    }
}

impl fmt::Display for MacPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.bytes[..self.length].iter().enumerate() {
            let colon = if i == 0 { "" } else { ":" };
            write!(f, "{colon}{byte:02x}")?;
        }
        match self.length {
            6 => Ok(()),
            0 => f.write_str("*"),
            _ => f.write_str(":*"),
        }
    }
}

/// Several MACs of one machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Its name.
    pub name: Arc<str>,
    /// Its MACs.
    pub macs: Vec<MacPattern>,
}

/// MACs that contest nobody for some addresses. They still count as life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exemption {
    /// The addresses.
    pub addresses: Vec<IpNet>,
    /// The MACs; none: any.
    pub macs: Vec<MacPattern>,
    /// Why, for people.
    pub reason: Arc<str>,
}

/// By which protocol routers share an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VirtualRouter {
    /// VRRP, or CARP, which has the same MACs.
    Vrrp,
    /// HSRP.
    Hsrp,
    /// GLBP.
    Glbp,
}

/// The protocol whose virtual router has this MAC, if one has: it is at home wherever the
/// router is that is in charge.
pub fn virtual_router(mac: Mac) -> Option<VirtualRouter> {
    match mac.bytes() {
        // VRRP (RFC 9568 §7.3) and CARP, for IPv4 and for IPv6.
        [0x00, 0x00, 0x5e, 0x00, 0x01 | 0x02, _] => Some(VirtualRouter::Vrrp),
        // HSRP, version 1, version 2, and for IPv6.
        [0x00, 0x00, 0x0c, 0x07, 0xac, _]
        | [0x00, 0x00, 0x0c, 0x9f, 0xf0..=0xff, _]
        | [0x00, 0x05, 0x73, 0xa0, 0x00..=0x0f, _] => Some(VirtualRouter::Hsrp),
        bytes => is_glbp(bytes).then_some(VirtualRouter::Glbp),
    }
}

/// Whether a MAC is that of a virtual router.
pub fn is_virtual_router(mac: Mac) -> bool {
    virtual_router(mac).is_some()
}

/// GLBP answers for one address with a MAC for each router of its group, whose number has ten
/// bits; the last byte is the router's.
fn is_glbp(bytes: [u8; 6]) -> bool {
    matches!(bytes, [0x00, 0x07, 0xb4, 0x00..=0x03, _, _])
}

/// Calico gives this MAC to the host's end of every pod's link, and answers with it for
/// whatever a pod asks.
const CALICO: [u8; 6] = [0xee; 6];
/// What Calico's pods have for a gateway, each its own.
const CALICO_GATEWAY: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 1, 1));

/// Who a MAC belongs to: what is compared when two claims are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OwnerKey {
    /// This host.
    Host,
    /// The owner of that place in the configuration.
    Named(u16),
    /// Routers that share an address, by the front of their MACs.
    Group([u8; 5]),
    /// A machine known by this MAC alone.
    Mac(Mac),
}

/// Every rule about owners.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owners {
    /// Machines with several MACs.
    pub owners: Vec<Owner>,
    /// Who contests nobody.
    pub exempt: Vec<Exemption>,
    /// MACs that were found to be one machine's, each with the one that stands for it.
    pub kin: BTreeMap<Mac, Mac>,
}

impl Owners {
    /// Whose MAC it is.
    pub fn of(&self, mac: Mac, own: &BTreeSet<Mac>) -> OwnerKey {
        if own.contains(&mac) {
            return OwnerKey::Host;
        }
        let mac = self.kin.get(&mac).copied().unwrap_or(mac);
        self.named(mac).map_or_else(
            || match mac.bytes() {
                [a, b, c, d, group, _] if is_glbp(mac.bytes()) => {
                    OwnerKey::Group([a, b, c, d, group])
                }
                _ => OwnerKey::Mac(mac),
            },
            OwnerKey::Named,
        )
    }

    /// The place of the owner that names this MAC.
    fn named(&self, mac: Mac) -> Option<u16> {
        let mut owners = (0u16..).zip(&self.owners);
        let named = owners.find(|(_, owner)| owner.macs.iter().any(|known| known.matches(mac)));
        named.map(|(place, _)| place)
    }

    /// Takes in which MACs were found to be one machine's, each with the least of them. One that
    /// an owner names stays that owner's, and its kin come to it.
    pub fn join(&mut self, mut kin: BTreeMap<Mac, Mac>) {
        let named = |mac: &Mac| self.named(*mac).is_some();
        let owned = kin.iter().rev().filter(|(mac, _)| named(mac));
        let owned: BTreeMap<Mac, Mac> = owned.map(|(&mac, &least)| (least, mac)).collect();
        for (mac, of) in &mut kin {
            *of = match named(mac) {
                true => *mac,
                false => owned.get(of).copied().unwrap_or(*of),
            };
        }
        self.kin = kin;
    }

    /// Adds another's rules.
    pub fn merge(&mut self, other: &Self) {
        self.owners.extend_from_slice(&other.owners);
        self.exempt.extend_from_slice(&other.exempt);
    }

    /// Whether this MAC contests nobody for this address.
    pub fn is_exempt(&self, address: Address, mac: Mac) -> bool {
        mac.bytes() == CALICO
            || address.ip() == CALICO_GATEWAY
            || self.exempt.iter().any(|exemption| {
                exemption
                    .addresses
                    .iter()
                    .any(|net| net.contains(&address.ip()))
                    && (exemption.macs.is_empty()
                        || exemption.macs.iter().any(|known| known.matches(mac)))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_reads_back_as_it_is_written() {
        for text in ["*", "00:*", "00:00:5e:00:01:*", "52:54:00:00:00:0b"] {
            let pattern: MacPattern = text.parse().expect(text);
            assert_eq!(pattern.to_string(), text);
        }
        for text in [
            "",
            "00:00:5e:00:01:02:*",
            "0:*",
            "00*",
            "zz:*",
            "01:00:5e:00:00:01",
        ] {
            assert_eq!(text.parse::<MacPattern>(), Err(ParseMacError), "{text}");
        }
    }

    #[test]
    fn a_pattern_names_what_begins_like_it() {
        let vrrp: MacPattern = "00:00:5e:00:01:*".parse().expect("pattern");
        assert!(vrrp.matches("00:00:5e:00:01:fe".parse().expect("MAC")));
        assert!(!vrrp.matches("00:00:5e:00:02:fe".parse().expect("MAC")));
    }

    #[test]
    fn routers_that_share_an_address_are_one() {
        let owners = Owners::default();
        let of = |mac: &str| owners.of(mac.parse().expect("MAC"), &BTreeSet::new());
        // A GLBP group's number has ten bits.
        for group in ["00:07:b4:00:01", "00:07:b4:01:2c", "00:07:b4:03:ff"] {
            let [one, two] = ["01", "02"].map(|router| of(&format!("{group}:{router}")));
            assert_eq!(one, two, "{group}");
            assert_ne!(one, of("00:07:b4:02:22:01"), "{group}");
        }
        assert_ne!(of("00:07:b4:04:00:01"), of("00:07:b4:04:00:02"));
    }
}
