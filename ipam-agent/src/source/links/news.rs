//! One message of the kernel's, read; and what the agent asks it. Pure.
//!
//! `netlink-packet-route` types every attribute, and gives up a whole message for a single
//! one that it can't decode: an enum with a new value, a name that isn't UTF-8. A link lost
//! that way would be a port that nobody watches. So what it refuses is read a second time
//! by [`crate::netlink`], which skips the attribute that doesn't fit. Nothing that speaks
//! of a link, a bridge's port or an address is passed over.

use std::{convert::Infallible, net::IpAddr};

use ipam_common::Mac;
use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage,
    NetlinkPayload, NetlinkSerializable, Nla,
};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    link::{
        AfSpecBridge, InfoBridge, InfoData, InfoVlan, LinkAttribute, LinkExtentMask, LinkInfo,
        LinkLayerType, LinkMessage, LinkXdp, XdpAttached,
    },
    tc::{TcHandle, TcHeader},
};

use super::Touch;
use crate::{
    netlink::{AddressRecord, LinkRecord, Message, PortVlans},
    source::live::may_come_first,
};

/// `RTM_…` of this family that the libc crate doesn't have.
const RTM_NEWVLAN: u16 = 112;
const RTM_DELVLAN: u16 = 113;

/// What a message says, or asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// A question of the agent's.
    Question(RouteNetlinkMessage),
    /// A link is there, or is changed.
    Link(LinkRecord),
    /// A link is gone.
    LinkGone(u32),
    /// A bridge's port has these VLANs.
    Port(PortVlans),
    /// A port has left its bridge.
    PortGone(u32),
    /// Some bridge's VLANs are changed.
    VlansChanged,
    /// An address is there, or is changed.
    Address(AddressRecord),
    /// An address is gone.
    AddressGone(u32, IpAddr),
    /// The ingress filters of a link are changed.
    Touched(u32, Touch),
    /// Something else.
    Other,
}

impl NetlinkDeserializable for News {
    type Error = Infallible;

    fn deserialize(header: &NetlinkHeader, body: &[u8]) -> Result<Self, Infallible> {
        let kind = header.message_type;
        let touched = |place: fn(&TcHeader) -> TcHandle| {
            let tc = TcHeader::parse(body).ok();
            let tc = tc.filter(|tc| place(tc).major == TcHandle::INGRESS.major)?;
            u32::try_from(tc.index).ok()
        };
        let news = match kind {
            libc::RTM_NEWQDISC | libc::RTM_DELQDISC => {
                touched(|tc| tc.handle).map(|index| Self::Touched(index, Touch::Shown))
            }
            libc::RTM_NEWTFILTER | libc::RTM_DELTFILTER => touched(|tc| tc.parent).map(|index| {
                let touch = match may_come_first(&message(kind, body)) {
                    true => Touch::Filter,
                    false => Touch::Shown,
                };
                Self::Touched(index, touch)
            }),
            // The default PVID of a bridge changes its ports' VLANs and says so here alone.
            RTM_NEWVLAN | RTM_DELVLAN => Some(Self::VlansChanged),
            libc::RTM_NEWLINK | libc::RTM_DELLINK | libc::RTM_NEWADDR | libc::RTM_DELADDR => {
                match RouteNetlinkMessage::deserialize(header, body) {
                    Ok(message) => typed(message),
                    Err(_) => untyped(kind, body),
                }
            }
            _ => None,
        };
        Ok(news.unwrap_or(Self::Other))
    }
}

impl NetlinkSerializable for News {
    fn message_type(&self) -> u16 {
        match self {
            Self::Question(message) => message.message_type(),
            _ => libc::NLMSG_NOOP as u16,
        }
    }

    fn buffer_len(&self) -> usize {
        match self {
            Self::Question(message) => NetlinkSerializable::buffer_len(message),
            _ => 0,
        }
    }

    fn serialize(&self, buffer: &mut [u8]) {
        if let Self::Question(message) = self {
            message.serialize(buffer);
        }
    }
}

/// Ask for all links.
pub(super) fn links() -> NetlinkMessage<News> {
    // What the agent doesn't read needn't be sent: counters cost more than the rest.
    link_question(AddressFamily::Unspec, LinkExtentMask::SkipStats)
}

/// Ask for the VLANs of all bridges' ports.
pub(super) fn port_vlans() -> NetlinkMessage<News> {
    link_question(AddressFamily::Bridge, LinkExtentMask::BrvlanCompressed)
}

/// Ask for all addresses.
pub(super) fn addresses() -> NetlinkMessage<News> {
    question(RouteNetlinkMessage::GetAddress(AddressMessage::default()))
}

fn link_question(family: AddressFamily, extent: LinkExtentMask) -> NetlinkMessage<News> {
    let mut message = LinkMessage::default();
    message.header.interface_family = family;
    message.attributes = vec![LinkAttribute::ExtMask(vec![extent])];
    question(RouteNetlinkMessage::GetLink(message))
}

fn question(message: RouteNetlinkMessage) -> NetlinkMessage<News> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    NetlinkMessage::new(
        header,
        NetlinkPayload::InnerMessage(News::Question(message)),
    )
}

fn typed(message: RouteNetlinkMessage) -> Option<News> {
    match message {
        RouteNetlinkMessage::NewLink(message) => match message.header.interface_family {
            AddressFamily::Unspec => Some(News::Link(link(message))),
            AddressFamily::Bridge => port(&message).map(News::Port),
            _ => None,
        },
        RouteNetlinkMessage::DelLink(message) => match message.header.interface_family {
            AddressFamily::Unspec => Some(News::LinkGone(message.header.index)),
            AddressFamily::Bridge => port(&message).map(|port| News::PortGone(port.index)),
            _ => None,
        },
        RouteNetlinkMessage::NewAddress(message) => address(&message).map(News::Address),
        RouteNetlinkMessage::DelAddress(message) => {
            address(&message).map(|address| News::AddressGone(address.index, address.ip))
        }
        _ => None,
    }
}

fn message(kind: u16, body: &[u8]) -> Message<'_> {
    Message {
        kind,
        flags: 0,
        sequence: 0,
        body,
    }
}

/// Read what `netlink-packet-route` refused.
fn untyped(kind: u16, body: &[u8]) -> Option<News> {
    let message = message(kind, body);
    let link = || LinkRecord::read(&message);
    let port = || PortVlans::read(&message);
    let address = || AddressRecord::read(&message);
    match kind {
        libc::RTM_NEWLINK => link().map(News::Link).or_else(|| port().map(News::Port)),
        libc::RTM_DELLINK => link()
            .map(|link| News::LinkGone(link.index))
            .or_else(|| port().map(|port| News::PortGone(port.index))),
        libc::RTM_NEWADDR => address().map(News::Address),
        libc::RTM_DELADDR => address().map(|gone| News::AddressGone(gone.index, gone.ip)),
        _ => None,
    }
}

fn link(message: LinkMessage) -> LinkRecord {
    let mut link = LinkRecord {
        index: message.header.index,
        flags: message.header.flags.bits(),
        ethernet: message.header.link_layer_type == LinkLayerType::Ether,
        ..LinkRecord::default()
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name.into(),
            LinkAttribute::Address(bytes) => link.mac = mac(&bytes),
            LinkAttribute::PermAddress(bytes) => link.permanent_mac = mac(&bytes),
            LinkAttribute::Controller(index) => link.master = Some(index).filter(|i| *i != 0),
            LinkAttribute::Link(index) => link.link = Some(index).filter(|i| *i != 0),
            LinkAttribute::LinkNetNsId(id) => link.namespace = Some(id),
            LinkAttribute::CarrierChanges(count) => link.carrier_changes = count,
            LinkAttribute::Xdp(attributes) => {
                link.xdp = attributes.iter().any(|attribute| {
                    matches!(attribute, LinkXdp::Attached(mode) if *mode != XdpAttached::None)
                });
            }
            LinkAttribute::LinkInfo(infos) => infos.into_iter().for_each(|i| info(&mut link, i)),
            _ => {}
        }
    }
    link
}

fn info(link: &mut LinkRecord, info: LinkInfo) {
    match info {
        LinkInfo::Kind(kind) => link.kind = Some(kind.to_string().into()),
        LinkInfo::Data(InfoData::Vlan(data)) => {
            link.vlan = data.iter().find_map(|info| match info {
                InfoVlan::Id(vid) => Some(*vid),
                _ => None,
            });
        }
        LinkInfo::Data(InfoData::Bridge(data))
            if data.contains(&InfoBridge::VlanFiltering(true)) =>
        {
            let pvid = data.iter().find_map(|info| match info {
                InfoBridge::VlanDefaultPvid(vid) => Some(*vid),
                _ => None,
            });
            link.filtering = pvid.or(Some(0));
        }
        _ => {}
    }
}

/// `None` for a message that is about something else, as [`PortVlans::read`].
fn port(message: &LinkMessage) -> Option<PortVlans> {
    let spec = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::AfSpecBridge(spec) => Some(spec.as_slice()),
            _ => None,
        });
    let spec = spec.unwrap_or(&[]);
    if spec
        .iter()
        .any(|attribute| PortVlans::is_other(attribute.kind()))
    {
        return None;
    }
    let entries = spec.iter().filter_map(|attribute| match attribute {
        AfSpecBridge::VlanInfo(vlan) => Some((vlan.flags.bits(), vlan.vid)),
        _ => None,
    });
    Some(PortVlans::new(message.header.index, entries))
}

fn address(message: &AddressMessage) -> Option<AddressRecord> {
    let find =
        |pick: fn(&AddressAttribute) -> Option<IpAddr>| message.attributes.iter().find_map(pick);
    let local = find(|attribute| match attribute {
        AddressAttribute::Local(ip) => Some(*ip),
        _ => None,
    });
    // On a point-to-point link IFA_ADDRESS is the other end's.
    let ip = local.or_else(|| {
        find(|attribute| match attribute {
            AddressAttribute::Address(ip) => Some(*ip),
            _ => None,
        })
    })?;
    let flags = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            AddressAttribute::Flags(flags) => Some(flags.bits()),
            _ => None,
        });
    Some(AddressRecord {
        index: message.header.index,
        ip,
        flags: flags.unwrap_or(u32::from(message.header.flags.bits())),
        namespace: None,
    })
}

fn mac(bytes: &[u8]) -> Option<Mac> {
    Mac::new(bytes.try_into().ok()?)
}

#[cfg(test)]
mod tests;
