//! The daemon's HTTP API: all of it over its unix socket, with the client that the commands
//! use, and what only reads over TCP.
//!
//! Touches sockets only. What is asked goes to the driver as a [`Query`] through a
//! bounded queue and is answered from there, so that a slow or hostile client costs the
//! daemon a bounded number of connections and nothing else.

pub mod client;
pub mod health;
pub mod metrics;
pub mod page;
pub mod peer;
pub mod query;
pub mod router;
pub mod socket;
pub mod tcp;
pub mod watch;

pub use self::{
    client::{Client, ClientError},
    query::Query,
    socket::{BindError, Socket},
    tcp::{ListenError, Listeners},
    watch::Watchers,
};

#[cfg(test)]
mod tests;
