//! What kubectl does, over HTTP: documents applied to an API server, dry or for real, and
//! read from it.

use std::{
    io::Write as _,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// An API server and who asks it.
#[derive(Clone, Debug)]
pub struct Api {
    /// Its URL.
    pub server: String,
    /// The certificate that it is known by.
    pub certificate: PathBuf,
    /// The token of who asks.
    pub token: String,
}

/// Whether what is applied is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Apply {
    /// The server checks it whole, as `kubectl apply --server-side --dry-run=server` has it
    /// do, and keeps nothing.
    Dry,
    /// It is kept.
    Real,
}

impl Api {
    /// What is at this path.
    pub fn get(&self, path: &str) -> Result<Value> {
        self.call("GET", path, None)
    }

    /// Whether the server says that it is ready.
    pub fn ready(&self) -> bool {
        self.ask("GET", "/readyz", None)
            .is_ok_and(|(status, _)| status == 200)
    }

    /// Deletes what is at this path.
    pub fn delete(&self, path: &str) -> Result<Value> {
        self.call("DELETE", path, None)
    }

    /// Applies a document; what the server made of it.
    pub fn apply(&self, document: &Value, apply: Apply) -> Result<Value> {
        let path = self.path(document)?;
        // What the server doesn't know it would drop without a word.
        let mut query = String::from("?fieldManager=tests&force=true");
        if apply == Apply::Dry {
            query.push_str("&dryRun=All");
        }
        let made = self.call("PATCH", &(path.clone() + &query), Some(document))?;
        if let Some(lost) = lost(document, &made, "") {
            bail!("{path}: the server knows no {lost}");
        }
        Ok(made)
    }

    /// Where a document belongs, by what the server says of its kind.
    fn path(&self, document: &Value) -> Result<String> {
        let text = |pointer: &str| document.pointer(pointer).and_then(Value::as_str);
        let version = text("/apiVersion").context("no apiVersion")?;
        let (kind, name) = (text("/kind"), text("/metadata/name"));
        let (kind, name) = (kind.context("no kind")?, name.context("no name")?);
        let group = match version.contains('/') {
            true => format!("/apis/{version}"),
            false => format!("/api/{version}"),
        };
        let known = self.get(&group)?;
        let mut resources = known["resources"].as_array().into_iter().flatten();
        let resource = resources
            .find(|resource| {
                let plural = resource["name"].as_str().unwrap_or_default();
                resource["kind"] == *kind && !plural.contains('/')
            })
            .with_context(|| format!("{version} has no {kind}"))?;
        let plural = resource["name"].as_str().unwrap_or_default();
        if resource["namespaced"] == true {
            let namespace = text("/metadata/namespace").unwrap_or("default");
            Ok(format!("{group}/namespaces/{namespace}/{plural}/{name}"))
        } else {
            Ok(format!("{group}/{plural}/{name}"))
        }
    }

    fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let (status, answer) = self.ask(method, path, body)?;
        let answer: Value = serde_json::from_str(&answer)
            .with_context(|| format!("{method} {path}: {status}: {answer}"))?;
        ensure!(
            (200..300).contains(&status),
            "{method} {path}: {status}: {}",
            answer["message"].as_str().unwrap_or_default()
        );
        Ok(answer)
    }

    /// The status and the body of the answer.
    fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Result<(u16, String)> {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--globoff"])
            .args(["--noproxy", "*", "--max-time", "30"])
            .args(["--request", method, "--write-out", "\n%{http_code}"])
            .args(["--header", &format!("Authorization: Bearer {}", self.token)])
            .arg("--cacert")
            .arg(&self.certificate);
        if body.is_some() {
            curl.args(["--header", "Content-Type: application/apply-patch+yaml"]);
            curl.args(["--data-binary", "@-"]);
        }
        let mut curl = curl
            .arg(format!("{}{path}", self.server))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("can't run curl: run `cargo xtask setup`")?;
        if let (Some(mut stdin), Some(body)) = (curl.stdin.take(), body) {
            // JSON is YAML.
            stdin.write_all(body.to_string().as_bytes())?;
        }
        let output = curl.wait_with_output()?;
        ensure!(
            output.status.success(),
            "{method} {path}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        let answer = String::from_utf8_lossy(&output.stdout);
        let (body, status) = answer.rsplit_once('\n').context("curl tells a status")?;
        Ok((status.parse()?, body.to_owned()))
    }
}

/// The first field of `sent` that `made` lacks: what the server doesn't know it drops.
fn lost(sent: &Value, made: &Value, place: &str) -> Option<String> {
    match (sent, made) {
        (Value::Object(sent), Value::Object(made)) => sent.iter().find_map(|(key, value)| {
            let place = format!("{place}.{key}");
            match made.get(key) {
                Some(made) => lost(value, made, &place),
                None => (!is_empty(value)).then_some(place),
            }
        }),
        (Value::Array(sent), Value::Array(made)) if sent.len() == made.len() => {
            let mut pairs = sent.iter().zip(made).enumerate();
            pairs.find_map(|(n, (sent, made))| lost(sent, made, &format!("{place}[{n}]")))
        }
        (Value::Array(_), _) => Some(place.to_owned()),
        _ => None,
    }
}

/// What an API leaves out: it says nothing.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(yes) => !yes,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}
