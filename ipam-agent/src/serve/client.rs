//! What the commands use to ask the daemon.

use std::{
    fmt::Display,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use axum::body::Body;
use http_body_util::{BodyExt, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1,
    header,
};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{net::UnixStream, time::timeout};

use super::router::{APPLY_PATIENCE, HEALTH_PATIENCE, PLAN_PATIENCE};
use crate::report::document::{Applied, ApplyRequest, Plan, WatchLine};

/// How long an answer may take: longer than the daemon gives itself.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long an answer may be: a million leases are half of it.
const ANSWER_LIMIT: usize = 1 << 30;

/// How long one line of what happens may be: a conflict of thousands of claimants.
const LINE_LIMIT: usize = 16 << 20;

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
    /// It was there, and went in the middle.
    #[error("the daemon on {} went away without a word: was it killed?", .0.display())]
    Gone(PathBuf),
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

    /// What happens from now on.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn watch(&self) -> Result<Watch, ClientError> {
        let request = self.request(Method::GET, "/api/v1/watch", Body::empty());
        let response = self.in_time(PATIENCE, request).await?;
        if !response.status().is_success() {
            let (status, answer) = self.in_time(PATIENCE, self.whole(response)).await?;
            return Err(self.refusal(status, &answer));
        }
        Ok(Watch {
            client: self.clone(),
            body: response.into_body(),
            read: Vec::new(),
        })
    }

    /// Whether the daemon is ready, and what it says of that: `/readyz`.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn ready(&self) -> Result<(bool, String), ClientError> {
        let request = self.request(Method::GET, "/readyz", Body::empty());
        let transfer = async { self.whole(request.await?).await };
        // One that hangs says so itself, as long as it can say anything.
        let patience = HEALTH_PATIENCE + Duration::from_secs(1);
        let (status, answer) = self.in_time(patience, transfer).await?;
        match status {
            StatusCode::OK | StatusCode::SERVICE_UNAVAILABLE => {
                let text = String::from_utf8_lossy(&answer).into_owned();
                Ok((status.is_success(), text))
            }
            _ => Err(self.refusal(status, &answer)),
        }
    }

    /// What would be released if a person asked for it now.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn plan(&self) -> Result<Plan, ClientError> {
        let patience = PLAN_PATIENCE + PATIENCE;
        self.exchange(patience, Method::GET, "/api/v1/reclaim", Body::empty())
            .await
    }

    /// Asks for something that changes.
    ///
    /// # Errors
    /// As [`Client::get`]. After [`ClientError::Slow`] the daemon may still be at it.
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        request: &impl Serialize,
    ) -> Result<T, ClientError> {
        let json = serde_json::to_vec(request).map_err(|error| self.protocol(error))?;
        let patience = APPLY_PATIENCE + PATIENCE;
        self.exchange(patience, Method::POST, path, Body::from(json))
            .await
    }

    /// Releases what a person confirmed.
    ///
    /// # Errors
    /// As [`Client::post`].
    pub async fn apply(&self, request: &ApplyRequest) -> Result<Applied, ClientError> {
        self.post("/api/v1/reclaim/apply", request).await
    }

    async fn exchange<T: DeserializeOwned>(
        &self,
        patience: Duration,
        method: Method,
        path: &str,
        body: Body,
    ) -> Result<T, ClientError> {
        let transfer = async { self.whole(self.request(method, path, body).await?).await };
        let (status, answer) = self.in_time(patience, transfer).await?;
        if status.is_success() {
            return serde_json::from_slice(&answer).map_err(|error| self.protocol(error));
        }
        Err(self.refusal(status, &answer))
    }

    async fn in_time<T>(
        &self,
        patience: Duration,
        exchange: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        let slow = |_| ClientError::Slow {
            socket: self.socket.clone(),
            patience,
        };
        timeout(patience, exchange).await.map_err(slow)?
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        body: Body,
    ) -> Result<Response<Incoming>, ClientError> {
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
        response.map_err(|error| self.broken(error))
    }

    async fn whole(
        &self,
        response: Response<Incoming>,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let (head, body) = response.into_parts();
        let answer = Limited::new(body, ANSWER_LIMIT).collect().await;
        let answer = answer.map_err(|error| match error.downcast::<hyper::Error>() {
            Ok(error) => self.broken(*error),
            Err(error) => self.protocol(error),
        });
        let answer = answer?.to_bytes();
        Ok((head.status, answer))
    }

    fn refusal(&self, status: StatusCode, answer: &[u8]) -> ClientError {
        match serde_json::from_slice(answer) {
            Ok(ErrorBody { error }) => ClientError::Refused(error),
            Err(_) => self.protocol(status),
        }
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

    fn broken(&self, error: hyper::Error) -> ClientError {
        if error.is_parse() {
            self.protocol(error)
        } else {
            ClientError::Gone(self.socket.clone())
        }
    }

    fn protocol(&self, what: impl Display) -> ClientError {
        ClientError::Protocol {
            socket: self.socket.clone(),
            what: what.to_string(),
        }
    }
}

/// What happens, line by line.
#[derive(Debug)]
pub struct Watch {
    client: Client,
    body: Incoming,
    /// What was read, and is no whole line yet.
    read: Vec<u8>,
}

impl Watch {
    /// The next line; the last says that the daemon stops. Cancel-safe.
    ///
    /// # Errors
    /// The daemon went away, or says what can't be understood.
    pub async fn next(&mut self) -> Result<Option<WatchLine>, ClientError> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                let line = serde_json::from_slice(&line);
                return line.map(Some).map_err(|error| self.client.protocol(error));
            }
            if self.read.len() > LINE_LIMIT {
                return Err(self.client.protocol("a line without end"));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => self.read.extend(frame.into_data().into_iter().flatten()),
                None => return Ok(None),
                Some(Err(_)) => return Err(ClientError::Gone(self.client.socket.clone())),
            }
        }
    }
}
