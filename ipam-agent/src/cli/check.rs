//! `ipam-agent check`

use std::{net::IpAddr, time::Duration};

use clap::Args;
use ipam_common::Address;

use super::{
    CliError, Io, Status,
    progress::waiting,
    shared::{OutputArgs, address},
};
use crate::{
    driver::{clock, host_name},
    prober::{self, Checked, Heard, User},
    report::document::{AddressCheck, AddressCheckSchema, AddressVerdict, EvidenceName},
};

/// The longest that the standards' timing takes: three ARP probes.
const LONGEST: Duration = Duration::from_secs(7);
/// Under this, machines that are merely busy would not have answered.
const SHORTEST: Duration = Duration::from_millis(100);

/// Is the address free? Probes for it as a machine does before it takes one (RFC 5227, RFC
/// 4862), without taking it. Needs CAP_NET_RAW, and no daemon.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ipam-agent check 192.168.60.11 -i mgmt-br
  ipam-agent check fd00:60::b -i mgmt-br --output json
  ipam-agent check 192.168.60.11 -i mgmt-br --within 1s

It takes 5 to 7 s for IPv4, 4 s for IPv6, and ends at once when somebody is heard. With
--within all times are scaled down: it is sooner done, and misses a machine that answers
later than that, as one that is busy, asleep or behind a slow link may.

Somebody who probes for the address at the same time counts as its user. The first second
is for listening; who begins later may in turn take us for a user and give the address up:
that is how detection works.

Exit status: 0 free, 1 in use or being claimed, 2 an error, 3 it could not look.")]
pub struct CheckArgs {
    /// Which address
    #[arg(value_parser = address)]
    address: IpAddr,
    /// The interface to look out of: a bridge, bond, network card, …
    #[arg(long, short, value_name = "IFACE")]
    interface: String,
    /// Be done within this time, from 100ms to 7s, instead of what the standards say
    #[arg(long, value_name = "TIME", value_parser = within)]
    within: Option<Duration>,
    #[command(flatten)]
    output: OutputArgs,
}

impl CheckArgs {
    pub(super) async fn run(self, io: &mut Io<'_>) -> Result<Status, CliError> {
        let address = Address::from_ip(self.address);
        let address = address.ok_or(CliError::NotClaimable(self.address))?;
        let check = prober::check(&self.interface, address, self.within);
        let checked = waiting(&format!("asking for {address}"), None, check).await?;
        let document = document(address, self.interface, checked);
        io.show(&document, self.output.output)?;
        let free = document.verdict == AddressVerdict::Free;
        Ok(Status::of(!free, false))
    }
}

fn document(address: Address, interface: String, checked: Checked) -> AddressCheck {
    let length = checked.length.as_secs_f64();
    let (verdict, reason) = match &checked.user {
        None => (
            AddressVerdict::Free,
            format!(
                "{address} is free: nobody on {interface} answered {} probes in {length:.1} s",
                checked.questions
            ),
        ),
        Some(User::ThisHost(own)) => (
            AddressVerdict::InUse,
            format!("{address} is in use by this host, on {own}"),
        ),
        Some(User::Other(Heard { mac, evidence })) if evidence.is_probe() => (
            AddressVerdict::BeingClaimed,
            format!("{address} is being claimed by {mac}, which probes for it on {interface}"),
        ),
        Some(User::Other(Heard { mac, evidence })) => (
            AddressVerdict::InUse,
            format!(
                "{address} is in use by {mac}, heard on {interface} ({})",
                evidence.name()
            ),
        ),
    };
    let (heard, own_interface) = match checked.user {
        Some(User::Other(heard)) => (Some(heard), None),
        Some(User::ThisHost(own)) => (None, Some(own)),
        None => (None, None),
    };
    let whole = verdict == AddressVerdict::Free;
    AddressCheck {
        schema: AddressCheckSchema::V1,
        generated_at: clock::wall_time(),
        host: host_name(),
        address: address.ip(),
        interface,
        verdict,
        mac: heard.map(|heard| heard.mac.into()),
        evidence: heard.map(|heard| EvidenceName(heard.evidence)),
        own_interface,
        probes: whole.then_some(checked.questions),
        listened_ms: whole.then(|| u64::try_from(checked.length.as_millis()).unwrap_or(u64::MAX)),
        reason,
    }
}

fn within(text: &str) -> Result<Duration, String> {
    let duration = text.parse::<jiff::SignedDuration>().ok();
    let duration = duration.and_then(|duration| Duration::try_from(duration).ok());
    duration
        .filter(|duration| (SHORTEST..=LONGEST).contains(duration))
        .ok_or_else(|| "should be a time from 100ms to 7s, such as 2s".to_owned())
}
