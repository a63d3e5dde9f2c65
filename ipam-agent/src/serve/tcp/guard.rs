//! What may be asked over TCP at all: read-only, and on loopback by this host's own
//! programs and pages, not by a web page from elsewhere that somebody looks at.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use axum::{
    Json, Router,
    extract::Request,
    http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header, uri::Authority},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use serde_json::json;

/// The same routes, guarded; `address` is where they are served.
pub fn guarded(routes: Router, address: SocketAddr) -> Router {
    let address = Arc::new(address);
    routes.layer(middleware::from_fn(move |request, next| {
        let address = Arc::clone(&address);
        async move { admit(*address, request, next).await }
    }))
}

async fn admit(address: SocketAddr, request: Request, next: Next) -> Response {
    let mut response = match refusal(address, &request) {
        Some((status, why)) => (status, Json(json!({ "error": why }))).into_response(),
        None => next.run(request).await,
    };
    if response.status() == StatusCode::METHOD_NOT_ALLOWED {
        response
            .headers_mut()
            .insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    let headers = response.headers_mut();
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        // What is told changes by the second, and is for nobody's disk.
        (header::CACHE_CONTROL, "no-store"),
        (
            header::HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
    ] {
        headers
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    }
    response
}

fn refusal(address: SocketAddr, request: &Request) -> Option<(StatusCode, &'static str)> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let why =
            "only GET and HEAD over TCP: what changes something is asked for on the unix socket";
        return Some((StatusCode::METHOD_NOT_ALLOWED, why));
    }
    if !address.ip().is_loopback() {
        return None;
    }
    // A page whose name resolves to a loopback address since it was loaded (DNS rebinding).
    if !named(request).all(|name| is_local(&name, address.ip())) {
        let why = "this name is not this host's loopback: ask by localhost or by address";
        return Some((StatusCode::FORBIDDEN, why));
    }
    if is_foreign(request.headers()) {
        let why = "asked by a page from elsewhere";
        return Some((StatusCode::FORBIDDEN, why));
    }
    None
}

/// By which names the request calls us: its target's, if it has one, and its Host's. What
/// is no name is one that is nobody's.
fn named(request: &Request) -> impl Iterator<Item = String> {
    let name = |authority: &Authority| authority.host().to_owned();
    let target = request.uri().authority().map(name);
    let hosts = request
        .headers()
        .get_all(header::HOST)
        .iter()
        .map(move |host| {
            let host = host.to_str().ok().and_then(|host| host.parse().ok());
            host.as_ref().map(name).unwrap_or_default()
        });
    let hosts: Vec<String> = hosts.collect();
    // HTTP/1.0 knows no Host, and no browser speaks it.
    let none = hosts.is_empty() && request.version() != Version::HTTP_10;
    target
        .into_iter()
        .chain(hosts)
        .chain(none.then(String::new))
}

fn is_local(name: &str, address: IpAddr) -> bool {
    let name = name.trim_start_matches('[').trim_end_matches(']');
    match name.parse::<IpAddr>() {
        Ok(ip) => ip.is_loopback() || ip == address,
        Err(_) => name.eq_ignore_ascii_case("localhost"),
    }
}

/// Whether a browser says that a page of another origin asks, other than by a link that
/// somebody followed (Fetch Metadata).
fn is_foreign(headers: &HeaderMap) -> bool {
    let is = |name: &str, value: &str| headers.get(name).is_some_and(|said| said == value);
    let site = headers.get("sec-fetch-site");
    let foreign = site.is_some_and(|site| site != "same-origin" && site != "none");
    let followed = is("sec-fetch-mode", "navigate") && is("sec-fetch-dest", "document");
    foreign && !followed
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, routing::get};
    use tower_service::Service as _;

    use super::*;

    async fn ask(address: &str, request: axum::http::request::Builder) -> StatusCode {
        let routes = Router::new().route("/api/v1/report", get(async || "all"));
        let mut routes = guarded(routes, address.parse().expect("an address"));
        let request = request.body(Body::empty()).expect("a request");
        routes.call(request).await.expect("infallible").status()
    }

    fn request() -> axum::http::request::Builder {
        Request::builder().uri("/api/v1/report")
    }

    #[tokio::test]
    async fn on_loopback_only_names_of_loopback_are_answered() {
        for (address, host, status) in [
            ("127.0.0.1:9477", "localhost:9477", 200),
            ("127.0.0.1:9477", "LOCALHOST:1234", 200),
            ("127.0.0.1:9477", "127.0.0.1:9477", 200),
            ("127.0.0.1:9477", "127.0.0.1", 200),
            ("127.0.0.1:9477", "[::1]:8000", 200),
            ("[::1]:9477", "[::1]:9477", 200),
            ("127.0.0.1:9477", "evil.example:9477", 403),
            ("127.0.0.1:9477", "localhost.evil.example", 403),
            ("127.0.0.1:9477", "10.0.0.1:9477", 403),
            ("127.0.0.1:9477", "", 403),
            ("127.0.0.1:9477", "a b", 403),
            ("10.0.0.1:9477", "node1.example:9477", 200),
        ] {
            let got = ask(address, request().header("host", host)).await;
            assert_eq!(got, status, "{host} on {address}");
        }
        let address = "127.0.0.1:9477";
        assert_eq!(ask(address, request()).await, 403, "no Host at all");
        let old = request().version(Version::HTTP_10);
        assert_eq!(ask(address, old).await, 200);
        let two = request()
            .header("host", "localhost")
            .header("host", "evil.example");
        assert_eq!(ask(address, two).await, 403);
        let target = Request::builder().uri("http://evil.example/api/v1/report");
        assert_eq!(ask(address, target.header("host", "localhost")).await, 403);
    }

    #[tokio::test]
    async fn pages_from_elsewhere_get_nothing_but_links_work() {
        let address = "127.0.0.1:9477";
        for (site, mode, dest, status) in [
            ("same-origin", "cors", "empty", 200),
            ("none", "navigate", "document", 200),
            ("cross-site", "navigate", "document", 200),
            ("cross-site", "no-cors", "script", 403),
            ("cross-site", "cors", "empty", 403),
            ("same-site", "no-cors", "image", 403),
            ("cross-site", "navigate", "iframe", 403),
        ] {
            let request = request()
                .header("host", "localhost")
                .header("sec-fetch-site", site)
                .header("sec-fetch-mode", mode)
                .header("sec-fetch-dest", dest);
            assert_eq!(ask(address, request).await, status, "{site} {mode} {dest}");
        }
    }

    #[tokio::test]
    async fn nothing_but_reading() {
        for method in [
            "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT", "WHATEVER",
        ] {
            for address in ["127.0.0.1:9477", "10.0.0.1:9477"] {
                let request = request().method(method).header("host", "localhost");
                assert_eq!(ask(address, request).await, 405, "{method} on {address}");
            }
        }
        let request = request().method("HEAD").header("host", "localhost");
        assert_eq!(ask("127.0.0.1:9477", request).await, 200);
    }
}
