//! This host's interfaces and addresses as they are now: getifaddrs(3), which needs no
//! privilege, blocks on netlink, and is the one safe source of the address that binds an
//! AF_PACKET socket to an interface.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
};

use ipam_common::Mac;
use nix::{
    ifaddrs::getifaddrs,
    net::if_::InterfaceFlags,
    sys::socket::{LinkAddr, SockaddrStorage},
};

use super::ProbeError;

/// One interface.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub ifindex: u32,
    pub name: String,
    pub address: LinkAddr,
    flags: InterfaceFlags,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Host {
    links: BTreeMap<u32, Link>,
    /// Addresses, and the names of the interfaces that have them.
    addresses: Vec<(IpAddr, String)>,
}

impl Host {
    pub(super) async fn look() -> Result<Self, ProbeError> {
        let look = tokio::task::spawn_blocking(|| Ok(Self::of(getifaddrs()?)));
        look.await
            .map_err(io::Error::other)
            .and_then(|looked: io::Result<Self>| looked)
            .map_err(ProbeError::Interfaces)
    }

    fn of(records: nix::ifaddrs::InterfaceAddressIterator) -> Self {
        let mut host = Self::default();
        for record in records {
            let Some(address) = record.address else {
                continue;
            };
            if let Some(&address) = address.as_link_addr() {
                let Ok(ifindex) = u32::try_from(address.ifindex()) else {
                    continue;
                };
                let link = Link {
                    ifindex,
                    name: record.interface_name,
                    address,
                    flags: record.flags,
                };
                host.links.insert(ifindex, link);
            } else if let Some(ip) = ip(&address) {
                host.addresses.push((ip, record.interface_name));
            }
        }
        host
    }

    pub(super) fn take(mut self, ifindex: u32) -> Option<Link> {
        self.links.remove(&ifindex)
    }

    pub(super) fn get(&self, ifindex: u32) -> Option<&Link> {
        self.links.get(&ifindex)
    }

    pub(super) fn named(&self, name: &str) -> Option<&Link> {
        self.links.values().find(|link| link.name == name)
    }

    /// The interface that has this address.
    pub(super) fn owner(&self, address: IpAddr) -> Option<&str> {
        let owner = self.addresses.iter().find(|(ip, _)| *ip == address);
        owner.map(|(_, name)| name.as_str())
    }

    pub(super) fn macs(&self) -> BTreeSet<Mac> {
        self.links.values().filter_map(Link::mac).collect()
    }
}

impl Link {
    fn mac(&self) -> Option<Mac> {
        Mac::new(self.address.addr()?)
    }

    /// Its MAC, if it is Ethernet's.
    pub(super) fn ethernet(&self) -> Result<Mac, ProbeError> {
        let ethernet = self.address.hatype() == libc::ARPHRD_ETHER;
        let mac = self.mac().filter(|_| ethernet);
        mac.ok_or_else(|| ProbeError::NotEthernet(self.name.clone()))
    }

    /// That frames can go out of it.
    pub(super) fn usable(&self) -> Result<(), ProbeError> {
        self.ethernet()?;
        if !self.flags.contains(InterfaceFlags::IFF_UP) {
            return Err(ProbeError::Down(self.name.clone()));
        }
        // The kernel acts on a carrier up to a second after it came or went.
        let carrier = InterfaceFlags::IFF_LOWER_UP | InterfaceFlags::IFF_RUNNING;
        if !self.flags.contains(carrier) {
            return Err(ProbeError::NoCarrier(self.name.clone()));
        }
        Ok(())
    }
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| v4.ip().into());
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| v6.ip().into()))
}
