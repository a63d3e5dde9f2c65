//! `ipam-agent addresses`

use std::collections::BTreeSet;

use clap::Args;

use super::{
    CliError, Io, Status,
    shared::{ConfigArgs, OutputArgs, warn_unknown},
};
use crate::report::document::Addresses;

/// Who is on this wire: address, MAC, port, lease, last heard.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ipam-agent addresses
  ipam-agent addresses --segment mgmt-br
  ipam-agent addresses -i veth1a2b3c4d --output csv")]
pub struct AddressesArgs {
    /// Only what was heard on this interface
    #[arg(long, short, value_name = "IFACE")]
    interface: Option<String>,
    /// Only this segment: NAME or NAME.VLAN
    #[arg(long)]
    segment: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    daemon: ConfigArgs,
}

impl AddressesArgs {
    pub(super) async fn run(self, io: &mut Io<'_>) -> Result<Status, CliError> {
        let mut addresses: Addresses = self.daemon.client(io)?.get("/api/v1/addresses").await?;
        let segments: BTreeSet<String> = { addresses.addresses.iter() }
            .flat_map(|record| [record.segment.called(), record.segment.name.clone()])
            .collect();
        let known = segments.iter().map(String::as_str);
        let nobody = "nobody was heard on a segment";
        warn_unknown(io, nobody, self.segment.as_deref(), known)?;
        let interfaces =
            { addresses.addresses.iter() }.filter_map(|record| record.claim.interface.as_deref());
        let nobody = "nobody was heard last on an interface";
        warn_unknown(io, nobody, self.interface.as_deref(), interfaces)?;
        addresses.addresses.retain(|record| {
            let segment = self.segment.as_deref();
            let interface = self.interface.as_deref();
            segment.is_none_or(|segment| record.segment.is_called(segment))
                && interface.is_none_or(|name| record.claim.interface.as_deref() == Some(name))
        });
        io.show(&addresses, self.output.output)?;
        Ok(Status::Nothing)
    }
}
