//! The status page: what the daemon knows, for a browser on this host.
//!
//! Written out here as HTML, so that it reads the same without JavaScript; the script only
//! renews it, draws the maps of large pools, and moves in them by keys. Nothing on it changes
//! anything. Whoever looks costs the daemon one look at its state at a time, however many
//! they are ([`glance`]).
//!
//! Names and MACs come from the wire and from leases: they reach the page through maud's
//! escaping and [`clean`](crate::report::clean) alone, and the policy in [`GUARD`] would
//! leave a script without effect.

mod glance;
mod html;

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    net::IpAddr,
    sync::Arc,
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, Query as Parameters, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    middleware,
    response::{IntoResponse, Response},
    routing::get,
};
use ipam_common::Address;
use jiff::Timestamp;
use maud::Markup;
use serde::Deserialize;

use self::glance::Glances;
use super::{
    query::Query,
    router::{ApiError, PATIENCE, Queries, answer},
};
use crate::report::document::{PoolRecord, StoreRecord};

/// What a browser may do with the page.
const GUARD: [(HeaderName, &str); 2] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
         connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
         require-trusted-types-for 'script'; trusted-types 'none'",
    ),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
];

/// The status page of a daemon that began at `since`. It tells of names, addresses and MACs:
/// for loopback and the unix socket alone.
pub fn router(queries: Queries, since: Timestamp) -> Router {
    let script = include_str!("page.js");
    let style = include_str!("page.css");
    let icon = include_str!("icon.svg");
    Router::new()
        .route("/", get(overview))
        .route("/pool", get(pool))
        .route("/map", get(map))
        .route("/address/{address}", get(story))
        .route("/page.js", asset("text/javascript; charset=utf-8", script))
        .route("/page.css", asset("text/css; charset=utf-8", style))
        .route("/icon.svg", asset("image/svg+xml", icon))
        .layer(middleware::map_response(guard))
        .with_state(Arc::new(Glances::new(queries, since)))
}

/// Every answer forbids the browser what the page doesn't need.
async fn guard(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in GUARD {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

fn asset<S: Clone + Send + Sync + 'static>(
    kind: &'static str,
    text: &'static str,
) -> axum::routing::MethodRouter<S> {
    let tag = tag(&text);
    get(async move |headers: HeaderMap| {
        let kind = [(header::CONTENT_TYPE, kind)];
        let cache = [(header::CACHE_CONTROL, "no-cache")];
        unless_known(&headers, &tag, || (kind, cache, text))
    })
}

/// What tells one version of a text from another.
fn tag(text: &impl Hash) -> String {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    format!("\"{:016x}\"", hasher.finish())
}

/// The answer, or that what the client has is still right.
fn unless_known<R: IntoResponse>(
    headers: &HeaderMap,
    tag: &str,
    answer: impl FnOnce() -> R,
) -> Response {
    let known = headers.get(header::IF_NONE_MATCH);
    let known = known.and_then(|known| known.to_str().ok());
    let is_known = known.is_some_and(|known| known.split(',').any(|known| known.trim() == tag));
    let tag = [(header::ETAG, tag.to_owned())];
    match is_known {
        true => (StatusCode::NOT_MODIFIED, tag).into_response(),
        false => (tag, answer()).into_response(),
    }
}

type Answer = Result<Response, PageError>;

fn written(markup: Markup) -> Response {
    html_of(Bytes::from(markup.into_string())).into_response()
}

fn html_of(html: Bytes) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], html)
}

async fn overview(State(glances): State<Arc<Glances>>, headers: HeaderMap) -> Answer {
    let glance = glances.latest().await?;
    Ok(unless_known(&headers, &glance.tag, || {
        html_of(glance.html.clone())
    }))
}

/// Which pool, and which of its rows.
#[derive(Debug, Deserialize)]
struct Which {
    store: String,
    /// None: what the store leased outside of its pools.
    prefix: Option<String>,
    /// The row that holds this address.
    block: Option<IpAddr>,
}

impl Which {
    fn of<'a>(&self, stores: &'a [StoreRecord]) -> Option<(&'a StoreRecord, &'a PoolRecord)> {
        let store = stores.iter().find(|store| store.store == self.store)?;
        let mut pools = store.pools.iter();
        Some((store, pools.find(|pool| pool.prefix == self.prefix)?))
    }
}

async fn pool(State(glances): State<Arc<Glances>>, Parameters(which): Parameters<Which>) -> Answer {
    let glance = glances.latest().await?;
    let (store, pool) = which.of(&glance.pools.stores).ok_or(PageError::NoPool)?;
    let made = glance.pools.generated_at;
    let html = match which.block {
        Some(block) => html::block_page(&glance.pools.host, made, store, pool, block),
        None => html::pool_page(&glance.pools.host, made, store, pool),
    };
    Ok(written(html))
}

/// The rows of a pool, for the script to draw.
async fn map(
    State(glances): State<Arc<Glances>>,
    Parameters(which): Parameters<Which>,
    headers: HeaderMap,
) -> Answer {
    let glance = glances.latest().await?;
    let (_, pool) = which.of(&glance.pools.stores).ok_or(PageError::NoPool)?;
    let tag = html::version_of(pool);
    Ok(unless_known(&headers, &tag, || Json(html::drawn(pool))))
}

async fn story(State(glances): State<Arc<Glances>>, Path(address): Path<String>) -> Answer {
    let address = address.parse::<IpAddr>().ok().and_then(Address::from_ip);
    let address = address.ok_or(PageError::NoAddress)?;
    let query = |reply| Query::Explain(address, reply);
    let explain = answer(glances.queries(), PATIENCE, query).await;
    Ok(written(html::story_page(
        &explain.map_err(PageError::from)?,
    )))
}

/// Why there is nothing to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum PageError {
    #[error("The daemon is busy and gave no answer for 10 s.")]
    Slow,
    #[error("The daemon has more to do than it can take on: ask again.")]
    Busy,
    #[error("The daemon is stopping.")]
    Stopping,
    #[error("No store has such a pool now.")]
    NoPool,
    #[error("That is no address that a machine can have.")]
    NoAddress,
}

impl From<ApiError> for PageError {
    fn from(error: ApiError) -> Self {
        match error {
            ApiError::Slow => Self::Slow,
            ApiError::Busy => Self::Busy,
            _ => Self::Stopping,
        }
    }
}

impl IntoResponse for PageError {
    fn into_response(self) -> Response {
        let status = match self {
            Self::Slow => StatusCode::GATEWAY_TIMEOUT,
            Self::Busy | Self::Stopping => StatusCode::SERVICE_UNAVAILABLE,
            Self::NoPool => StatusCode::NOT_FOUND,
            Self::NoAddress => StatusCode::BAD_REQUEST,
        };
        (status, written(html::problem_page(&self.to_string()))).into_response()
    }
}

#[cfg(test)]
mod tests;
