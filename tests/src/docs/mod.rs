//! The documentation as a test: every command in a ```` ```console ```` block is run, in the
//! order of the page, on a throw-away host, and what it prints is compared with what the page
//! shows; every ```` ```yaml ```` block is read by the agent's own parsers.
//!
//! What a page needs to have happened in between stands in comments that a reader doesn't
//! see: `<!-- lab: power-cut -->` ([`World::act`]). A block that can't be run here says why:
//! `<!-- not run: it takes a cluster -->`.

mod examples;
mod mask;
mod page;
mod world;

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use ipam_agent::config::{Config, Overrides};
use snapbox::{Assert, IntoData, assert::Action};

pub use self::{
    mask::masked,
    page::{Command, Item, items},
    world::World,
};
use crate::lab::Lab;

/// Runs a page. With `UPDATE` in the environment what is shown is written anew where it
/// differs.
pub fn run(lab: &mut Lab, path: &Path) -> Result<()> {
    let text = fs::read_to_string(path).with_context(|| format!("no {}", path.display()))?;
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let mut world = World::new(lab)?;
    let mut wrong = String::new();
    // From its end, so that lines that are written anew move no others.
    let mut rewritten = Vec::new();
    for item in items(&text)? {
        let at = |line: usize| format!("{}:{line}", path.display());
        match item {
            Item::Lab { line, what } => world
                .act(&what)
                .with_context(|| format!("{}: {what}", at(line)))?,
            Item::Config { line, text } => {
                let parsed = Config::parse(path, &text, Overrides::default());
                parsed.with_context(|| format!("{}: no configuration", at(line)))?;
                world.shown = Some(text);
            }
            Item::Leases { line, text } => {
                leases(&text).with_context(|| format!("{}: no lease file", at(line)))?;
                world.shown = Some(text);
            }
            Item::Command(command) => {
                let ran = world
                    .run(&command.text)
                    .with_context(|| format!("{}: {}", at(command.line), command.text))?;
                let as_said = match command.status {
                    Some(status) => ran.status == status,
                    // Found something, or could not look: not an error.
                    None => matches!(ran.status, 0 | 1 | 3),
                };
                ensure!(
                    as_said,
                    "{}: `{}` ended with {}:\n{}",
                    at(command.line),
                    command.text,
                    ran.status,
                    ran.output
                );
                if let Err(difference) = compare(&command.output, &ran.output) {
                    wrong += &format!("\n{}: $ {}\n{difference}\n", at(command.line), command.text);
                    rewritten.push((command.shown, ran.output));
                }
            }
        }
    }
    world.end()?;
    if std::env::var_os("UPDATE").is_some() {
        for (shown, output) in rewritten.into_iter().rev() {
            lines.splice(shown, output.trim_end().lines().map(str::to_owned));
        }
        fs::write(path, lines.join("\n") + "\n")?;
        return Ok(());
    }
    ensure!(
        wrong.is_empty(),
        "what the page shows is not what is printed; UPDATE=1 writes it anew:\n{wrong}"
    );
    Ok(())
}

/// Whether it is the same but for times, ids and the like; if not, the difference.
fn compare(expected: &str, actual: &str) -> Result<(), String> {
    let assert = Assert::new().action(Action::Verify);
    let (expected, actual) = (masked(expected), masked(actual));
    let result = assert.try_eq(None, actual.into_data(), expected.into_data());
    result.map_err(|error| error.to_string())
}

fn leases(text: &str) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("leases.yaml");
    fs::write(&file, text)?;
    let source = format!("file:{}", file.display());
    let read = crate::daemon::agent(&["leases", "--leases", &source, "--output", "json"])?;
    let read = read.json()?;
    let leases = read["leases"].as_array();
    ensure!(leases.is_some_and(|leases| !leases.is_empty()), "{read:#}");
    Ok(())
}
