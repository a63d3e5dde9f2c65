//! What the commands use to ask the daemon.

use std::{
    fmt::Display,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use axum::body::Body;
use http_body_util::{BodyExt, Limited};
use hyper::{Method, Request, StatusCode, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, de::DeserializeOwned};
use tokio::{net::UnixStream, time::timeout};

use super::router::APPLY_PATIENCE;
use crate::report::document::{Applied, ApplyRequest};

/// How long an answer may take: longer than the daemon gives itself.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long an answer may be: a million leases are half of it.
const ANSWER_LIMIT: usize = 1 << 30;

/// Asks the daemon behind one socket.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

/// Why the daemon gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is none.
    #[error("no daemon answers on {}: start it with `ipam-agent run`, or name its socket with --socket", .0.display())]
    NoDaemon(PathBuf),
    /// There is one, for others.
    #[error("not allowed to ask the daemon on {}: run this as root or as a member of the socket's group", .0.display())]
    Forbidden(PathBuf),
    /// The socket can't be used.
    #[error("cannot use the socket {}", socket.display())]
    Io {
        /// Which.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It did not answer in time.
    #[error("the daemon on {} gives no answer for {} s: it may be overloaded, or still doing what was asked", socket.display(), patience.as_secs())]
    Slow {
        /// Which.
        socket: PathBuf,
        /// How long it had.
        patience: Duration,
    },
    /// It answered that it can't.
    #[error("the daemon says: {0}")]
    Refused(String),
    /// What it answered is no answer.
    #[error("the daemon on {} gives an answer that this version doesn't understand ({what}): are both of one version?", socket.display())]
    Protocol {
        /// Which.
        socket: PathBuf,
        /// What is wrong with it.
        what: String,
    },
}

impl ClientError {
    /// Whether nobody was there to look.
    pub fn is_blind(&self) -> bool {
        matches!(self, Self::NoDaemon(_))
    }
}

#[derive(Deserialize)]
struct ErrorBody {
    error: String,
}

impl Client {
    /// A client of the daemon behind this socket. Nothing is asked yet.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
        }
    }

    /// The socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The document at `path`, such as `/api/v1/report`.
    ///
    /// # Errors
    /// No daemon, no right to ask it, or no answer that can be understood.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.exchange(PATIENCE, Method::GET, path, Body::empty())
            .await
    }

    /// Releases what a person confirmed.
    ///
    /// # Errors
    /// As [`Client::get`]. After [`ClientError::Slow`] the daemon may still be at it.
    pub async fn apply(&self, request: &ApplyRequest) -> Result<Applied, ClientError> {
        let json = serde_json::to_vec(request).map_err(|error| self.protocol(error))?;
        let patience = APPLY_PATIENCE + PATIENCE;
        let path = "/api/v1/reclaim/apply";
        self.exchange(patience, Method::POST, path, Body::from(json))
            .await
    }

    async fn exchange<T: DeserializeOwned>(
        &self,
        patience: Duration,
        method: Method,
        path: &str,
        body: Body,
    ) -> Result<T, ClientError> {
        let (status, answer) = timeout(patience, self.transfer(method, path, body))
            .await
            .map_err(|_| ClientError::Slow {
                socket: self.socket.clone(),
                patience,
            })??;
        if status.is_success() {
            return serde_json::from_slice(&answer).map_err(|error| self.protocol(error));
        }
        match serde_json::from_slice(&answer) {
            Ok(ErrorBody { error }) => Err(ClientError::Refused(error)),
            Err(_) => Err(self.protocol(status)),
        }
    }

    async fn transfer(
        &self,
        method: Method,
        path: &str,
        body: Body,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let stream = UnixStream::connect(&self.socket).await;
        let stream = stream.map_err(|error| self.unreachable(error))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.protocol(error))?;
        // Ends with the answer, or when this future is dropped with the sender.
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, "application/json")
            .body(body)
            .map_err(|error| self.protocol(error))?;
        let response = sender.send_request(request).await;
        let (head, body) = response.map_err(|error| self.protocol(error))?.into_parts();
        let answer = Limited::new(body, ANSWER_LIMIT).collect().await;
        let answer = answer.map_err(|error| self.protocol(error))?.to_bytes();
        Ok((head.status, answer))
    }

    fn unreachable(&self, error: io::Error) -> ClientError {
        let socket = self.socket.clone();
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                ClientError::NoDaemon(socket)
            }
            io::ErrorKind::PermissionDenied => ClientError::Forbidden(socket),
            _ => ClientError::Io {
                socket,
                source: error,
            },
        }
    }

    fn protocol(&self, what: impl Display) -> ClientError {
        ClientError::Protocol {
            socket: self.socket.clone(),
            what: what.to_string(),
        }
    }
}
