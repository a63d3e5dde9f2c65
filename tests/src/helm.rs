//! The chart, rendered by Helm's own engine, and manifests, read and checked.

use std::{
    collections::BTreeMap,
    env,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Renders the chart and checks what comes of it; `None` where it is skipped.
///
/// # Panics
///
/// Where skips are failures.
pub fn ask(request: &Request) -> Option<Result<Answer>> {
    let Some(library) = library() else {
        crate::skip::skip("there is no Helm: run `cargo xtask setup`");
        return None;
    };
    Some(run(&library, request))
}

/// What is asked of it; paths are absolute.
#[derive(Debug, Default, Serialize)]
pub struct Request {
    /// A chart's directory, or its archive.
    pub chart: PathBuf,
    /// How it is to be rendered.
    pub renders: Vec<Render>,
    /// Manifests to be read.
    pub files: Vec<PathBuf>,
    /// Which Kubernetes's schemas all of that is checked by.
    pub versions: Vec<String>,
}

/// One way to render a chart.
#[derive(Debug, Serialize)]
pub struct Render {
    /// The release's.
    pub name: String,
    /// The release's.
    pub namespace: String,
    /// As one would write them, in YAML.
    pub yaml: String,
}

/// What came of it.
#[derive(Debug, Deserialize)]
pub struct Answer {
    /// Of the chart.
    pub lint: Vec<Finding>,
    /// In the order in which they were asked for.
    pub renders: Vec<Rendered>,
    /// Each one's manifests.
    pub files: Vec<Vec<Value>>,
    /// What Kubernetes's schemas have against any of it.
    pub invalid: Vec<String>,
}

/// What Helm thinks of a chart.
#[derive(Debug, Deserialize)]
pub struct Finding {
    /// 1: a hint, 2: a warning, 3: an error.
    pub severity: u8,
    /// In which file.
    pub path: String,
    /// What.
    pub error: String,
}

/// A chart rendered, or why it isn't.
#[derive(Debug, Deserialize)]
pub struct Rendered {
    /// By the name of the template.
    #[serde(default)]
    pub texts: BTreeMap<String, String>,
    /// All manifests.
    #[serde(default)]
    pub objects: Vec<Value>,
    /// Why there are none.
    pub error: Option<String>,
}

impl Rendered {
    /// The first object of this kind.
    pub fn object(&self, kind: &str) -> Result<&Value> {
        let mut objects = self.objects.iter();
        let found = objects.find(|object| object["kind"] == kind);
        found.with_context(|| format!("no {kind}: {:?}", self.error))
    }
}

/// Where `cargo xtask setup` installs it.
fn library() -> Option<PathBuf> {
    let home = || Some(env::home_dir()?.join(".cache"));
    let cache = env::var_os("XDG_CACHE_HOME").filter(|dir| !dir.is_empty());
    let cache = cache.map(PathBuf::from).or_else(home)?;
    Some(cache.join("ipam-agent/helm-4.2.3")).filter(|library| library.is_dir())
}

/// Others' code: it gets neither a network nor a capability of this machine's.
fn run(library: &Path, request: &Request) -> Result<Answer> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("helm/helm.py");
    let mut helm = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "python3", "-B"])
        .arg(script)
        .env("PYTHONPATH", library)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stdin = helm.stdin.take().context("a pipe")?;
    stdin.write_all(&serde_json::to_vec(request)?)?;
    drop(stdin);
    let output = helm.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "Helm: {}: {said}", output.status);
    Ok(serde_json::from_slice(&output.stdout)?)
}
