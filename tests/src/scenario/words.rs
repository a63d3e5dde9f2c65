//! The words of scenarios: names of stations and addresses, and frames.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result, bail};
use ipam_common::{Address, Mac};

use crate::frames::{self, Arp, Nd, flags};

/// Which of the two protocols the frames are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// ARP.
    V4,
    /// Neighbor Discovery.
    V6,
}

impl Family {
    /// The address of a name.
    pub(super) fn address(self, name: &str) -> Result<Address> {
        let ip = match self {
            Self::V4 => v4(name)?.into(),
            Self::V6 => v6(name)?.into(),
        };
        Address::from_ip(ip).with_context(|| format!("{name} is no address"))
    }

    /// The prefix of every address.
    pub(super) fn prefix(self) -> &'static str {
        match self {
            Self::V4 => "10.0.0.0/24",
            Self::V6 => "fd00::/64",
        }
    }

    /// The frame of a line.
    pub(super) fn frame(self, words: &[&str]) -> Result<Vec<u8>> {
        match self {
            Self::V4 => Ok(arp(words)?.frame()),
            Self::V6 => Ok(nd(words)?.frame()),
        }
    }
}

fn arp(words: &[&str]) -> Result<Arp> {
    let of = |name| Ok::<_, anyhow::Error>(mac(name)?.bytes());
    Ok(match *words {
        ["ANN", m, s] => Arp::announcement(of(m)?, v4(s)?),
        ["GREP", m, s] => Arp::gratuitous_reply(of(m)?, v4(s)?),
        ["REQ", m, s, t] => Arp::request(of(m)?, v4(s)?, v4(t)?),
        ["REP", m, s, n, t] => Arp::reply(of(m)?, v4(s)?, of(n)?, v4(t)?),
        ["PROBE", m, t] => Arp::probe(of(m)?, v4(t)?),
        ["UPROBE", m, t, n] => Arp {
            ether_dst: of(n)?,
            ..Arp::probe(of(m)?, v4(t)?)
        },
        _ => bail!("no frame of IPv4"),
    })
}

fn nd(words: &[&str]) -> Result<Nd> {
    let of = |name| Ok::<_, anyhow::Error>(mac(name)?.bytes());
    Ok(match *words {
        ["ANN" | "GREP", m, s] => Nd::advertisement(of(m)?, v6(s)?, flags::OVERRIDE),
        ["REQ", m, s, t] => Nd::solicitation(of(m)?, v6(s)?, v6(t)?),
        ["REP", m, s, n, t] => {
            let said = flags::OVERRIDE | flags::SOLICITED;
            Nd::advertisement(of(m)?, v6(s)?, said).unicast(of(n)?, v6(t)?)
        }
        ["PROBE", m, t] => Nd::dad(of(m)?, v6(t)?),
        ["WEAK", m, s] => Nd::advertisement(of(m)?, v6(s)?, 0),
        ["FAR", m, s] => Nd {
            hop_limit: 64,
            ..Nd::advertisement(of(m)?, v6(s)?, flags::OVERRIDE)
        },
        _ => bail!("no frame of IPv6"),
    })
}

/// 10.0.0.n; `-` is 0.0.0.0.
fn v4(name: &str) -> Result<Ipv4Addr> {
    if name == "-" {
        return Ok(Ipv4Addr::UNSPECIFIED);
    }
    let [letter, _] = number(name)?.to_be_bytes();
    Ok(Ipv4Addr::new(10, 0, 0, letter))
}

fn v6(name: &str) -> Result<Ipv6Addr> {
    Ok(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number(name)?))
}

/// The MAC of a name.
pub(super) fn mac(name: &str) -> Result<Mac> {
    Mac::new(frames::mac(number(name)?)).context("no MAC")
}

/// A name's number: its letter, and its digit if it has one.
fn number(name: &str) -> Result<u16> {
    match *name.as_bytes() {
        [letter] if letter.is_ascii_uppercase() => Ok(u16::from_be_bytes([letter, 0])),
        [letter, digit] if letter.is_ascii_uppercase() && digit.is_ascii_digit() => {
            Ok(u16::from_be_bytes([letter, digit]))
        }
        _ => bail!("{name} is no name"),
    }
}

/// The name of a MAC.
pub(super) fn name_of(mac: Mac) -> String {
    let [.., letter, digit] = mac.bytes();
    letters([letter, digit])
}

/// The name of an address.
pub(super) fn name_of_address(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => letters([ip.octets()[3], 0]),
        IpAddr::V6(ip) => letters(ip.segments()[7].to_be_bytes()),
    }
}

fn letters(number: [u8; 2]) -> String {
    let letters = number.iter().take_while(|&&byte| byte != 0);
    letters.map(|&byte| char::from(byte)).collect()
}
