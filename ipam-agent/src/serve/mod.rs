//! The daemon's HTTP API over its unix socket, and the client that the commands use.
//!
//! Touches the socket only. What is asked goes to the driver as a [`Query`] through a
//! bounded queue and is answered from there, so that a slow or hostile client costs the
//! daemon a bounded number of connections and nothing else.

pub mod client;
pub mod peer;
pub mod query;
pub mod router;
pub mod socket;
pub mod watch;

pub use self::{
    client::{Client, ClientError},
    query::Query,
    socket::{BindError, Socket},
    watch::Watchers,
};

#[cfg(test)]
mod tests;
