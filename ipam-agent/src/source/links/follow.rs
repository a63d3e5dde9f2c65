//! What is known of the host's links, kept by what the kernel says. It reads messages and
//! makes requests; it does no I/O.

use std::{
    collections::{BTreeMap, BTreeSet},
    io, mem,
    net::IpAddr,
    num::NonZero,
    sync::Arc,
};

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};

use super::{
    LinkEvent, LinksError, NameFilter, Touch,
    news::{self, News},
    topology::Records,
};
use crate::{engine::segment::Topology, netlink::LinkRecord};

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
    /// All tables have been dumped since the start.
    complete: bool,
    /// Something changed since the topology was last made.
    dirty: bool,
    /// What was told last.
    topology: Option<Arc<Topology>>,
    lost: bool,
    /// Something was dropped, and not all tables have been dumped since.
    behind: bool,
    /// All that the kernel had for us when it last dropped something has been read. Before,
    /// a notification may speak of a link whose end was dropped.
    drained: bool,
    touched: BTreeMap<u32, Touch>,
}

impl Follower {
    pub(super) fn new(filter: NameFilter) -> Self {
        Self {
            filter,
            records: Records::default(),
            due: [Table::Links, Table::Vlans, Table::Addresses].into(),
            dump: None,
            complete: false,
            dirty: false,
            topology: None,
            lost: false,
            behind: false,
            drained: true,
            touched: BTreeMap::new(),
        }
    }

    /// Whether an answer is awaited.
    pub(super) fn dumping(&self) -> bool {
        self.dump.is_some()
    }

    /// Whether no link can be there of which nothing was read.
    pub(super) fn is_current(&self) -> bool {
        self.complete && self.drained && !self.behind
    }

    /// Nothing is left to be read. Returns whether that is news.
    pub(super) fn drained(&mut self) -> bool {
        !mem::replace(&mut self.drained, true)
    }

    /// The kernel dropped notifications; it says so before it hands out those it kept.
    fn overrun(&mut self) {
        (self.lost, self.behind) = (true, true);
        self.drained = false;
        self.due = [Table::Links, Table::Vlans, Table::Addresses].into();
    }

    /// What to ask now. One dump at a time: the kernel refuses a second one on the same
    /// socket, and so an answer is always the answer to the last request.
    pub(super) fn request(&mut self) -> Option<NetlinkMessage<News>> {
        if self.dump.is_some() || !self.drained {
            return None;
        }
        let table = self.due.pop_first()?;
        let records = &self.records;
        let (request, unheard) = match table {
            Table::Links => (
                news::links(),
                records
                    .links
                    .keys()
                    .map(|index| Key::Link(*index))
                    .collect(),
            ),
            Table::Vlans => (
                news::port_vlans(),
                records
                    .vlans
                    .keys()
                    .map(|index| Key::Vlans(*index))
                    .collect(),
            ),
            Table::Addresses => (
                news::addresses(),
                records
                    .addresses
                    .keys()
                    .map(|(index, ip)| Key::Address(*index, *ip))
                    .collect(),
            ),
        };
        self.dump = Some(Dump {
            table,
            unheard,
            consistent: true,
        });
        Some(request)
    }

    /// The next thing to tell.
    pub(super) fn event(&mut self) -> Option<LinkEvent> {
        // Until then more may be dropped.
        if self.drained && mem::take(&mut self.lost) {
            return Some(LinkEvent::Lost);
        }
        if self.complete && mem::take(&mut self.dirty) {
            let topology = Some(Arc::new(self.records.topology(&self.filter)));
            if topology != self.topology {
                self.topology.clone_from(&topology);
                return topology.map(LinkEvent::Topology);
            }
        }
        let (index, touch) = self.touched.pop_first()?;
        Some(LinkEvent::Touched(index, touch))
    }

    /// Read a message: a notification, or a part of the answer to the dump under way.
    pub(super) fn read(&mut self, message: NetlinkMessage<News>) -> Result<(), LinksError> {
        let (header, payload) = message.into_parts();
        // The kernel sets the flag in answers alone.
        if let Some(dump) = &mut self.dump {
            dump.consistent &= header.flags & libc::NLM_F_DUMP_INTR as u16 == 0;
        }
        match payload {
            NetlinkPayload::InnerMessage(news) => self.learn(news),
            // A refused dump may end with an errno here, and looks empty without it.
            NetlinkPayload::Done(done) => self.finish(done.code)?,
            NetlinkPayload::Error(error) => self.finish(error.code.map_or(0, NonZero::get))?,
            NetlinkPayload::Overrun(_) => self.overrun(),
            _ => {}
        }
        Ok(())
    }

    fn finish(&mut self, code: i32) -> Result<(), LinksError> {
        let Some(dump) = self.dump.take() else {
            return Ok(());
        };
        if code != 0 {
            let error = io::Error::from_raw_os_error(code.saturating_neg());
            return Err(LinksError::Refused(error));
        }
        if !dump.consistent {
            self.due.insert(dump.table);
            return Ok(());
        }
        for key in dump.unheard {
            self.forget(key);
        }
        if self.due.is_empty() {
            self.dirty |= !self.complete;
            (self.complete, self.behind) = (true, false);
        }
        Ok(())
    }

    fn learn(&mut self, news: News) {
        match news {
            News::Link(link) => self.learn_link(link),
            News::LinkGone(index) => self.forget(Key::Link(index)),
            News::Port(port) => {
                self.heard(Key::Vlans(port.index));
                self.dirty |= self.records.vlans.get(&port.index) != Some(&port.vlans);
                self.records.vlans.insert(port.index, port.vlans);
            }
            News::PortGone(index) => self.forget(Key::Vlans(index)),
            News::VlansChanged => {
                self.due.insert(Table::Vlans);
            }
            News::Address(address) => {
                self.heard(Key::Address(address.index, address.ip));
                let known = self
                    .records
                    .addresses
                    .insert((address.index, address.ip), address.flags);
                self.dirty |= known != Some(address.flags);
            }
            News::AddressGone(index, ip) => self.forget(Key::Address(index, ip)),
            News::Touched(index, touch) => self.touch(index, touch),
            News::Question(_) | News::Other => {}
        }
    }

    fn learn_link(&mut self, link: LinkRecord) {
        let index = link.index;
        self.heard(Key::Link(index));
        let known = self.records.links.get(&index);
        if known == Some(&link) {
            return;
        }
        // Beyond a veth without carrier there is nobody.
        let lit = |known: &LinkRecord| known.carrier_changes != link.carrier_changes;
        let lit = known.is_some_and(|known| !link.is("veth") && lit(known));
        let xdp = known.is_some_and(|known| known.xdp != link.xdp);
        if xdp {
            self.touch(index, Touch::Xdp);
        } else if lit {
            self.touch(index, Touch::Shown);
        }
        self.dirty = true;
        self.records.links.insert(index, link);
    }

    /// What is told is the gravest.
    fn touch(&mut self, index: u32, touch: Touch) {
        if self.records.links.contains_key(&index) {
            let told = self.touched.entry(index).or_insert(touch);
            *told = touch.max(*told);
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

#[cfg(test)]
mod tests;
