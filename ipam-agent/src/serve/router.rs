//! Which path asks what. [`reading`] and [`changing`] are for the unix socket, where the kernel
//! says who asks; over TCP there is [`local`] on loopback and [`exposed`] elsewhere, neither of
//! which changes or asks the wire anything.

use std::{net::IpAddr, sync::Arc, time::Duration};

use axum::{
    Extension, Json, Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, FromRequest, Path, Request, State, rejection::JsonRejection},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures_util::stream;
use hyper::body::Body as _;
use ipam_common::Address;
use jiff::Timestamp;
use serde::Serialize;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::timeout,
};

use super::{
    health::Health,
    metrics::{self, Form},
    page,
    peer::Peer,
    query::{Overviewed, Query, Reply},
    watch::WATCHERS,
};
use crate::config::Metrics;
use crate::report::document::{ApplyRequest, History, PauseRequest, UndoRequest};

/// How long a question may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// How long a plan may take: the wire is asked, 7 s for every 256 addresses.
pub(super) const PLAN_PATIENCE: Duration = Duration::from_secs(180);
/// How long a confirmed pass may take: each release is journaled and synced, a /16 of them
/// on a slow disk takes minutes.
pub(super) const APPLY_PATIENCE: Duration = Duration::from_secs(600);
/// A confirmation of 131,072 IPv6 addresses is half of it.
const BODY_LIMIT: usize = 32 << 20;
const JSON: &str = "application/json";

/// How many answers over TCP are made, or held for those who take them slowly, at once: one
/// can be tens of megabytes.
const ANSWERS: usize = 2;
/// How many may watch over TCP, of [`WATCHERS`].
const TCP_WATCHERS: usize = 4;
/// How many scrapes are made, or held for those who take them slowly, at once.
const SCRAPES: usize = 4;
/// How long the loop may take to say how it is.
pub(super) const HEALTH_PATIENCE: Duration = Duration::from_secs(5);

pub(super) type Queries = mpsc::Sender<Query>;
type Answer = Result<Response, ApiError>;

/// Whom to ask, and how much at once.
#[derive(Clone)]
struct Desk {
    queries: Queries,
    limits: Option<Arc<Limits>>,
}

struct Limits {
    answers: Arc<Semaphore>,
    watchers: Arc<Semaphore>,
}

/// What only reads, for the unix socket.
pub fn reading(queries: Queries) -> Router {
    let desk = Desk {
        queries: queries.clone(),
        limits: None,
    };
    documents()
        .route("/api/v1/reclaim", get(plan))
        .with_state(desk)
        .merge(health(queries))
        .fallback(async || ApiError::NotFound)
        .method_not_allowed_fallback(async || ApiError::Method)
}

/// What only reads, for TCP on loopback, with the status page of a daemon that began at `since`.
pub fn local(queries: Queries, metrics: Metrics, since: Timestamp) -> Router {
    let desk = Desk {
        queries: queries.clone(),
        limits: Some(Arc::new(Limits {
            answers: Arc::new(Semaphore::new(ANSWERS)),
            watchers: Arc::new(Semaphore::new(TCP_WATCHERS)),
        })),
    };
    documents()
        .route("/api/v1/reclaim", get(last_plan))
        .with_state(desk)
        .merge(page::router(queries.clone(), since))
        .merge(operating(queries, metrics, true))
        .fallback(async || ApiError::NotFound)
}

/// What everybody may ask, for TCP elsewhere.
pub fn exposed(queries: Queries, metrics: Metrics) -> Router {
    let info = metrics.expose_conflict_info;
    operating(queries, metrics, info).fallback(async || ApiError::NotHere)
}

/// Metrics and health; `info`: with the conflicts' addresses.
fn operating(queries: Queries, metrics: Metrics, info: bool) -> Router {
    let counter = Counter {
        queries: queries.clone(),
        most: if info { metrics.max_conflict_info } else { 0 },
        info,
        scrapes: Arc::new(Semaphore::new(SCRAPES)),
    };
    Router::new()
        .route("/metrics", get(scrape))
        .with_state(counter)
        .merge(health(queries))
}

fn health(queries: Queries) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(queries)
}

/// Who answers scrapes.
#[derive(Clone)]
struct Counter {
    queries: Queries,
    most: usize,
    info: bool,
    scrapes: Arc<Semaphore>,
}

async fn scrape(State(counter): State<Counter>, headers: HeaderMap) -> Answer {
    let turn = Arc::clone(&counter.scrapes).acquire_owned();
    let permit = timeout(PATIENCE, turn).await.map_err(|_| ApiError::Slow)?;
    let permit = permit.map_err(|_| ApiError::Stopping)?;
    let most = counter.most;
    let query = |reply| Query::Metrics(most, reply);
    let snapshot = answer(&counter.queries, PATIENCE, query).await?;
    let accept = headers.get_all(header::ACCEPT).iter();
    let accept: Vec<&str> = accept.filter_map(|value| value.to_str().ok()).collect();
    let form = Form::asked(&accept.join(","));
    let text = metrics::text(&snapshot, counter.info, form)?;
    let held = Bytes::from_owner(Held {
        bytes: text.into_bytes(),
        _permit: permit,
    });
    Ok(([(header::CONTENT_TYPE, form.content_type())], held).into_response())
}

async fn healthz(State(queries): State<Queries>) -> Response {
    told(&queries, |health| (true, health.alive())).await
}

async fn readyz(State(queries): State<Queries>) -> Response {
    told(&queries, |health| (health.is_ready(), health.ready())).await
}

async fn told(queries: &Queries, tell: impl FnOnce(&Health) -> (bool, String)) -> Response {
    let (well, text) = match answer(queries, HEALTH_PATIENCE, Query::Health).await {
        Ok(health) => tell(&health),
        Err(ApiError::Slow) => {
            let patience = HEALTH_PATIENCE.as_secs();
            (
                false,
                format!("stuck: the daemon's loop has not answered for {patience} s\n"),
            )
        }
        Err(error) => (false, format!("{error}\n")),
    };
    let status = match well {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    let kind = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    (status, kind, text).into_response()
}

fn documents() -> Router<Desk> {
    Router::new()
        .route("/api/v1/report", get(report))
        .route("/api/v1/leases", get(leases))
        .route("/api/v1/addresses", get(addresses))
        .route("/api/v1/segments", get(segments))
        .route("/api/v1/pools", get(pools))
        .route("/api/v1/events", get(events))
        .route("/api/v1/history", get(history))
        .route("/api/v1/explain/{address}", get(explain))
        .route("/api/v1/watch", get(watch))
}

/// What changes something.
pub fn changing(queries: Queries) -> Router {
    Router::new()
        .route("/api/v1/reclaim/apply", post(apply))
        .route("/api/v1/reclaim/undo", post(undo))
        .route("/api/v1/reclaim/pause", post(pause))
        .route("/api/v1/reclaim/resume", post(resume))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .method_not_allowed_fallback(async || ApiError::Method)
        .with_state(queries)
}

async fn report(State(desk): State<Desk>) -> Answer {
    desk.ask(Query::Report).await
}

async fn leases(State(desk): State<Desk>) -> Answer {
    desk.ask(Query::Leases).await
}

async fn addresses(State(desk): State<Desk>) -> Answer {
    desk.ask(Query::Addresses).await
}

async fn segments(State(desk): State<Desk>) -> Answer {
    desk.ask(Query::Segments).await
}

async fn pools(State(desk): State<Desk>) -> Answer {
    let pools = |overview: Overviewed| Ok(overview.charts.pools());
    desk.ask_for(Query::Overview, pools).await
}

async fn events(State(desk): State<Desk>) -> Answer {
    desk.ask(Query::Events).await
}

async fn history(State(desk): State<Desk>) -> Answer {
    let history = |history: Result<History, String>| history.map_err(ApiError::Journal);
    desk.ask_for(Query::History, history).await
}

async fn explain(State(desk): State<Desk>, Path(address): Path<String>) -> Answer {
    let claimable = address.parse::<IpAddr>().ok().and_then(Address::from_ip);
    let address = claimable.ok_or(ApiError::Address(address))?;
    desk.ask(|reply| Query::Explain(address, reply)).await
}

async fn last_plan(State(desk): State<Desk>) -> Answer {
    desk.ask(Query::LastPlan).await
}

/// Lines of JSON, for as long as the client reads.
async fn watch(State(desk): State<Desk>) -> Answer {
    let permit = match &desk.limits {
        Some(limits) => {
            let permit = Arc::clone(&limits.watchers).try_acquire_owned();
            Some(permit.map_err(|_| ApiError::Watched(TCP_WATCHERS))?)
        }
        None => None,
    };
    let watching = answer(&desk.queries, PATIENCE, Query::Watch).await?;
    let watching = watching.ok_or(ApiError::Watched(WATCHERS))?;
    let lines = stream::unfold((watching, permit), async |(mut watching, permit)| {
        let line = watching.next().await?;
        let json = serde_json::to_vec(&*line).map(|mut json| {
            json.push(b'\n');
            json
        });
        Some((json, (watching, permit)))
    });
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    Ok((kind, Body::from_stream(lines)).into_response())
}

async fn plan(State(desk): State<Desk>) -> Answer {
    ask(&desk.queries, PLAN_PATIENCE, Query::Plan).await
}

async fn apply(
    State(queries): State<Queries>,
    Extension(peer): Extension<Peer>,
    request: Request,
) -> Answer {
    // Said in advance it is refused in advance; otherwise reading stops at the limit.
    if request.body().size_hint().lower() > BODY_LIMIT as u64 {
        return Err(ApiError::LongBody);
    }
    let body = Json::<ApplyRequest>::from_request(request, &());
    let Json(mut request) = timeout(PATIENCE, body)
        .await
        .map_err(|_| ApiError::SlowBody)??;
    request.by = peer.name(request.by).await;
    let query = |reply| Query::Apply(request, reply);
    ask(&queries, APPLY_PATIENCE, query).await
}

async fn undo(
    State(queries): State<Queries>,
    Extension(peer): Extension<Peer>,
    body: Result<Json<UndoRequest>, JsonRejection>,
) -> Answer {
    let Json(mut request) = body?;
    request.by = peer.name(request.by).await;
    let query = |reply| Query::Undo(request, reply);
    // A plan that is being carried out comes first.
    ask(&queries, APPLY_PATIENCE, query).await
}

async fn pause(
    State(queries): State<Queries>,
    Extension(peer): Extension<Peer>,
    body: Result<Json<PauseRequest>, JsonRejection>,
) -> Answer {
    let Json(mut request) = body?;
    request.by = peer.name(request.by).await;
    ask(&queries, PATIENCE, |reply| Query::Pause(request, reply)).await
}

async fn resume(State(queries): State<Queries>) -> Answer {
    ask(&queries, PATIENCE, Query::Resume).await
}

impl Desk {
    async fn ask<T: Serialize + Send + 'static>(
        &self,
        query: impl FnOnce(Reply<T>) -> Query,
    ) -> Answer {
        self.ask_for(query, Ok).await
    }

    /// The same of what is to be made into a document.
    async fn ask_for<T: Send + 'static, D: Serialize>(
        &self,
        query: impl FnOnce(Reply<T>) -> Query,
        document: impl FnOnce(T) -> Result<D, ApiError> + Send + 'static,
    ) -> Answer {
        let Some(limits) = &self.limits else {
            let told = answer(&self.queries, PATIENCE, query).await?;
            return written(move || document(told)).await;
        };
        let turn = Arc::clone(&limits.answers).acquire_owned();
        let permit = timeout(PATIENCE, turn).await.map_err(|_| ApiError::Slow)?;
        let permit = permit.map_err(|_| ApiError::Stopping)?;
        let told = answer(&self.queries, PATIENCE, query).await?;
        // On the thread of those who ask over TCP.
        let json = serde_json::to_vec(&document(told)?)?;
        let held = Bytes::from_owner(Held {
            bytes: json,
            _permit: permit,
        });
        Ok(([(header::CONTENT_TYPE, JSON)], held).into_response())
    }
}

/// An answer that counts until its last byte is taken, or its client gone.
struct Held {
    bytes: Vec<u8>,
    _permit: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

async fn ask<T: Serialize + Send + 'static>(
    queries: &Queries,
    patience: Duration,
    query: impl FnOnce(Reply<T>) -> Query,
) -> Answer {
    let document = answer(queries, patience, query).await?;
    written(move || Ok(document)).await
}

/// The document as JSON. 100,000 leases are tens of megabytes of it: not on the thread that
/// watches the wire.
async fn written<D: Serialize>(
    document: impl FnOnce() -> Result<D, ApiError> + Send + 'static,
) -> Answer {
    let json = tokio::task::spawn_blocking(move || Ok(serde_json::to_vec(&document()?)?));
    let json: Result<_, ApiError> = json.await.map_err(|_| ApiError::Stopping)?;
    let json = json?;
    Ok(([(header::CONTENT_TYPE, JSON)], json).into_response())
}

pub(super) async fn answer<T>(
    queries: &Queries,
    patience: Duration,
    query: impl FnOnce(Reply<T>) -> Query,
) -> Result<T, ApiError> {
    let (reply, answer) = oneshot::channel();
    let exchange = async {
        let query = query(reply);
        queries.send(query).await.map_err(|_| ApiError::Stopping)?;
        // It ends, or has more to do than it takes on.
        answer.await.map_err(|_| match queries.is_closed() {
            true => ApiError::Stopping,
            false => ApiError::Busy,
        })
    };
    timeout(patience, exchange)
        .await
        .map_err(|_| ApiError::Slow)?
}

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    #[error("no such path")]
    NotFound,
    #[error("no such method here")]
    Method,
    #[error("{0} is no address that a machine can have")]
    Address(String),
    #[error(transparent)]
    Body(#[from] JsonRejection),
    #[error("the request's body is too long")]
    LongBody,
    #[error("the request's body did not come in time")]
    SlowBody,
    #[error("the daemon is busy; it may still do what was asked")]
    Slow,
    #[error("the daemon has more to do than it can take on: ask again")]
    Busy,
    #[error("{0}")]
    Journal(String),
    #[error("{0} watch already, which is as many as may: end one of them")]
    Watched(usize),
    #[error(
        "beyond loopback only /metrics, /healthz and /readyz are served: ask on the unix socket, \
         or add a loopback address to `listen`"
    )]
    NotHere,
    #[error("the daemon is stopping")]
    Stopping,
    #[error("the answer could not be written as JSON")]
    Json(#[from] serde_json::Error),
    #[error("the metrics could not be written as text")]
    Text(#[from] std::fmt::Error),
}

#[derive(Serialize)]
struct ErrorBody {
    error: String,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = match &self {
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::NotHere => StatusCode::FORBIDDEN,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Address(_) => StatusCode::BAD_REQUEST,
            Self::Body(rejection) => rejection.status(),
            Self::LongBody => StatusCode::PAYLOAD_TOO_LARGE,
            Self::SlowBody => StatusCode::REQUEST_TIMEOUT,
            Self::Slow => StatusCode::GATEWAY_TIMEOUT,
            Self::Watched(_) | Self::Busy | Self::Stopping => StatusCode::SERVICE_UNAVAILABLE,
            Self::Json(_) | Self::Text(_) | Self::Journal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let error = match &self {
            Self::Body(rejection) => rejection.body_text(),
            other => other.to_string(),
        };
        (status, Json(ErrorBody { error })).into_response()
    }
}
