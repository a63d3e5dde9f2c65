//! A client of one runtime: one connection, a handful of calls, and it is over.

use std::{
    collections::HashMap,
    future::Future,
    io::{self, ErrorKind},
    net::IpAddr,
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{StreamExt, TryStreamExt, stream};
use hyper::{Request, Response, Uri, body::Incoming, client::conn::http2, http::uri::PathAndQuery};
use hyper_util::rt::{TokioExecutor, TokioIo};
use ipam_common::Address;
use prost::Message;
use serde::Deserialize;
use tokio::{net::UnixStream, time::timeout};
use tonic::{Code, Status, body::Body, client::Grpc};
use tonic_prost::ProstCodec;
use tower_service::Service;

use super::{
    CriError, Runtime,
    message::{
        ListPodSandboxRequest, ListPodSandboxResponse, MAX_SANDBOXES, PodSandbox,
        PodSandboxStatusRequest, PodSandboxStatusResponse, VersionRequest, VersionResponse,
    },
};
use crate::engine::holders::{Sandbox, SandboxBook};

/// How long the list may be: thousands of sandboxes with all of their annotations.
const LIST_LIMIT: usize = 16 << 20;
/// How long any other answer may be.
const ANSWER_LIMIT: usize = 1 << 20;
/// So many sandboxes are asked for at a time.
const AT_A_TIME: usize = 4;
/// So many addresses one sandbox may have.
const MAX_ADDRESSES: usize = 64;
/// So many bytes of a runtime's words are kept.
const WORDS: usize = 256;
/// `PodSandboxState.SANDBOX_NOTREADY`. Whatever else it may be counts as READY.
const NOT_READY: i32 = 1;
/// `NamespaceMode.NODE`.
const NODE: i32 = 2;
/// The label of the pods that virtual machines run in, and its value (kubevirt.io/api/core/v1,
/// `AppLabel`).
const KUBEVIRT: (&str, &str) = ("kubevirt.io", "virt-launcher");

/// All that the runtime at this socket has to say, beside what it told.
pub(super) async fn ask(
    socket: &Path,
    told: &SandboxBook,
    patience: Duration,
) -> Result<Runtime, CriError> {
    let answer = timeout(patience, async {
        Client::connect(socket).await?.everything(told).await
    });
    match answer.await {
        Ok(answer) => answer,
        Err(_) => Err(CriError::Slow {
            socket: socket.to_owned(),
            patience,
        }),
    }
}

/// A connection to one runtime. It waits for as long as the runtime takes.
pub struct Client {
    socket: PathBuf,
    grpc: Grpc<Connection>,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// Nobody listens, or the socket can't be used.
    pub async fn connect(socket: &Path) -> Result<Self, CriError> {
        let stream = UnixStream::connect(socket).await;
        let stream = stream.map_err(|source| unconnected(socket, source))?;
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(|source| CriError::Connection {
                socket: socket.to_owned(),
                source,
            })?;
        // Its end is told by the calls that it breaks.
        tokio::spawn(connection);
        let origin = Uri::from_static("http://localhost");
        Ok(Self {
            socket: socket.to_owned(),
            grpc: Grpc::with_origin(Connection(sender), origin),
        })
    }

    async fn everything(&self, told: &SandboxBook) -> Result<Runtime, CriError> {
        let version: VersionResponse = self.call("Version", VersionRequest {}).await?;
        let list: ListPodSandboxResponse = self
            .call("ListPodSandbox", ListPodSandboxRequest {})
            .await?;
        if list.excess > 0 {
            let what =
                format!("lists sandboxes without bounds: more than {MAX_SANDBOXES}, or huge");
            return Err(self.unbelievable(what));
        }
        let sandboxes = stream::iter(list.items)
            .map(|listed| self.sandbox(listed, told))
            .buffer_unordered(AT_A_TIME)
            .try_collect()
            .await?;
        Ok(Runtime {
            version: shortened(&format!(
                "{} {}",
                version.runtime_name, version.runtime_version
            )),
            sandboxes,
        })
    }

    /// One sandbox in full.
    async fn sandbox(&self, listed: PodSandbox, told: &SandboxBook) -> Result<Sandbox, CriError> {
        let ready = listed.state != NOT_READY;
        if let Some(told) = told.told(&listed.id, ready) {
            return Ok(told.clone());
        }
        let request = PodSandboxStatusRequest {
            pod_sandbox_id: listed.id.clone(),
            // What became of its namespace is told of no other way.
            verbose: !ready,
        };
        let answer = match self.send("PodSandboxStatus", request).await {
            Ok(answer) => answer,
            // It went meanwhile; that it was there a moment ago still counts.
            Err(status) if status.code() == Code::NotFound => PodSandboxStatusResponse::default(),
            Err(status) => return Err(self.failed("PodSandboxStatus", &status)),
        };
        let status = answer.status.unwrap_or_default();
        let network = status.network.unwrap_or_default();
        let options = status.linux.and_then(|linux| linux.namespaces?.options);
        let ips = network.additional_ips.iter().map(|ip| &*ip.ip);
        let ips: Vec<&str> = std::iter::once(&*network.ip)
            .chain(ips)
            .filter(|ip| !ip.is_empty())
            .take(MAX_ADDRESSES + 1)
            .collect();
        let unreadable = || {
            let id = shortened(&listed.id);
            self.unbelievable(format!("tells addresses of sandbox {id} that are none"))
        };
        if ips.len() > MAX_ADDRESSES {
            return Err(unreadable());
        }
        let mut addresses = Vec::with_capacity(ips.len());
        for ip in ips {
            let ip: IpAddr = ip.parse().map_err(|_| unreadable())?;
            // Others are nobody's lease.
            addresses.extend(Address::from_ip(ip));
        }
        let metadata = listed.metadata.unwrap_or_default();
        let pod = format!("{}/{}", metadata.namespace, metadata.name);
        Ok(Sandbox {
            id: listed.id.as_str().into(),
            pod: shortened(&pod).into(),
            ready,
            addresses,
            own_network: options.is_none_or(|options| options.network != NODE),
            namespace_gone: !ready && is_namespace_gone(&answer.info),
            guest: listed.labels.get(KUBEVIRT.0).map(String::as_str) == Some(KUBEVIRT.1),
        })
    }

    /// Makes one call of `runtime.v1.RuntimeService`.
    ///
    /// # Errors
    /// The runtime has no such service, or fails the call, or its answer is none.
    pub async fn call<Q, A>(&self, call: &'static str, request: Q) -> Result<A, CriError>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let answer = self.send(call, request).await;
        answer.map_err(|status| self.failed(call, &status))
    }

    async fn send<Q, A>(&self, call: &str, request: Q) -> Result<A, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let limit = match call {
            "ListPodSandbox" => LIST_LIMIT,
            _ => ANSWER_LIMIT,
        };
        let mut grpc = self.grpc.clone().max_decoding_message_size(limit);
        let path = format!("/runtime.v1.RuntimeService/{call}");
        let path =
            PathAndQuery::try_from(path).map_err(|error| Status::from_error(error.into()))?;
        let broken = |error: hyper::Error| Status::from_error(error.into());
        grpc.ready().await.map_err(broken)?;
        let codec = ProstCodec::<Q, A>::default();
        let answer = grpc
            .unary(tonic::Request::new(request), path, codec)
            .await?;
        Ok(answer.into_inner())
    }

    fn failed(&self, call: &'static str, status: &Status) -> CriError {
        if status.code() == Code::Unimplemented {
            return CriError::NoService(self.socket.clone());
        }
        CriError::Call {
            socket: self.socket.clone(),
            call,
            said: shortened(&format!("{}: {}", status.code(), status.message())),
        }
    }

    fn unbelievable(&self, what: String) -> CriError {
        CriError::Answer {
            socket: self.socket.clone(),
            what,
        }
    }
}

fn unconnected(socket: &Path, source: io::Error) -> CriError {
    let socket = socket.to_owned();
    match source.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused | ErrorKind::NotADirectory => {
            CriError::Absent { socket, source }
        }
        _ => CriError::Connect { socket, source },
    }
}

/// What tonic sends its requests through.
#[derive(Clone)]
struct Connection(http2::SendRequest<Body>);

impl Service<Request<Body>> for Connection {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

/// What containerd adds to a sandbox's status when asked to be verbose (`SandboxInfo` in its
/// `sandbox_status.go`).
#[derive(Deserialize)]
struct SandboxInfo {
    /// The file is gone, or no namespace any more.
    #[serde(rename = "netNamespaceClosed")]
    namespace_closed: Option<bool>,
}

/// Whether the runtime says that a sandbox's network namespace is gone. Who doesn't say so
/// may still have it.
pub(super) fn is_namespace_gone(info: &HashMap<String, String>) -> bool {
    let info = info.get("info");
    let info = info.and_then(|info| serde_json::from_str::<SandboxInfo>(info).ok());
    info.and_then(|info| info.namespace_closed) == Some(true)
}

/// Untrusted words, no longer than they need be.
fn shortened(words: &str) -> String {
    words[..words.floor_char_boundary(WORDS)].to_owned()
}
