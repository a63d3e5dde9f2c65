//! `cargo xtask manifests`: the plain manifests that are made of the chart.

use std::{
    fs,
    io::Write as _,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail};
use serde::Deserialize;
use serde_json::json;

use crate::{machine, setup};

/// `cargo xtask manifests`'s arguments.
#[derive(clap::Args)]
pub struct Args {
    /// Only compare: fails if they are not what the chart renders to
    #[arg(long)]
    check: bool,
}

/// Where they are.
const DIRECTORY: &str = "deploy/kustomize";
const HEADER: &str = "# Made of deploy/chart by `cargo xtask manifests`.\n";
/// What is Helm's, or the work of kustomize.
const LEFT_OUT: [&str; 4] = [
    "app.kubernetes.io/managed-by:",
    "helm.sh/chart:",
    "checksum/config:",
    "namespace:",
];

#[derive(Deserialize)]
struct Answer {
    renders: Vec<Rendered>,
}

#[derive(Deserialize)]
struct Rendered {
    #[serde(default)]
    texts: std::collections::BTreeMap<String, String>,
    #[serde(default)]
    objects: Vec<serde_json::Value>,
    error: Option<String>,
}

/// Make them, or compare.
pub fn run(args: &Args) -> anyhow::Result<()> {
    setup::helm()?;
    for (name, text) in made()? {
        let file = machine::root().join(DIRECTORY).join(name);
        if !args.check {
            fs::write(&file, text).with_context(|| format!("can't write {}", file.display()))?;
        } else if fs::read_to_string(&file).unwrap_or_default() != text {
            bail!("{DIRECTORY}/{name} is not what the chart renders to: `cargo xtask manifests`");
        }
    }
    Ok(())
}

fn made() -> anyhow::Result<Vec<(&'static str, String)>> {
    let rendered = render()?;
    let mut made = Vec::new();
    for name in ["daemonset.yaml", "serviceaccount.yaml"] {
        let text = rendered.texts.get(name).context("no such template")?;
        let lines = text.trim().lines();
        let kept = lines.filter(|line| !LEFT_OUT.iter().any(|word| line.trim().starts_with(word)));
        let kept: Vec<_> = kept.collect();
        made.push((name, format!("{HEADER}{}\n", kept.join("\n"))));
    }
    let mut objects = rendered.objects.iter();
    let config = objects.find(|object| object["kind"] == "ConfigMap");
    let config = config.and_then(|config| config["data"]["config.yaml"].as_str());
    let config = config.context("the chart has no configuration")?;
    made.push(("config.yaml", format!("{HEADER}{config}")));
    Ok(made)
}

/// The chart with its default values.
fn render() -> anyhow::Result<Rendered> {
    let request = json!({
        "chart": machine::root().join("deploy/chart").canonicalize()?,
        "renders": [{ "name": "ipam-agent", "namespace": "ipam-agent" }],
    });
    let script: PathBuf = machine::root().join("tests/helm/helm.py");
    let mut helm = Command::new("python3")
        .arg("-B")
        .arg(script)
        .env("PYTHONPATH", machine::helm()?)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("no python3")?;
    let mut stdin = helm.stdin.take().context("a pipe")?;
    stdin.write_all(request.to_string().as_bytes())?;
    drop(stdin);
    let output = helm.wait_with_output()?;
    if !output.status.success() {
        bail!("Helm: {}", output.status);
    }
    let mut answer: Answer = serde_json::from_slice(&output.stdout)?;
    let rendered = answer.renders.pop().context("nothing rendered")?;
    match rendered.error {
        Some(error) => bail!("deploy/chart: {error}"),
        None => Ok(rendered),
    }
}
