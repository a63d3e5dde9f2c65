//! The dashboard in deploy/grafana: every query of it is put to the real Prometheus, which
//! has scraped the real daemon on a host where something of everything happened.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::{
    picture::{self, Panel, Scene},
    prometheus::{self, Prometheus},
    runtime, skip,
};

/// Every word of an expression that names a metric of ours.
fn metrics(expression: &str, names: &mut BTreeSet<String>) {
    let word = |c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':');
    for name in expression.split(word) {
        let ours = name.starts_with("ipam_") || name.starts_with("process_");
        // A label's value is none: `ipam-agent` is split at its dash.
        if ours && !name.contains(':') {
            names.insert(name.to_owned());
        }
    }
}

fn known(prometheus: &Prometheus, name: &str) -> Result<bool> {
    let ever = format!("last_over_time({name}[10m])");
    Ok(!prometheus.query(&ever)?.is_empty())
}

#[test]
fn each_query_has_an_answer_and_each_metric_exists() {
    if let Err(why) = prometheus::available() {
        skip::skip(&why);
        return;
    }
    runtime::in_lab(|lab| {
        let Scene {
            prometheus,
            daemon: _daemon,
            begin,
        } = picture::play(lab)?;
        let range = (begin, picture::now()?);
        let dashboard = prometheus::dashboard()?;
        let mut names = BTreeSet::new();
        let mut empty = Vec::new();
        for panel in Panel::all(&dashboard) {
            for target in panel.targets() {
                let expression = target["expr"].as_str().context("no expression")?;
                metrics(expression, &mut names);
                let series = panel.ask(target, &prometheus, range)?;
                let points: usize = series.iter().map(|series| series.values.len()).sum();
                if points == 0 {
                    empty.push(format!("{}: {expression}", panel.title()));
                }
                for series in series {
                    ensure!(
                        !series.name.contains("{{"),
                        "{}: {}",
                        panel.title(),
                        series.name
                    );
                }
            }
        }
        ensure!(empty.is_empty(), "nothing for\n{}", empty.join("\n"));

        // Each variable has something to choose from.
        let variables = dashboard["templating"]["list"]
            .as_array()
            .context("no variables")?;
        let queries = variables
            .iter()
            .filter(|variable| variable["type"] == "query");
        for variable in queries {
            let query = variable["query"]["query"].as_str().context("no query")?;
            let inside = query
                .strip_prefix("label_values(")
                .and_then(|rest| rest.strip_suffix(')'));
            let (series, label) = inside
                .and_then(|inside| inside.rsplit_once(", "))
                .context("no label_values")?;
            metrics(series, &mut names);
            let found = prometheus.query(&picture::filled(series))?;
            ensure!(
                found
                    .iter()
                    .any(|series| series["metric"][label].is_string()),
                "{query}"
            );
        }
        let notes = dashboard["annotations"]["list"]
            .as_array()
            .context("no annotations")?;
        for note in notes.iter().filter_map(|note| note["expr"].as_str()) {
            let alerts = prometheus.range(&picture::filled(note), range.0, range.1, 0.5)?;
            ensure!(!alerts.is_empty(), "{note}");
        }

        // The rules as Prometheus read them: none failed, each metric exists.
        let rules = prometheus.rules()?;
        let groups = rules["groups"].as_array().context("no groups")?;
        let all = groups
            .iter()
            .flat_map(|group| group["rules"].as_array().into_iter().flatten());
        for rule in all {
            ensure!(rule["health"] == "ok", "{rule:#}");
            metrics(rule["query"].as_str().unwrap_or_default(), &mut names);
        }
        ensure!(names.len() > 25, "{names:?}");
        let mut unknown = Vec::new();
        for name in &names {
            if !known(&prometheus, name)? {
                unknown.push(name);
            }
        }
        ensure!(unknown.is_empty(), "no such metrics: {unknown:?}");
        Ok(())
    });
}

#[test]
fn panels_are_whole_and_do_not_overlap() -> Result<()> {
    let dashboard = prometheus::dashboard()?;
    let panels = Panel::all(&dashboard);
    let mut ids = BTreeSet::new();
    let mut cells = BTreeSet::new();
    for panel in &panels {
        let title = panel.title();
        ensure!(
            ids.insert(panel.json["id"].as_u64()),
            "{title}: an id twice"
        );
        ensure!(!title.is_empty(), "{:#}", panel.json);
        let [x, y, w, h] = panel.place().map(|at| at as u64);
        ensure!(x + w <= 24 && w > 0 && h > 0, "{title}");
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            ensure!(cells.insert(cell), "{title} overlaps");
        }
        if panel.kind() == "row" {
            continue;
        }
        ensure!(
            panel.json["description"].is_string(),
            "{title}: no description"
        );
        ensure!(
            panel.json["datasource"]["uid"] == "${datasource}",
            "{title}"
        );
        ensure!(panel.targets().count() > 0, "{title}");
        for target in panel.targets() {
            ensure!(target["datasource"]["uid"] == "${datasource}", "{title}");
        }
    }
    let version = dashboard["schemaVersion"].as_u64();
    ensure!(version >= Some(39), "{version:?}");
    ensure!(dashboard["id"] == Value::Null, "an id is a server's");
    Ok(())
}
