//! The documentation: every command in it is run, and prints what the page shows; every
//! configuration is read by the agent's own parsers; every link leads somewhere.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use tests::{docs, runtime::in_lab};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every page that people read.
fn pages() -> Vec<PathBuf> {
    let mut pages = vec![root().join("README.md")];
    let mut directories = vec![root().join("docs")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).expect("a directory").flatten() {
            let path = entry.path();
            match path.extension() {
                _ if path.is_dir() => directories.push(path),
                Some(extension) if extension == "md" => pages.push(path),
                _ => {}
            }
        }
    }
    pages.sort();
    pages
}

fn run(page: &'static str) {
    in_lab(move |lab| docs::run(lab, &root().join(page)));
}

macro_rules! run {
    ($($name:ident: $page:literal,)+) => {
        const RUN: &[&str] = &[$($page),+];
        $(#[test] fn $name() { run($page); })+
    };
}

run! {
    readme: "README.md",
    index: "docs/README.md",
    concepts: "docs/concepts.md",
    configuration: "docs/configuration.md",
    host_local: "docs/stores/host-local.md",
    lease_file: "docs/stores/file.md",
    harvester: "docs/harvester.md",
    security: "docs/security.md",
    upgrade_and_uninstall: "docs/upgrade-and-uninstall.md",
    faq: "docs/faq.md",
}

/// A page that has commands is run; what others show is read at least.
#[test]
fn every_page_with_commands_is_run() -> Result<()> {
    let run: BTreeSet<PathBuf> = RUN.iter().map(|page| root().join(page)).collect();
    for page in pages().iter().filter(|page| !run.contains(*page)) {
        let text = fs::read_to_string(page)?;
        ensure!(
            !text.contains("```console"),
            "{} has commands that no test runs: add it to `run!`",
            page.display()
        );
    }
    Ok(())
}

/// Links within the project lead to files that are there, and to headings that are in them.
#[test]
fn links_lead_somewhere() -> Result<()> {
    for page in pages() {
        let text = fs::read_to_string(&page)?;
        for link in text.split("](").skip(1) {
            let link = link.split(')').next().unwrap_or_default();
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => page.clone(),
                file => page.with_file_name(file),
            };
            ensure!(target.exists(), "{}: {link} leads nowhere", page.display());
            if !heading.is_empty() && target.extension().is_some_and(|it| it == "md") {
                let text = fs::read_to_string(&target)?;
                let mut headings = text.lines().filter(|line| line.starts_with('#'));
                ensure!(
                    headings.any(|line| anchor(line) == heading),
                    "{}: {} has no heading #{heading}",
                    page.display(),
                    target.display()
                );
            }
        }
    }
    Ok(())
}

/// A heading's anchor, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// `--help` of each command shows how it is used: each example is run as it stands, on a host
/// where the things it names are there, and does what the help says.
#[test]
fn examples_of_help() {
    in_lab(|lab| {
        let mut world = docs::World::new(lab)?;
        world.prepare_for_examples()?;
        let mut commands = Vec::new();
        subcommands(&mut world, "", &mut commands)?;
        let mut run = 0;
        for command in commands {
            let help = world.run(&format!("ipam-agent {command} --help"))?;
            let (_, examples) = help
                .output
                .split_once("Examples:\n")
                .with_context(|| format!("`ipam-agent {command} --help` has no examples"))?;
            for example in examples.lines().take_while(|line| line.starts_with("  ")) {
                let example = example.trim();
                // What goes on until it is ended, or takes a person or the whole machine.
                let Some(example) = runnable(example) else {
                    continue;
                };
                let ran = world.run(&example)?;
                ensure!(
                    matches!(ran.status, 0 | 1 | 3),
                    "`{example}` of `{command} --help` ended with {}:\n{}",
                    ran.status,
                    ran.output
                );
                run += 1;
            }
        }
        ensure!(run >= 40, "only {run} examples were run");
        world.end()
    });
}

/// Every command that does something, as it is typed.
fn subcommands(world: &mut docs::World<'_>, parent: &str, found: &mut Vec<String>) -> Result<()> {
    let help = world.run(&format!("ipam-agent {parent} --help"))?;
    let listed = help.output.split_once("\nCommands:\n");
    let Some((_, listed)) = listed else {
        found.push(parent.to_owned());
        return Ok(());
    };
    for line in listed.lines().take_while(|line| line.starts_with("  ")) {
        let name = line.split_whitespace().next().unwrap_or_default();
        // Lines further in go on with what a command does.
        if name == "help" || line.starts_with("   ") {
            continue;
        }
        subcommands(world, format!("{parent} {name}").trim(), found)?;
    }
    Ok(())
}

/// The example, or with an end to it; none of what would end the test's own host.
fn runnable(example: &str) -> Option<String> {
    let words: Vec<&str> = example.split_whitespace().collect();
    match words.as_slice() {
        // A live view: tests/tests/terminal.rs. The daemon: this test's own runs.
        ["ipam-agent", "top"] | ["ipam-agent", "run", ..] => None,
        // Of a release that there is: docs/harvester.md.
        ["ipam-agent", "reclaim", "undo", ..] => None,
        // Asks, and there is nobody; with `--yes` it is run.
        ["ipam-agent", "reclaim", "apply"] | ["ipam-agent", "uninstall", ..] => None,
        ["ipam-agent", "watch", ..] => Some(format!("timeout 2 {example}; true")),
        // What would be written into the machine's own directories is written here.
        _ => {
            let example = example.replace("timeout 60", "timeout 2");
            Some(match example.split_once(" > ") {
                Some((command, _)) => format!("{command} > written && test -s written"),
                None => example,
            })
        }
    }
}
