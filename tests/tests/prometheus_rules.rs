//! The rules in deploy/prometheus and their runbooks: right by the real promtool, each alert
//! explained, tested both ways, and naming only what exists. What the real daemon has them
//! do is in `alerts`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use clap::CommandFactory as _;
use ipam_agent::cli::Cli;
use serde_json::Value;
use tests::{prometheus, skip};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn yaml(text: &str) -> Result<Value> {
    Ok(serde_saphyr::from_str(text)?)
}

fn list<'a>(document: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    document[key].as_array().into_iter().flatten()
}

fn text<'a>(value: &'a Value, key: &str) -> Result<&'a str> {
    value[key]
        .as_str()
        .with_context(|| format!("no {key}: {value:#}"))
}

/// Every alerting rule.
fn alerts() -> Result<Vec<Value>> {
    let rules = yaml(&prometheus::rules()?)?;
    let all = list(&rules, "groups").flat_map(|group| list(group, "rules"));
    let alerts: Vec<Value> = all
        .filter(|rule| rule["alert"].is_string())
        .cloned()
        .collect();
    ensure!(alerts.len() > 20, "{} alerts", alerts.len());
    Ok(alerts)
}

fn names() -> Result<BTreeSet<String>> {
    let names = alerts()?
        .into_iter()
        .map(|alert| Ok(text(&alert, "alert")?.to_owned()));
    names.collect()
}

fn files(directory: &str, ending: &str) -> Result<Vec<(String, String)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(root().join(directory))? {
        let path = entry?.path();
        let name = path.file_name().context("a name")?.to_string_lossy();
        if let Some(stem) = name.strip_suffix(ending) {
            files.push((stem.to_owned(), fs::read_to_string(&path)?));
        }
    }
    files.sort();
    Ok(files)
}

#[test]
fn promtool_takes_the_rules_and_their_unit_tests_hold() -> Result<()> {
    if let Err(why) = prometheus::available() {
        skip::skip(&why);
        return Ok(());
    }
    let place = root().join("deploy/prometheus");
    let promtool = |args: &[&str]| -> Result<()> {
        let mut command = Command::new(prometheus::program("promtool")?);
        let output = command.args(args).current_dir(&place).output()?;
        let told = String::from_utf8_lossy(&output.stdout);
        let complained = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "promtool {args:?}:\n{told}{complained}"
        );
        Ok(())
    };
    promtool(&["check", "rules", "--lint=all", "--lint-fatal", "rules.yaml"])?;
    let tests = files("deploy/prometheus/tests", ".yaml")?;
    ensure!(!tests.is_empty(), "no unit tests");
    for (name, _) in tests {
        promtool(&["test", "rules", &format!("tests/{name}.yaml")])?;
    }
    Ok(())
}

#[test]
fn each_alert_says_what_is_wrong_how_badly_and_where_to_read_on() -> Result<()> {
    for alert in alerts()? {
        let name = text(&alert, "alert")?;
        let severity = text(&alert["labels"], "severity")?;
        ensure!(name.starts_with("Ipam"), "{name}");
        ensure!(
            ["critical", "warning", "info"].contains(&severity),
            "{name}: {severity}"
        );
        let notes = &alert["annotations"];
        let (summary, description) = (text(notes, "summary")?, text(notes, "description")?);
        ensure!((10..=80).contains(&summary.len()), "{name}: {summary}");
        ensure!(
            !summary.contains("{{"),
            "{name}: a summary is the same for all: {summary}"
        );
        ensure!(
            description.len() > 80 && description.ends_with('.'),
            "{name}: {description}"
        );
        // Where no series is, there is no label either.
        ensure!(
            description.contains("$labels.instance")
                || alert["expr"]
                    .as_str()
                    .is_some_and(|e| e.starts_with("absent")),
            "{name} doesn't say where: {description}"
        );
        let page = format!(
            "{}/blob/main/docs/runbooks/{name}.md",
            env!("CARGO_PKG_REPOSITORY")
        );
        ensure!(text(notes, "runbook_url")? == page, "{name}");
    }
    Ok(())
}

#[test]
fn each_alert_has_a_runbook_and_each_runbook_an_alert() -> Result<()> {
    let pages: BTreeMap<String, String> = files("docs/runbooks", ".md")?.into_iter().collect();
    let index = &pages["README"];
    let named: BTreeSet<String> = pages
        .keys()
        .filter(|name| *name != "README")
        .cloned()
        .collect();
    let names = names()?;
    ensure!(named == names, "{:?}", named.symmetric_difference(&names));
    for name in &names {
        ensure!(
            index.contains(&format!("[{name}]({name}.md)")),
            "{name} is not in the index"
        );
        let page = &pages[name];
        ensure!(page.starts_with(&format!("# {name}\n")), "{name}");
        let sections: Vec<&str> = page
            .lines()
            .filter_map(|line| line.strip_prefix("## "))
            .collect();
        let wanted = [
            "What it means",
            "What is at stake",
            "Look",
            "Mend",
            "When it is over",
        ];
        ensure!(sections == wanted, "{name}: {sections:?}");
        ensure!(
            page.split("\n## ")
                .skip(1)
                .all(|section| section.lines().count() > 2),
            "{name}"
        );
    }
    // Links lead somewhere.
    for (name, page) in &pages {
        for link in page
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            let file = link.split('#').next().unwrap_or_default();
            let path = root().join("docs/runbooks").join(file);
            ensure!(
                link.starts_with("https://") || path.is_file(),
                "{name}: {link}"
            );
        }
    }
    Ok(())
}

/// The commands of the agent that a text tells people to run: on lines of their own, and
/// between backticks.
fn commands(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let lines = text.lines().filter_map(|line| line.strip_prefix("    "));
    let inline = text.split('`').skip(1).step_by(2);
    for code in lines.chain(inline) {
        // What comes before is the shell's, as is what comes behind.
        let Some(at) = code.find("ipam-agent ") else {
            continue;
        };
        let ours = at == 0 || code[..at].ends_with("-- ");
        if ours {
            let command = code[at..].split(['#', '|', ';', '>']).next();
            let words: Vec<&str> = command.unwrap_or_default().split_whitespace().collect();
            found.push(words.join(" "));
        }
    }
    found
}

#[test]
fn runbooks_and_alerts_name_only_commands_that_exist() -> Result<()> {
    let mut texts = files("docs/runbooks", ".md")?;
    for alert in alerts()? {
        let name = text(&alert, "alert")?.to_owned();
        texts.push((name, text(&alert["annotations"], "description")?.to_owned()));
    }
    let mut seen = 0;
    for (name, text) in texts {
        for command in commands(&text) {
            // Placeholders are in capitals.
            let words = command.split(' ').map(|word| match word {
                "ADDRESS" => "10.0.0.1",
                "ID" => "1",
                "IFACE" => "cni0",
                other => other,
            });
            if command.contains("COMMAND") {
                continue;
            }
            seen += 1;
            if let Err(error) = Cli::command().try_get_matches_from(words) {
                // `ipam-agent reclaim`, with nothing behind it, asks for help.
                ensure!(!error.use_stderr(), "{name}: `{command}`: {error}");
            }
        }
    }
    ensure!(seen > 80, "only {seen} commands were found");
    Ok(())
}

#[test]
fn each_alert_is_tested_firing_and_silent() -> Result<()> {
    let mut tested: BTreeMap<(String, String), u32> = BTreeMap::new();
    let mut silent: BTreeSet<String> = BTreeSet::new();
    for (_, file) in files("deploy/prometheus/tests", ".yaml")? {
        let file = yaml(&file)?;
        for test in list(&file, "tests").flat_map(|test| list(test, "alert_rule_test")) {
            let name = text(test, "alertname")?.to_owned();
            if list(test, "exp_alerts").next().is_none() {
                silent.insert(name.clone());
            }
            for alert in list(test, "exp_alerts") {
                let severity = text(&alert["exp_labels"], "severity")?.to_owned();
                *tested.entry((name.clone(), severity)).or_default() += 1;
            }
        }
    }
    for alert in alerts()? {
        let (name, severity) = (text(&alert, "alert")?, text(&alert["labels"], "severity")?);
        let key = (name.to_owned(), severity.to_owned());
        ensure!(
            tested.contains_key(&key),
            "no unit test has {name} ({severity}) fire"
        );
        ensure!(silent.contains(name), "no unit test has {name} silent");
    }
    Ok(())
}

/// Helm reads only what is inside the chart; the sources are outside, once.
#[test]
fn the_chart_holds_the_same_files() -> Result<()> {
    for (inside, outside) in [
        ("rules.yaml", "deploy/prometheus/rules.yaml"),
        ("dashboard.json", "deploy/grafana/ipam-agent.json"),
    ] {
        let inside = fs::read(root().join("deploy/chart/files").join(inside))?;
        ensure!(
            inside == fs::read(root().join(outside))?,
            "{outside} differs in the chart"
        );
    }
    Ok(())
}
