//! Where the daemon is asked over TCP, and what its metrics tell.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde_saphyr::Spanned;

use super::{At, Result, wrong};
use crate::config::{
    Metrics, Origin,
    raw::{self, Listen},
};

const DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9477);
/// Enough for loopback and a node's addresses of both families.
const MOST: usize = 8;
/// A series each; a scrape stays small.
const MOST_CONFLICTS: u64 = 1000;

pub(super) fn listen(
    at: At<'_>,
    raw: Option<Spanned<Listen>>,
    flags: &[String],
) -> Result<Vec<SocketAddr>> {
    let (origin, texts) = match &raw {
        _ if !flags.is_empty() => (Origin::Flag, flags),
        Some(listen) => (at.origin(listen), listen.value.0.as_slice()),
        None => return Ok(vec![DEFAULT]),
    };
    let refused = |text: &str, right: &str| Err(wrong(origin.clone(), "listen", text, right));
    if texts == ["off"] {
        return Ok(Vec::new());
    }
    if texts.is_empty() || texts.len() > MOST {
        return refused(
            &format!("{} addresses", texts.len()),
            "should be one to eight ADDRESS:PORT, or off",
        );
    }
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for text in texts {
        let Some(address) = address(text) else {
            return refused(
                text,
                "not ADDRESS:PORT, such as 127.0.0.1:9477 or [::1]:9477, nor off",
            );
        };
        if addresses.contains(&address) {
            return refused(text, "is there twice");
        }
        // The second could not be bound.
        if let Some(other) = addresses.iter().find(|other| overlap(**other, address)) {
            let (all, one) = match covers(*other, address) {
                true => (*other, address),
                false => (address, *other),
            };
            let right =
                format!("{all} is every address, {one} among them: leave one of the two out");
            return refused(text, &right);
        }
        addresses.push(address);
    }
    Ok(addresses)
}

fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    // The system chooses another port for each 0.
    one.port() == other.port() && one.port() != 0 && (covers(one, other) || covers(other, one))
}

/// Whether who listens on all addresses has that one, too: `[::]` is all of both families
/// (ipv6(7), IPV6_V6ONLY).
fn covers(all: SocketAddr, one: SocketAddr) -> bool {
    all.ip().is_unspecified() && (all.is_ipv6() || one.is_ipv4())
}

/// Brackets may be around either family: a DaemonSet puts its node's address in between,
/// whatever that is.
fn address(text: &str) -> Option<SocketAddr> {
    let unbracketed = || text.strip_prefix('[')?.replacen("]:", ":", 1).parse().ok();
    text.parse().ok().or_else(unbracketed)
}

pub(super) fn metrics(at: At<'_>, raw: &raw::Metrics) -> Result<Metrics> {
    let max_conflict_info = match &raw.max_conflict_info {
        None => Metrics::default().max_conflict_info,
        Some(written) if written.value <= MOST_CONFLICTS => {
            usize::try_from(written.value).unwrap_or(usize::MAX)
        }
        Some(written) => {
            let right = format!("should be 0 to {MOST_CONFLICTS}");
            return Err(at.wrong("metrics.max_conflict_info", written, right));
        }
    };
    Ok(Metrics {
        max_conflict_info,
        expose_conflict_info: raw.expose_conflict_info,
    })
}
