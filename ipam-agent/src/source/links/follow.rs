//! What is known of the host's links, kept by what the kernel says. It reads datagrams and
//! makes requests; it does no I/O.

use std::{collections::BTreeSet, io, mem, net::IpAddr, sync::Arc};

use super::{LinkEvent, LinksError, NameFilter, topology::Records};
use crate::{
    engine::segment::Topology,
    netlink::{AddressRecord, LinkRecord, Message, PortVlans, Request, messages},
};

/// `RTM_…` of this family that the libc crate doesn't have.
const RTM_NEWVLAN: u16 = 112;
const RTM_DELVLAN: u16 = 113;
/// The qdisc `clsact` or `ingress` (`TC_H_INGRESS`), and what hangs on it.
const INGRESS: u32 = 0xffff_0000;
const MAJOR: u32 = 0xffff_0000;

/// A table that can be dumped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Table {
    Links,
    Vlans,
    Addresses,
}

/// An entry of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Link(u32),
    Vlans(u32),
    Address(u32, IpAddr),
}

/// A dump under way.
#[derive(Debug)]
struct Dump {
    table: Table,
    sequence: u32,
    /// What was known when it began and nothing has spoken of since: gone, if it stays so.
    unheard: BTreeSet<Key>,
    consistent: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Follower {
    filter: NameFilter,
    records: Records,
    due: BTreeSet<Table>,
    dump: Option<Dump>,
    sequence: u32,
    /// All tables have been dumped since the start.
    complete: bool,
    /// Something changed since the topology was last made.
    dirty: bool,
    /// What was told last; `None`: nothing yet.
    topology: Option<Arc<Topology>>,
    lost: bool,
    touched: BTreeSet<u32>,
}

impl Follower {
    pub(super) fn new(filter: NameFilter) -> Self {
        Self {
            filter,
            records: Records::default(),
            due: [Table::Links, Table::Vlans, Table::Addresses].into(),
            dump: None,
            sequence: 0,
            complete: false,
            dirty: false,
            topology: None,
            lost: false,
            touched: BTreeSet::new(),
        }
    }

    /// Whether an answer is awaited.
    pub(super) fn dumping(&self) -> bool {
        self.dump.is_some()
    }

    /// The kernel dropped notifications.
    pub(super) fn overrun(&mut self) {
        self.lost = true;
        self.due = [Table::Links, Table::Vlans, Table::Addresses].into();
    }

    /// What to ask now, with its sequence number. One dump at a time: the kernel refuses a
    /// second one on the same socket.
    pub(super) fn request(&mut self) -> Option<(Request, u32)> {
        if self.dump.is_some() {
            return None;
        }
        let table = self.due.pop_first()?;
        self.sequence = self.sequence.wrapping_add(1).max(1);
        let records = &self.records;
        let (request, unheard) = match table {
            Table::Links => (
                Request::links(),
                records
                    .links
                    .keys()
                    .map(|index| Key::Link(*index))
                    .collect(),
            ),
            Table::Vlans => (
                Request::port_vlans(),
                records
                    .vlans
                    .keys()
                    .map(|index| Key::Vlans(*index))
                    .collect(),
            ),
            Table::Addresses => (
                Request::addresses(libc::AF_UNSPEC, None),
                records
                    .addresses
                    .keys()
                    .map(|(index, ip)| Key::Address(*index, *ip))
                    .collect(),
            ),
        };
        self.dump = Some(Dump {
            table,
            sequence: self.sequence,
            unheard,
            consistent: true,
        });
        Some((request, self.sequence))
    }

    /// The next thing to tell.
    pub(super) fn event(&mut self) -> Option<LinkEvent> {
        if mem::take(&mut self.lost) {
            return Some(LinkEvent::Lost);
        }
        if self.complete && mem::take(&mut self.dirty) {
            let topology = self.records.topology(&self.filter);
            if self.topology.as_deref() != Some(&topology) {
                let topology = Arc::new(topology);
                self.topology = Some(Arc::clone(&topology));
                return Some(LinkEvent::Topology(topology));
            }
        }
        self.touched.pop_first().map(LinkEvent::Touched)
    }

    /// Read a datagram: notifications, and answers to the dump under way.
    pub(super) fn read(&mut self, datagram: &[u8]) -> Result<(), LinksError> {
        for message in messages(datagram) {
            if let Some(dump) = &mut self.dump
                && message.sequence == dump.sequence
            {
                dump.consistent &= message.flags & libc::NLM_F_DUMP_INTR as u16 == 0;
            }
            match i32::from(message.kind) {
                libc::NLMSG_ERROR | libc::NLMSG_DONE => self.finish(&message)?,
                _ => self.learn(&message),
            }
        }
        Ok(())
    }

    fn finish(&mut self, message: &Message<'_>) -> Result<(), LinksError> {
        let Some(dump) = self.dump.take_if(|dump| dump.sequence == message.sequence) else {
            return Ok(());
        };
        match message.errno() {
            0 => {}
            errno => return Err(LinksError::Refused(io::Error::from_raw_os_error(errno))),
        }
        if !dump.consistent {
            self.due.insert(dump.table);
            return Ok(());
        }
        for key in dump.unheard {
            self.forget(key);
        }
        if self.due.is_empty() && !self.complete {
            self.complete = true;
            self.dirty = true;
        }
        Ok(())
    }

    fn learn(&mut self, message: &Message<'_>) {
        match message.kind {
            libc::RTM_NEWLINK => {
                if let Some(link) = LinkRecord::read(message) {
                    self.learn_link(link);
                } else if let Some(port) = PortVlans::read(message) {
                    self.heard(Key::Vlans(port.index));
                    self.dirty |= self.records.vlans.get(&port.index) != Some(&port.vlans);
                    self.records.vlans.insert(port.index, port.vlans);
                }
            }
            libc::RTM_DELLINK => {
                if let Some(link) = LinkRecord::read(message) {
                    self.forget(Key::Link(link.index));
                } else if let Some(port) = PortVlans::read(message) {
                    self.forget(Key::Vlans(port.index));
                }
            }
            libc::RTM_NEWADDR => {
                if let Some(address) = AddressRecord::read(message) {
                    self.heard(Key::Address(address.index, address.ip));
                    let known = self
                        .records
                        .addresses
                        .insert((address.index, address.ip), address.flags);
                    self.dirty |= known != Some(address.flags);
                }
            }
            libc::RTM_DELADDR => {
                if let Some(address) = AddressRecord::read(message) {
                    self.forget(Key::Address(address.index, address.ip));
                }
            }
            // The default PVID of a bridge changes its ports' VLANs and says so here alone.
            RTM_NEWVLAN | RTM_DELVLAN => {
                self.due.insert(Table::Vlans);
            }
            libc::RTM_NEWQDISC | libc::RTM_DELQDISC => self.learn_filter(message, |tc| tc.handle),
            libc::RTM_NEWTFILTER | libc::RTM_DELTFILTER => {
                self.learn_filter(message, |tc| tc.parent)
            }
            _ => {}
        }
    }

    fn learn_link(&mut self, link: LinkRecord) {
        let index = link.index;
        self.heard(Key::Link(index));
        let known = self.records.links.get(&index);
        if known == Some(&link) {
            return;
        }
        if known.is_some_and(|known| known.xdp != link.xdp) {
            self.touched.insert(index);
        }
        self.dirty = true;
        self.records.links.insert(index, link);
    }

    fn learn_filter(&mut self, message: &Message<'_>, place: fn(&TcHeader) -> u32) {
        if let Some(tc) = TcHeader::read(message)
            && place(&tc) & MAJOR == INGRESS
            && self.records.links.contains_key(&tc.index)
        {
            self.touched.insert(tc.index);
        }
    }

    fn heard(&mut self, key: Key) {
        if let Some(dump) = &mut self.dump {
            dump.unheard.remove(&key);
        }
    }

    fn forget(&mut self, key: Key) {
        self.heard(key);
        self.dirty |= match key {
            Key::Link(index) => {
                self.touched.remove(&index);
                self.records.links.remove(&index).is_some()
            }
            Key::Vlans(index) => self.records.vlans.remove(&index).is_some(),
            Key::Address(index, ip) => self.records.addresses.remove(&(index, ip)).is_some(),
        };
    }
}

/// `struct tcmsg` (Linux `include/uapi/linux/rtnetlink.h`).
struct TcHeader {
    index: u32,
    handle: u32,
    parent: u32,
}

impl TcHeader {
    fn read(message: &Message<'_>) -> Option<Self> {
        let (
            [
                _,
                _,
                _,
                _,
                i1,
                i2,
                i3,
                i4,
                h1,
                h2,
                h3,
                h4,
                p1,
                p2,
                p3,
                p4,
                ..,
            ],
            _,
        ) = message.split::<20>()?;
        Some(Self {
            index: u32::from_ne_bytes([*i1, *i2, *i3, *i4]),
            handle: u32::from_ne_bytes([*h1, *h2, *h3, *h4]),
            parent: u32::from_ne_bytes([*p1, *p2, *p3, *p4]),
        })
    }
}

#[cfg(test)]
mod tests;
