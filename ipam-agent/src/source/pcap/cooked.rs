//! Linux cooked captures, as `tcpdump -i any` writes them: a header of the kernel's in
//! place of Ethernet's (<https://www.tcpdump.org/linktypes/LINKTYPE_LINUX_SLL.html>, and
//! `…_SLL2.html`). It has the sender's address and no destination, but how the frame was
//! addressed. libpcap puts a VLAN tag that the kernel stripped back into version 1 only.

use ipam_common::frame::Frame;

const V1_LENGTH: usize = 16;
const V2_LENGTH: usize = 20;
const ETHERNET_LENGTH: usize = 14;
/// ARPHRD_ETHER.
const ETHERNET: [u8; 2] = [0, 1];
const ARP: [u8; 2] = [8, 6];
const IPV6: [u8; 2] = [0x86, 0xdd];
const VLANS: [[u8; 2]; 2] = [[0x81, 0x00], [0x88, 0xa8]];

/// To whom a frame was addressed (`PACKET_HOST`, …).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Addressed {
    Unicast,
    Broadcast,
    Multicast,
    /// Sent by the host that captured, or passed on by it.
    Outgoing,
}

/// A frame of a cooked capture, with the Ethernet header that it had, as far as it is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cooked<'a> {
    header: [u8; ETHERNET_LENGTH],
    payload: &'a [u8],
    /// By which interface, of the host's numbers; version 1 doesn't say.
    pub(super) ifindex: Option<u32>,
    addressed: Addressed,
}

impl<'a> Cooked<'a> {
    /// `None` for a frame of a link that is no Ethernet, or too short to say.
    pub(super) fn v1(bytes: &'a [u8]) -> Option<Self> {
        let (header, payload) = bytes.split_first_chunk::<V1_LENGTH>()?;
        let [k0, k1, h0, h1, l0, l1, source @ .., _, _, p0, p1] = *header;
        let kind = u8::try_from(u16::from_be_bytes([k0, k1])).ok()?;
        let length = u16::from_be_bytes([l0, l1]);
        Self::new(kind, [h0, h1], length, source, [p0, p1], None, payload)
    }

    /// The same.
    pub(super) fn v2(bytes: &'a [u8]) -> Option<Self> {
        let (header, payload) = bytes.split_first_chunk::<V2_LENGTH>()?;
        let [
            p0,
            p1,
            _,
            _,
            i0,
            i1,
            i2,
            i3,
            h0,
            h1,
            kind,
            length,
            source @ ..,
            _,
            _,
        ] = *header;
        let ifindex = Some(u32::from_be_bytes([i0, i1, i2, i3]));
        let length = length.into();
        Self::new(kind, [h0, h1], length, source, [p0, p1], ifindex, payload)
    }

    fn new(
        kind: u8,
        hardware: [u8; 2],
        length: u16,
        source: [u8; 6],
        protocol: [u8; 2],
        ifindex: Option<u32>,
        payload: &'a [u8],
    ) -> Option<Self> {
        if hardware != ETHERNET || length != 6 {
            return None;
        }
        let addressed = match kind {
            0 | 3 => Addressed::Unicast,
            1 => Addressed::Broadcast,
            2 => Addressed::Multicast,
            4 => Addressed::Outgoing,
            _ => return None,
        };
        let mut header = [0; ETHERNET_LENGTH];
        header[..6].copy_from_slice(&destination(addressed, protocol, payload));
        header[6..12].copy_from_slice(&source);
        header[12..].copy_from_slice(&protocol);
        Some(Self {
            header,
            payload,
            ifindex,
            addressed,
        })
    }

    /// Whether the host that captured sent it, or passed it on.
    pub(super) fn is_outgoing(&self) -> bool {
        self.addressed == Addressed::Outgoing
    }

    /// Whether it came in and was sent to one station.
    pub(super) fn is_to_one(&self) -> bool {
        self.addressed == Addressed::Unicast
    }
}

/// Where it went, as far as that can be known: all zero, which is no station's, where it
/// can't. A unicast ARP packet went to its target hardware address. Of Neighbor Discovery
/// only the station's address is known: a MAC that nobody has stands for it, so that two
/// answers to one station are seen to be.
fn destination(addressed: Addressed, protocol: [u8; 2], payload: &[u8]) -> [u8; 6] {
    match addressed {
        Addressed::Broadcast => [0xff; 6],
        Addressed::Multicast => [0x33, 0x33, 0, 0, 0, 0],
        Addressed::Outgoing => [0; 6],
        Addressed::Unicast => {
            let (mut protocol, mut payload) = (protocol, payload);
            while VLANS.contains(&protocol)
                && let Some(([_, _, p0, p1], rest)) = payload.split_first_chunk()
            {
                (protocol, payload) = ([*p0, *p1], rest);
            }
            let to = match protocol {
                ARP => payload.get(18..).and_then(<[u8]>::first_chunk).copied(),
                IPV6 => payload
                    .get(24..)
                    .and_then(<[u8]>::first_chunk)
                    .map(stand_in),
                _ => None,
            };
            to.unwrap_or_default()
        }
    }
}

/// A locally administered MAC, folded of an IPv6 address.
fn stand_in(address: &[u8; 16]) -> [u8; 6] {
    let mut mac = [0; 6];
    for (place, byte) in address.iter().rev().enumerate() {
        mac[place % 6] ^= byte;
    }
    mac[0] = mac[0] & !0b11 | 0b10;
    mac
}

impl Frame for Cooked<'_> {
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        if let Some(behind) = offset.checked_sub(ETHERNET_LENGTH) {
            return self.payload.get(behind..)?.first_chunk().copied();
        }
        let mut bytes = self.header[offset..].iter().chain(self.payload);
        let mut read = [0; N];
        for byte in &mut read {
            *byte = *bytes.next()?;
        }
        Some(read)
    }

    fn length(&self) -> usize {
        ETHERNET_LENGTH + self.payload.len()
    }

    fn stripped_tag(&self) -> Option<u16> {
        None
    }
}
