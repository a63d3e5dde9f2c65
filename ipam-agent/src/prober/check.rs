//! Is an address free? What a machine does before it takes one, without taking it.

use std::{
    net::{IpAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use ipam_common::{Address, sighting::Tags};

use super::{
    Heard, Look, Outlet, ProbeError, Prober, Schedule,
    frame::solicited_node,
    host::{Host, Link},
};

/// Who has the address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum User {
    /// This host, on the interface of this name.
    ThisHost(String),
    /// A machine on the wire, that asserts it or probes for it.
    Other(Heard),
}

/// What a check found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// Who has the address; `None`: it is free.
    pub user: Option<User>,
    /// How often it was to be asked for.
    pub questions: u32,
    /// How long the look was to take.
    pub length: Duration,
}

/// Looks out of an interface whether anybody has the address or tries to get it, by RFC 5227
/// §2.1.1 or RFC 4862 §5.4. With `within` all times are scaled down to end by then.
///
/// # Errors
/// It can't be looked, or not to the end; nothing was found out.
pub async fn check(
    interface: &str,
    address: Address,
    within: Option<Duration>,
) -> Result<Checked, ProbeError> {
    let host = Host::look().await?;
    let link = host.named(interface);
    let link = link.ok_or_else(|| ProbeError::NoInterface(interface.to_owned()))?;
    let schedule = Schedule::detection(address, within, fastrand::f64);
    let mut checked = Checked {
        user: None,
        questions: schedule.questions(),
        length: schedule.length(),
    };
    if let Some(own) = host.owner(address.ip()) {
        checked.user = Some(User::ThisHost(own.to_owned()));
        return Ok(checked);
    }
    link.usable()?;
    let _member = join(link, address);
    let look = Look {
        outlet: Outlet {
            ifindex: link.ifindex,
            tags: Tags::default(),
        },
        address,
        asker: None,
        schedule,
        own_macs: Arc::new(host.macs()),
    };
    let heard = Prober::default().look(&look).await?;
    checked.user = heard.map(User::Other);
    Ok(checked)
}

/// Joins the address's solicited-node group for as long as the socket lives (RFC 4862
/// §5.4.2): else a network card, and a switch that snoops MLD, may keep the probes of others
/// from us. Where it can't be joined, IPv6 being off there, what does come is still heard.
fn join(link: &Link, address: Address) -> Option<UdpSocket> {
    let IpAddr::V6(address) = address.ip() else {
        return None;
    };
    let socket = UdpSocket::bind("[::]:0").ok()?;
    let group = solicited_node(address);
    socket.join_multicast_v6(&group, link.ifindex).ok()?;
    Some(socket)
}
