//! Route netlink, as far as the agent needs it: requests, dumps and the attributes it
//! reads. It touches sockets of the network namespace it is opened in, and nothing else.
//!
//! It is for what `rtnetlink` has no way to do: the filters of one hook, dumps of another
//! namespace, the errno at the end of a refused dump, and messages that the types of
//! `netlink-packet-route` refuse because of a single attribute. Here an attribute that
//! doesn't fit is skipped, and no byte of the kernel's can panic.

mod link;
mod message;
mod socket;

pub use link::{AddressRecord, LinkRecord, PortVlan, PortVlans};
pub use message::{Message, Request, attributes, first, number, text};
pub use socket::{Netlink, NetlinkError};
