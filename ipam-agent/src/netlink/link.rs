//! Links and addresses, as the kernel reports them (Linux `include/uapi/linux/if_link.h`,
//! `if_addr.h`, `if_bridge.h`).

use std::{net::IpAddr, sync::Arc};

use ipam_common::Mac;

use super::message::{Message, Request, attributes, first, number, text};

/// Not in the libc crate.
const IFLA_XDP_ATTACHED: u16 = 2;
const IFLA_BR_VLAN_FILTERING: u16 = 7;
const IFLA_BR_VLAN_DEFAULT_PVID: u16 = 39;
const IFLA_VLAN_ID: u16 = 1;
const IFLA_BRIDGE_VLAN_INFO: u16 = 2;
/// IFLA_BRIDGE_FLAGS, _MODE, _MRP and _CFM.
const BRIDGE_OTHER: [u16; 4] = [0, 1, 4, 5];
const BRIDGE_VLAN_INFO_PVID: u16 = 1 << 1;
const BRIDGE_VLAN_INFO_UNTAGGED: u16 = 1 << 2;
const BRIDGE_VLAN_INFO_RANGE_BEGIN: u16 = 1 << 3;
const IFA_TARGET_NETNSID: u16 = 10;

/// A link, as far as the agent looks at it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkRecord {
    /// Its ifindex.
    pub index: u32,
    /// Its name.
    pub name: Arc<str>,
    /// `IFF_…`.
    pub flags: u32,
    /// Its frames are Ethernet's (ARPHRD_ETHER).
    pub ethernet: bool,
    /// `veth`, `bond`, `bridge`, …; `None`: hardware, or loopback.
    pub kind: Option<Box<str>>,
    /// The link it is a part of: a port's bridge, a slave's bond.
    pub master: Option<u32>,
    /// Its MAC.
    pub mac: Option<Mac>,
    /// The MAC that its hardware was made with.
    pub permanent_mac: Option<Mac>,
    /// The link below it or, of a veth, its peer; an ifindex of `namespace`.
    pub link: Option<u32>,
    /// The namespace that `link` is in, `None` for this one.
    pub namespace: Option<i32>,
    /// Of a VLAN device its VID.
    pub vlan: Option<u16>,
    /// Of a VLAN-filtering bridge its default PVID, 0 for none.
    pub filtering: Option<u16>,
    /// An XDP program takes its frames first.
    pub xdp: bool,
    /// How often its carrier came and went.
    pub carrier_changes: u32,
}

impl LinkRecord {
    /// The link in an `RTM_NEWLINK` or `RTM_DELLINK` of family AF_UNSPEC.
    pub fn read(message: &Message<'_>) -> Option<Self> {
        let (header, attrs) = message.split()?;
        let header = LinkHeader::read(header);
        if header.family != libc::AF_UNSPEC as u8 {
            return None;
        }
        let mut link = Self {
            index: header.index,
            flags: header.flags,
            ethernet: header.hardware == libc::ARPHRD_ETHER,
            ..Self::default()
        };
        for (kind, value) in attributes(attrs) {
            match kind {
                libc::IFLA_IFNAME => link.name = name(value),
                libc::IFLA_ADDRESS => link.mac = mac(value),
                libc::IFLA_PERM_ADDRESS => link.permanent_mac = mac(value),
                libc::IFLA_MASTER => link.master = number(value).filter(|index| *index != 0),
                libc::IFLA_LINK => link.link = number(value).filter(|index| *index != 0),
                libc::IFLA_LINK_NETNSID => link.namespace = number(value).map(|id| id as i32),
                libc::IFLA_XDP => {
                    link.xdp = first(value, IFLA_XDP_ATTACHED).is_some_and(|mode| mode != [0])
                }
                libc::IFLA_LINKINFO => link.read_info(value),
                libc::IFLA_CARRIER_CHANGES => link.carrier_changes = number(value).unwrap_or(0),
                _ => {}
            }
        }
        Some(link)
    }

    fn read_info(&mut self, info: &[u8]) {
        let short = |value: &[u8]| Some(u16::from_ne_bytes(value.try_into().ok()?));
        self.kind = first(info, libc::IFLA_INFO_KIND)
            .and_then(text)
            .map(Box::from);
        let data = first(info, libc::IFLA_INFO_DATA).unwrap_or(&[]);
        match self.kind.as_deref() {
            Some("bridge") if first(data, IFLA_BR_VLAN_FILTERING).is_some_and(|on| on != [0]) => {
                self.filtering = first(data, IFLA_BR_VLAN_DEFAULT_PVID)
                    .and_then(short)
                    .or(Some(0));
            }
            Some("vlan") => self.vlan = first(data, IFLA_VLAN_ID).and_then(short),
            _ => {}
        }
    }

    /// Whether it is of this kind.
    pub fn is(&self, kind: &str) -> bool {
        self.kind.as_deref() == Some(kind)
    }
}

/// `struct ifinfomsg`.
struct LinkHeader {
    family: u8,
    hardware: u16,
    index: u32,
    flags: u32,
}

impl LinkHeader {
    fn read(bytes: &[u8; 16]) -> Self {
        let [family, _, h1, h2, i1, i2, i3, i4, f1, f2, f3, f4, ..] = *bytes;
        Self {
            family,
            hardware: u16::from_ne_bytes([h1, h2]),
            index: u32::from_ne_bytes([i1, i2, i3, i4]),
            flags: u32::from_ne_bytes([f1, f2, f3, f4]),
        }
    }

    /// The header of a request.
    fn of(family: i32, index: u32) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[0] = family as u8;
        bytes[4..8].copy_from_slice(&index.to_ne_bytes());
        bytes
    }
}

/// A name need not be text (`dev_valid_name`, Linux `net/core/dev.c`); a link with an odd
/// name is a link all the same.
fn name(value: &[u8]) -> Arc<str> {
    let end = value.iter().position(|byte| *byte == 0);
    String::from_utf8_lossy(&value[..end.unwrap_or(value.len())]).into()
}

fn mac(value: &[u8]) -> Option<Mac> {
    Mac::new(value.try_into().ok()?)
}

/// A VLAN that a bridge's port is a member of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortVlan {
    /// The VID.
    pub vid: u16,
    /// Untagged frames that come in are in it.
    pub pvid: bool,
    /// It goes out untagged.
    pub untagged: bool,
}

/// What a bridge says of one of its ports: an `RTM_NEWLINK` or `RTM_DELLINK` of family
/// AF_BRIDGE. The latter says that the port has left, not that the link is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortVlans {
    /// The port.
    pub index: u32,
    /// Its VLANs; a port that is in none is reported without the attribute.
    pub vlans: Vec<PortVlan>,
}

impl PortVlans {
    /// A port, with its VLANs as the kernel lists them: flags (`BRIDGE_VLAN_INFO_…`) and
    /// VID. Two entries may stand for a range.
    pub fn new(index: u32, entries: impl IntoIterator<Item = (u16, u16)>) -> Self {
        let mut vlans = Vec::new();
        let mut begin = None;
        for (flags, vid) in entries {
            // Twelve bits (IEEE 802.1Q §9.6), so that no range can be made long.
            let vid = vid & 0xfff;
            if flags & BRIDGE_VLAN_INFO_RANGE_BEGIN != 0 {
                begin = Some(vid);
                continue;
            }
            vlans.extend((begin.take().unwrap_or(vid)..=vid).map(|vid| PortVlan {
                vid,
                pvid: flags & BRIDGE_VLAN_INFO_PVID != 0,
                untagged: flags & BRIDGE_VLAN_INFO_UNTAGGED != 0,
            }));
        }
        Self { index, vlans }
    }

    /// Whether an attribute of this type (flag bits don't matter) in IFLA_AF_SPEC says that the message is about
    /// something else: the mode of a network card's own switch, or the state of a protocol
    /// (MRP, CFM).
    pub fn is_other(kind: u16) -> bool {
        BRIDGE_OTHER.contains(&(kind & libc::NLA_TYPE_MASK as u16))
    }

    /// Read the message. `None` also for one that is about something else.
    pub fn read(message: &Message<'_>) -> Option<Self> {
        let (header, attrs) = message.split()?;
        let header = LinkHeader::read(header);
        let spec = first(attrs, libc::IFLA_AF_SPEC).unwrap_or(&[]);
        let other = attributes(spec).any(|(kind, _)| Self::is_other(kind));
        let entries = attributes(spec).filter_map(|(kind, value)| match (kind, value) {
            (IFLA_BRIDGE_VLAN_INFO, &[f1, f2, v1, v2]) => {
                Some((u16::from_ne_bytes([f1, f2]), u16::from_ne_bytes([v1, v2])))
            }
            _ => None,
        });
        (header.family == libc::AF_BRIDGE as u8 && !other).then(|| Self::new(header.index, entries))
    }
}

/// An address configured on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressRecord {
    /// The link.
    pub index: u32,
    /// The address.
    pub ip: IpAddr,
    /// `IFA_F_…`.
    pub flags: u32,
    /// The namespace asked for, if the request named one.
    pub namespace: Option<i32>,
}

impl AddressRecord {
    /// The address in an `RTM_NEWADDR` or `RTM_DELADDR`.
    pub fn read(message: &Message<'_>) -> Option<Self> {
        let (header, attrs) = message.split()?;
        let [family, _, flags, _, i1, i2, i3, i4] = *header;
        let ip = |kind| match i32::from(family) {
            libc::AF_INET => Some(IpAddr::from(<[u8; 4]>::try_from(first(attrs, kind)?).ok()?)),
            libc::AF_INET6 => Some(IpAddr::from(
                <[u8; 16]>::try_from(first(attrs, kind)?).ok()?,
            )),
            _ => None,
        };
        Some(Self {
            index: u32::from_ne_bytes([i1, i2, i3, i4]),
            // On a point-to-point link IFA_ADDRESS is the other end's.
            ip: ip(libc::IFA_LOCAL).or_else(|| ip(libc::IFA_ADDRESS))?,
            flags: first(attrs, libc::IFA_FLAGS)
                .and_then(number)
                .unwrap_or(u32::from(flags)),
            namespace: first(attrs, IFA_TARGET_NETNSID)
                .and_then(number)
                .map(|id| id as i32),
        })
    }
}

impl Request {
    /// All links.
    pub fn links() -> Self {
        Self::new(
            libc::RTM_GETLINK,
            libc::NLM_F_DUMP,
            &LinkHeader::of(libc::AF_UNSPEC, 0),
        )
        // What the agent doesn't read needn't be sent: counters cost more than the rest.
        .with(
            libc::IFLA_EXT_MASK,
            &(libc::RTEXT_FILTER_SKIP_STATS as u32).to_ne_bytes(),
        )
    }

    /// The VLANs of all bridges' ports.
    pub fn port_vlans() -> Self {
        Self::new(
            libc::RTM_GETLINK,
            libc::NLM_F_DUMP,
            &LinkHeader::of(libc::AF_BRIDGE, 0),
        )
        .with(
            libc::IFLA_EXT_MASK,
            &(libc::RTEXT_FILTER_BRVLAN_COMPRESSED as u32).to_ne_bytes(),
        )
    }

    /// One link.
    pub fn link(index: u32) -> Self {
        Self::new(
            libc::RTM_GETLINK,
            libc::NLM_F_ACK,
            &LinkHeader::of(libc::AF_UNSPEC, index),
        )
        .with(
            libc::IFLA_EXT_MASK,
            &(libc::RTEXT_FILTER_SKIP_STATS as u32).to_ne_bytes(),
        )
    }

    /// All addresses of a family (`AF_UNSPEC`: of all families), of another namespace if
    /// one is named by its id here.
    pub fn addresses(family: i32, namespace: Option<i32>) -> Self {
        let mut header = [0; 8];
        header[0] = family as u8;
        let request = Self::new(libc::RTM_GETADDR, libc::NLM_F_DUMP, &header);
        match namespace {
            None => request,
            Some(id) => request.with(IFA_TARGET_NETNSID, &id.to_ne_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_vlans_is_two_entries() {
        let pvid = BRIDGE_VLAN_INFO_PVID | BRIDGE_VLAN_INFO_UNTAGGED;
        let entries = [
            (pvid, 1),
            (BRIDGE_VLAN_INFO_RANGE_BEGIN, 100),
            (1 << 4, 103),
        ];
        let vlans = PortVlans::new(7, entries).vlans;
        let vids: Vec<_> = vlans.iter().map(|v| (v.vid, v.pvid, v.untagged)).collect();
        assert_eq!(
            vids,
            [
                (1, true, true),
                (100, false, false),
                (101, false, false),
                (102, false, false),
                (103, false, false)
            ]
        );
    }

    #[test]
    fn a_range_that_ends_before_it_begins_is_empty() {
        let entries = [(BRIDGE_VLAN_INFO_RANGE_BEGIN, 4095), (1 << 4, 3)];
        assert!(PortVlans::new(7, entries).vlans.is_empty());
    }
}
