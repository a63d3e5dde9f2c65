//! The addresses configured behind the host's veths: the strongest local proof that an
//! address has a holder.
//!
//! It asks through netlink, with NET_ADMIN alone: which namespace a veth's peer is in
//! (IFLA_LINK_NETNSID), and which addresses that namespace has (IFA_TARGET_NETNSID). It
//! enters no namespace and needs no mount. An answer is whole or it is an error: what
//! could not be asked is never reported as empty.

use std::{
    collections::{BTreeMap, BTreeSet},
    thread::sleep,
    time::{Duration, Instant},
};

use ipam_common::Address;
use thiserror::Error;

use crate::{
    engine::evidence::Held,
    netlink::{AddressRecord, LinkRecord, Netlink, NetlinkError, Request},
};

/// How long all of the questions may take together.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a namespace may take to die, with its veths still there and nobody in it.
const DYING: Duration = Duration::from_secs(1);
/// When to look again whether it is gone.
const PAUSE: Duration = Duration::from_millis(10);

/// Why it isn't known what is configured behind the veths.
#[derive(Debug, Error)]
pub enum NamespacesError {
    /// The host's links could not be listed.
    #[error("the host's links can't be listed by netlink")]
    Links(#[source] NetlinkError),
    /// This host's own addresses could not be listed.
    #[error("this host's own addresses can't be listed by netlink")]
    Own(#[source] NetlinkError),
    /// A veth's peer is in a namespace that has no id here.
    #[error(
        "the namespace behind {link} has no id on this host, so its addresses can't be asked for"
    )]
    NoId {
        /// The veth.
        link: String,
    },
    /// A namespace's addresses could not be listed.
    #[error("the addresses behind {link} can't be listed by netlink (CAP_NET_ADMIN is needed)")]
    Addresses {
        /// One of the veths that lead there.
        link: String,
        /// Why.
        #[source]
        source: NetlinkError,
    },
    /// The kernel answered for another namespace.
    #[error(
        "asked for the addresses behind {link}, the kernel answered with this host's; Linux 4.20 is needed"
    )]
    WrongNamespace {
        /// One of the veths that lead there.
        link: String,
    },
}

impl NamespacesError {
    /// Whether this is how the kernel answers for a namespace that is being taken down: its
    /// id is gone or leads nowhere (`rtnl_get_net_ns_capable`), and its veths soon are.
    fn may_be_dying(&self) -> bool {
        match self {
            Self::NoId { .. } => true,
            Self::Addresses { source, .. } => source.refusal() == Some(libc::EINVAL),
            Self::Links(_) | Self::Own(_) | Self::WrongNamespace { .. } => false,
        }
    }
}

/// Every address, of whatever scope and state, that is configured in a namespace which a
/// veth of this host leads to; of the namespace's loopback only what can be claimed.
///
/// Blocks for 2 s at most. A veth whose peer is in this namespace has nothing behind it; a
/// namespace that vanishes meanwhile holds nothing.
///
/// # Errors
///
/// If any of the namespaces could not be asked.
pub fn addresses_behind_veths() -> Result<Vec<Held>, NamespacesError> {
    let begin = Instant::now();
    let mut netlink = Netlink::open(PATIENCE).map_err(NamespacesError::Links)?;
    let mut held = BTreeSet::new();
    let mut answered = BTreeSet::new();
    loop {
        let mut unanswered = None;
        for (namespace, veths) in namespaces(&mut netlink)? {
            if answered.contains(&namespace) {
                continue;
            }
            match addresses(&mut netlink, namespace, &veths[0].name) {
                Ok(addresses) => {
                    answered.insert(namespace);
                    held.extend(
                        addresses
                            .iter()
                            .filter_map(|address| behind(address, &veths)),
                    );
                }
                Err(error) if error.may_be_dying() => unanswered = Some(error),
                Err(error) => return Err(error),
            }
        }
        match unanswered {
            None => return Ok(held.into_iter().collect()),
            Some(error) if begin.elapsed() > DYING => return Err(error),
            Some(_) => sleep(PAUSE),
        }
    }
}

/// Every address of this host itself, on whatever link and in whatever state. Blocks for 2 s
/// at most.
///
/// # Errors
///
/// If the kernel could not be asked.
pub fn own_addresses() -> Result<BTreeSet<Address>, NamespacesError> {
    let mut netlink = Netlink::open(PATIENCE).map_err(NamespacesError::Own)?;
    let mut own = BTreeSet::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        let request = Request::addresses(family, None);
        let found = netlink
            .dump(&request, |message| AddressRecord::read(&message))
            .map_err(NamespacesError::Own)?;
        own.extend(found.iter().filter_map(|of| Address::from_ip(of.ip)));
    }
    Ok(own)
}

fn behind(record: &AddressRecord, veths: &[LinkRecord]) -> Option<Held> {
    let veth = veths.iter().find(|veth| veth.link == Some(record.index));
    Some(Held {
        address: Address::from_ip(record.ip)?,
        ifindex: veth.map(|veth| veth.index),
    })
}

/// The namespaces behind the veths, by their id here.
fn namespaces(netlink: &mut Netlink) -> Result<BTreeMap<i32, Vec<LinkRecord>>, NamespacesError> {
    let links = netlink
        .dump(&Request::links(), |message| LinkRecord::read(&message))
        .map_err(NamespacesError::Links)?;
    let mut namespaces = BTreeMap::<_, Vec<_>>::new();
    for link in links {
        if let (true, Some(id)) = (link.is("veth") || link.is("netkit"), link.namespace) {
            namespaces.entry(id).or_default().push(link);
        }
    }
    Ok(namespaces)
}

fn addresses(
    netlink: &mut Netlink,
    namespace: i32,
    link: &str,
) -> Result<Vec<AddressRecord>, NamespacesError> {
    if namespace < 0 {
        return Err(NamespacesError::NoId {
            link: link.to_owned(),
        });
    }
    let mut all = Vec::new();
    // Not AF_UNSPEC: other families (MCTP, Phonet) don't know about namespaces' ids.
    for family in [libc::AF_INET, libc::AF_INET6] {
        let request = Request::addresses(family, Some(namespace));
        let found = netlink
            .dump(&request, |message| AddressRecord::read(&message))
            .map_err(|source| NamespacesError::Addresses {
                link: link.to_owned(),
                source,
            })?;
        if found
            .iter()
            .any(|record| record.namespace != Some(namespace))
        {
            return Err(NamespacesError::WrongNamespace {
                link: link.to_owned(),
            });
        }
        all.extend(found);
    }
    Ok(all)
}
