//! Answering whoever asks: on the unix socket, and over TCP.

use tokio::{
    sync::{mpsc, watch},
    task::{JoinHandle, spawn_blocking},
};

use crate::{
    config::Metrics,
    driver::clock,
    serve::{Listeners, Query, Socket, router},
};

/// What answers, until it is stopped.
pub(super) struct Serving {
    stop: watch::Sender<()>,
    socket: JoinHandle<()>,
    tcp: JoinHandle<()>,
}

impl Serving {
    pub(super) fn start(
        socket: Socket,
        listeners: Listeners,
        queries: mpsc::Sender<Query>,
        metrics: Metrics,
    ) -> Self {
        let (stop, stopped) = watch::channel(());
        for address in listeners.addresses() {
            let what = match address.ip().is_loopback() {
                true => "metrics, health, the API and the status page",
                false => "metrics and health",
            };
            tracing::info!("{what} are on http://{address}/");
        }
        let all = router::reading(queries.clone()).merge(router::changing(queries.clone()));
        let mut ending = stopped.clone();
        let until = async move {
            let _ = ending.changed().await;
        };
        let socket = tokio::spawn(socket.serve(all, until));
        let since = clock::wall_time();
        let tcp = spawn_blocking(move || {
            let routes = |address: std::net::SocketAddr| match address.ip().is_loopback() {
                true => router::local(queries.clone(), metrics, since),
                false => router::exposed(queries.clone(), metrics),
            };
            if let Err(error) = listeners.serve(routes, &stopped) {
                tracing::error!("nothing is served over TCP: {error}");
            }
        });
        Self { stop, socket, tcp }
    }

    /// Lets answers under way end, and no more begin.
    pub(super) async fn stop(self) {
        drop(self.stop);
        let _ = self.socket.await;
        let _ = self.tcp.await;
    }
}
