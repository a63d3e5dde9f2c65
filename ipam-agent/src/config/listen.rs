//! Where metrics and health are served, as written.

use std::{
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

/// `ADDRESS:PORT`. Brackets may stand around an address of either family: who starts the
/// agent with the address of its node, as Kubernetes gives it, can't know which it gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen(pub SocketAddr);

/// What was written is no such place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not ADDRESS:PORT, such as 127.0.0.1:9477 or [::1]:9477")]
pub struct NotAPlace;

impl FromStr for Listen {
    type Err = NotAPlace;

    fn from_str(text: &str) -> Result<Self, NotAPlace> {
        if let Ok(place) = text.parse() {
            return Ok(Self(place));
        }
        let (address, port) = text
            .strip_prefix('[')
            .and_then(|rest| rest.split_once("]:"))
            .ok_or(NotAPlace)?;
        let address: IpAddr = address.parse().map_err(|_| NotAPlace)?;
        let port = port.parse().map_err(|_| NotAPlace)?;
        Ok(Self(SocketAddr::new(address, port)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_may_stand_around_either_family() {
        for (text, place) in [
            ("127.0.0.1:9477", "127.0.0.1:9477"),
            ("[10.0.0.1]:9477", "10.0.0.1:9477"),
            ("[fd00::1]:9477", "[fd00::1]:9477"),
        ] {
            let place: SocketAddr = place.parse().expect("an address");
            assert_eq!(text.parse(), Ok(Listen(place)), "{text}");
        }
        for wrong in [
            "9477",
            "localhost:9477",
            "[]:9477",
            "[10.0.0.1]",
            "[10.0.0.1]:",
            "[10.0.0.1]:70000",
            "10.0.0.1]:9477",
            "fd00::1:9477",
        ] {
            assert_eq!(wrong.parse::<Listen>(), Err(NotAPlace), "{wrong}");
        }
    }
}
