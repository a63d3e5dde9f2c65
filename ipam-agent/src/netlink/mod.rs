//! Route netlink, as far as the agent needs it: requests, dumps and the attributes it
//! reads. It touches sockets of the network namespace it is opened in, and nothing else.
//!
//! The attributes are read here and not by a crate that types every one of them, because
//! such a crate gives up a whole message for a single attribute that a newer kernel sends
//! differently. A link lost that way would be a port that nobody watches. Here an
//! attribute that doesn't fit is skipped, and no byte of the kernel's can panic.

mod link;
mod message;
mod socket;

pub use link::{AddressRecord, LinkRecord, PortVlan, PortVlans};
pub use message::{Message, Request, attributes, first, messages, number, text};
pub use socket::{Netlink, NetlinkError};
