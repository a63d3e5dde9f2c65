//! HTTP over TCP: read-only, for scrapers, probes and the status page.
//!
//! It has a thread of its own, so that whatever clients do, the daemon's loop is asked a
//! bounded number of questions and otherwise left alone. A connection is for one request.

mod crowd;
mod guard;
mod patient;

use std::{
    io,
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use axum::Router;
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::TcpStream,
    runtime,
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};
use tower_service::Service as _;

use self::{crowd::Crowd, patient::Patient};
pub use self::{crowd::Phase, guard::guarded};

/// How long a client may take over its request's head.
const HEAD_PATIENCE: Duration = Duration::from_secs(5);
/// How long a request's head may be.
const HEAD_LIMIT: usize = 16 << 10;
/// After an accept failed (out of descriptors), so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Until a place may be free.
const CROWDED: Duration = Duration::from_millis(5);
/// How long answers under way have when the daemon stops.
const FAREWELL: Duration = Duration::from_secs(1);

/// Why nothing is served over TCP.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody else has the port.
    #[error(
        "{0} is taken: `ss -ltnp 'sport = {port}'` says by whom; stop it, or set `listen` to another \
         port, or to off",
        port = .0.port()
    )]
    Taken(SocketAddr),
    /// It is no address of this host.
    #[error("{0} is no address of this host: set `listen` to one that it has, or to off")]
    NotOurs(SocketAddr),
    /// The operating system refused.
    #[error("cannot listen on {address}")]
    Io {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// Bound addresses, not served yet.
#[derive(Debug)]
pub struct Listeners(Vec<(TcpListener, SocketAddr)>);

impl Listeners {
    /// Binds all of them.
    ///
    /// # Errors
    /// One is taken, is not this host's, or the system refuses.
    pub fn bind(addresses: &[SocketAddr]) -> Result<Self, ListenError> {
        let bound = addresses.iter().map(|&address| {
            let failed = |source: io::Error| match source.kind() {
                io::ErrorKind::AddrInUse => ListenError::Taken(address),
                io::ErrorKind::AddrNotAvailable => ListenError::NotOurs(address),
                _ => ListenError::Io { address, source },
            };
            let listener = TcpListener::bind(address).map_err(failed)?;
            listener.set_nonblocking(true).map_err(failed)?;
            let bound = listener.local_addr().map_err(failed)?;
            Ok((listener, bound))
        });
        bound.collect::<Result<_, _>>().map(Self)
    }

    /// Where they are, the ports as the system chose them.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.0.iter().map(|&(_, address)| address)
    }

    /// Answers clients until `stop`'s sender is gone, each address with what `routes` has
    /// for it. Blocks: a thread's whole work.
    ///
    /// # Errors
    /// The thread could not be set up; nothing was served.
    pub fn serve(
        self,
        routes: impl Fn(SocketAddr) -> Router,
        stop: &watch::Receiver<()>,
    ) -> io::Result<()> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let mut serving = JoinSet::new();
            for (listener, address) in self.0 {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                serving.spawn(attend(
                    listener,
                    guarded(routes(address), address),
                    stop.clone(),
                ));
            }
            serving.join_all().await;
            Ok(())
        })
    }
}

/// Answers the clients of one address.
async fn attend(listener: tokio::net::TcpListener, router: Router, mut stop: watch::Receiver<()>) {
    let mut connections = JoinSet::new();
    let mut crowd = Crowd::default();
    loop {
        let accepted = tokio::select! {
            // Nothing is ever sent: it is ready when the daemon lets go of it.
            _ = stop.changed() => break,
            accepted = listener.accept() => accepted,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, _)) => {
                let phase = Phase::default();
                // Others wait to be accepted.
                while !crowd.makes_room() && stop.has_changed().is_ok() {
                    sleep(CROWDED).await;
                }
                let connection = converse(stream, router.clone(), phase.clone());
                crowd.enter(phase, connections.spawn(connection));
            }
            Err(error) => {
                tracing::warn!("cannot accept a client over TCP: {error}");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    let last = async { while connections.join_next().await.is_some() {} };
    let _ = timeout(FAREWELL, last).await;
}

/// One request, one answer.
async fn converse(stream: TcpStream, router: Router, phase: Phase) {
    let asked = phase.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        asked.set_answering();
        router.clone().call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_buf_size(HEAD_LIMIT)
        .keep_alive(false)
        .serve_connection(TokioIo::new(Patient::new(stream, phase)), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a client went away");
    }
}
