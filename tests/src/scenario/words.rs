//! The words of scenarios: names of stations and addresses, and frames.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result, bail};
use ipam_common::{Address, Mac};
use serde::{Deserialize, Serialize};

use crate::frames::{self, Arp, Nd, flags};

/// Which of the two protocols the frames are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Family {
    /// ARP.
    V4,
    /// Neighbor Discovery.
    V6,
}

impl Family {
    /// The address of a name.
    pub(crate) fn address(self, name: &str) -> Result<Address> {
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
    pub(crate) fn frame(self, words: &[&str]) -> Result<Vec<u8>> {
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
        ["REPALL", m, s, n, t] => Arp {
            ether_dst: frames::BROADCAST,
            ..Arp::reply(of(m)?, v4(s)?, of(n)?, v4(t)?)
        },
        ["PROBE", m, t] => Arp::probe(of(m)?, v4(t)?),
        ["FPROBE", m, t, n] => Arp {
            ether_src: of(n)?,
            ..Arp::probe(of(m)?, v4(t)?)
        },
        ["FORGED", m, s, n] => Arp {
            ether_src: of(n)?,
            ..Arp::announcement(of(m)?, v4(s)?)
        },
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
        ["NREQ", m, s, t, nonce] => {
            let nonce = nonce.parse::<u8>()?;
            Nd::solicitation(of(m)?, v6(s)?, v6(t)?).nonce([nonce; 6])
        }
        ["WREP", m, s, n, t] => {
            Nd::advertisement(of(m)?, v6(s)?, flags::SOLICITED).unicast(of(n)?, v6(t)?)
        }
        ["PROBE", m, t] => Nd::dad(of(m)?, v6(t)?),
        ["NPROBE", m, t, nonce] => {
            let nonce = nonce.parse::<u8>()?;
            Nd::dad(of(m)?, v6(t)?).nonce([nonce; 6])
        }
        ["WEAK", m, s] => Nd::advertisement(of(m)?, v6(s)?, 0),
        ["FAR", m, s] => Nd {
            hop_limit: 64,
            ..Nd::advertisement(of(m)?, v6(s)?, flags::OVERRIDE)
        },
        _ => bail!("no frame of IPv6"),
    })
}

/// 10.0.0.n; `-` is 0.0.0.0, `NET` the network's own address, `ALL` its broadcast address.
fn v4(name: &str) -> Result<Ipv4Addr> {
    match name {
        "-" => return Ok(Ipv4Addr::UNSPECIFIED),
        "NET" => return Ok(Ipv4Addr::new(10, 0, 0, 0)),
        "ALL" => return Ok(Ipv4Addr::new(10, 0, 0, 255)),
        _ => {}
    }
    let [letter, _] = number(name)?.to_be_bytes();
    Ok(Ipv4Addr::new(10, 0, 0, letter))
}

fn v6(name: &str) -> Result<Ipv6Addr> {
    Ok(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number(name)?))
}

/// The MAC of a name.
pub(crate) fn mac(name: &str) -> Result<Mac> {
    match *name.as_bytes() {
        // VRRP's (RFC 9568 §7.3), with the letter for a virtual router's number.
        [letter, b'\''] => Mac::new([0, 0, 0x5e, 0, 1, letter]),
        _ if name == "EE" => Mac::new([0xee; 6]),
        _ => Mac::new(frames::mac(number(name)?)),
    }
    .context("no MAC")
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
    match mac.bytes() {
        [0, 0, 0x5e, 0, 1, letter] => format!("{}'", char::from(letter)),
        [0xee, ..] => String::from("EE"),
        [.., letter, digit] => letters([letter, digit]),
    }
}

/// The name of an address.
pub(super) fn name_of_address(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => match ip.octets()[3] {
            0 => String::from("NET"),
            255 => String::from("ALL"),
            letter => letters([letter, 0]),
        },
        IpAddr::V6(ip) => letters(ip.segments()[7].to_be_bytes()),
    }
}

fn letters(number: [u8; 2]) -> String {
    let letters = number.iter().take_while(|&&byte| byte != 0);
    letters.map(|&byte| char::from(byte)).collect()
}
