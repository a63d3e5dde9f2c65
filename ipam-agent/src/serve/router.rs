//! Which path asks what. [`reading`] changes nothing and may be served anywhere;
//! [`changing`] is for the unix socket alone, where the kernel says who asks.

use std::{net::IpAddr, time::Duration};

use axum::{
    Extension, Json, Router,
    body::Body,
    extract::{DefaultBodyLimit, FromRequest, Path, Request, State, rejection::JsonRejection},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures_util::stream;
use hyper::body::Body as _;
use ipam_common::Address;
use serde::Serialize;
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{
    peer::Peer,
    query::{Query, Reply},
    watch::WATCHERS,
};
use crate::report::document::{ApplyRequest, PauseRequest, UndoRequest};

/// How long a question may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a plan may take: the wire is asked, 7 s for every 256 addresses.
pub(super) const PLAN_PATIENCE: Duration = Duration::from_secs(180);
/// How long a confirmed pass may take: each release is journaled and synced, a /16 of them
/// on a slow disk takes minutes.
pub(super) const APPLY_PATIENCE: Duration = Duration::from_secs(600);
/// A confirmation of 131,072 IPv6 addresses is half of it.
const BODY_LIMIT: usize = 32 << 20;

type Queries = mpsc::Sender<Query>;
type Answer = Result<Response, ApiError>;

/// What only reads.
pub fn reading(queries: Queries) -> Router {
    Router::new()
        .route("/api/v1/report", get(report))
        .route("/api/v1/leases", get(leases))
        .route("/api/v1/addresses", get(addresses))
        .route("/api/v1/segments", get(segments))
        .route("/api/v1/explain/{address}", get(explain))
        .route("/api/v1/reclaim", get(plan))
        .route("/api/v1/watch", get(watch))
        .fallback(async || ApiError::NotFound)
        .method_not_allowed_fallback(async || ApiError::Method)
        .with_state(queries)
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

async fn report(State(queries): State<Queries>) -> Answer {
    ask(&queries, PATIENCE, Query::Report).await
}

async fn leases(State(queries): State<Queries>) -> Answer {
    ask(&queries, PATIENCE, Query::Leases).await
}

async fn addresses(State(queries): State<Queries>) -> Answer {
    ask(&queries, PATIENCE, Query::Addresses).await
}

async fn segments(State(queries): State<Queries>) -> Answer {
    ask(&queries, PATIENCE, Query::Segments).await
}

async fn explain(State(queries): State<Queries>, Path(address): Path<String>) -> Answer {
    let address = address.parse::<IpAddr>().ok().and_then(Address::from_ip);
    let address = address.ok_or(ApiError::Address)?;
    let query = |reply| Query::Explain(address, reply);
    ask(&queries, PATIENCE, query).await
}

/// Lines of JSON, for as long as the client reads.
async fn watch(State(queries): State<Queries>) -> Answer {
    let watching = answer(&queries, PATIENCE, Query::Watch).await?;
    let watching = watching.ok_or(ApiError::Watched)?;
    let lines = stream::unfold(watching, async |mut watching| {
        let line = watching.next().await?;
        let json = serde_json::to_vec(&*line).map(|mut json| {
            json.push(b'\n');
            json
        });
        Some((json, watching))
    });
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    Ok((kind, Body::from_stream(lines)).into_response())
}

async fn plan(State(queries): State<Queries>) -> Answer {
    ask(&queries, PLAN_PATIENCE, Query::Plan).await
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

async fn ask<T: Serialize + Send + 'static>(
    queries: &Queries,
    patience: Duration,
    query: impl FnOnce(Reply<T>) -> Query,
) -> Answer {
    let document = answer(queries, patience, query).await?;
    // 100,000 leases are tens of megabytes of JSON: not on the thread that watches the wire.
    let json = tokio::task::spawn_blocking(move || serde_json::to_vec(&document));
    let json = json.await.map_err(|_| ApiError::Stopping)??;
    Ok(([(header::CONTENT_TYPE, "application/json")], json).into_response())
}

async fn answer<T>(
    queries: &Queries,
    patience: Duration,
    query: impl FnOnce(Reply<T>) -> Query,
) -> Result<T, ApiError> {
    let (reply, answer) = oneshot::channel();
    let exchange = async {
        let query = query(reply);
        queries.send(query).await.map_err(|_| ApiError::Stopping)?;
        answer.await.map_err(|_| ApiError::Stopping)
    };
    timeout(patience, exchange)
        .await
        .map_err(|_| ApiError::Slow)?
}

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
enum ApiError {
    #[error("no such path")]
    NotFound,
    #[error("no such method here")]
    Method,
    #[error("no address that a machine can have")]
    Address,
    #[error(transparent)]
    Body(#[from] JsonRejection),
    #[error("the request's body is too long")]
    LongBody,
    #[error("the request's body did not come in time")]
    SlowBody,
    #[error("the daemon is busy; it may still do what was asked")]
    Slow,
    #[error("{WATCHERS} watch already, which is as many as may: end one of them")]
    Watched,
    #[error("the daemon is stopping")]
    Stopping,
    #[error("the answer could not be written as JSON")]
    Json(#[from] serde_json::Error),
}

#[derive(Serialize)]
struct ErrorBody {
    error: String,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = match &self {
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Address => StatusCode::BAD_REQUEST,
            Self::Body(rejection) => rejection.status(),
            Self::LongBody => StatusCode::PAYLOAD_TOO_LARGE,
            Self::SlowBody => StatusCode::REQUEST_TIMEOUT,
            Self::Slow => StatusCode::GATEWAY_TIMEOUT,
            Self::Watched | Self::Stopping => StatusCode::SERVICE_UNAVAILABLE,
            Self::Json(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let error = match &self {
            Self::Body(rejection) => rejection.body_text(),
            other => other.to_string(),
        };
        (status, Json(ErrorBody { error })).into_response()
    }
}
