//! `ipam-agent man`

use std::io::Write as _;

use clap::{Args, Command, CommandFactory as _};
use clap_mangen::{
    Man,
    roff::{Roff, bold, roman},
};

use super::{Cli, CliError, Io, Status};

/// The manual, every command in one page, for man(1).
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ipam-agent man | man -l -
  ipam-agent man > /usr/local/share/man/man8/ipam-agent.8")]
pub struct ManArgs {}

impl ManArgs {
    pub(super) fn run(self, io: &mut Io<'_>) -> Result<Status, CliError> {
        io.put(&page().map_err(CliError::Write)?)?;
        Ok(Status::Nothing)
    }
}

/// Where things are, as far as no option moves them.
const FILES: [(&str, &str); 5] = [
    (
        "/etc/ipam-agent/config.yaml",
        "The configuration; without it all is default.",
    ),
    (
        "/run/ipam-agent/agent.sock",
        "The daemon's socket, for root and its group.",
    ),
    (
        "/var/lib/ipam-agent/journal.jsonl",
        "Each release with its proof, written before the store is touched.",
    ),
    (
        "/var/lib/ipam-agent/state.redb",
        "What must survive a reboot; it can be lost, and nothing is released for it.",
    ),
    (
        "/sys/fs/bpf/ipam-agent",
        "What the program in the kernel saw, for the agent that starts next.",
    ),
];

const ENVIRONMENT: [(&str, &str); 3] = [
    ("NO_COLOR", "Set to anything, nothing is coloured."),
    (
        "RUST_LOG",
        "What is logged: error, warn, info (the daemon's default), debug or trace.",
    ),
    (
        "KUBERNETES_SERVICE_HOST",
        "Set in a pod: the daemon then finds its own sandbox before it believes a list of them.",
    ),
];

const EXIT_STATUS: [(&str, &str); 4] = [
    ("0", "Nothing was found, or all was done."),
    ("1", "Something was found, or something is left."),
    ("2", "An error."),
    (
        "3",
        "It could not look: no daemon, or a wire that isn't watched.",
    ),
];

/// Stands for an empty word, which [`Roff`] would leave out.
const NO_DATE: &str = "NODATE";

/// The whole manual.
fn page() -> std::io::Result<String> {
    let mut command = Cli::command();
    command.build();
    let man = Man::new(command.clone());
    let mut page = Vec::new();
    let mut title = Roff::new();
    // No date: two builds of one version give one page.
    let version = concat!("ipam-agent ", env!("CARGO_PKG_VERSION"));
    title.control(
        "TH",
        ["IPAM-AGENT", "8", NO_DATE, version, "System Administration"],
    );
    write!(page, "{}", title.render().replace(NO_DATE, "\"\""))?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    examples(&command, &mut page)?;
    write!(page, "{}", heading("SH", "COMMANDS").render())?;
    commands(&command, &mut page)?;
    for (title, entries) in [
        ("EXIT STATUS", &EXIT_STATUS[..]),
        ("FILES", &FILES),
        ("ENVIRONMENT", &ENVIRONMENT),
    ] {
        let mut section = heading("SH", title);
        for (what, text) in entries {
            section.control("TP", []);
            section.text([bold(*what)]);
            section.text([roman(*text)]);
        }
        write!(page, "{}", section.render())?;
    }
    // Every piece begins with the same two lines, about apostrophes; once is enough.
    let mut begun = 0;
    let lines = String::from_utf8_lossy(&page).into_owned();
    let lines = lines.lines().filter(|line| {
        let preamble = line.starts_with(".ie ") || line.starts_with(".el ");
        begun += usize::from(preamble);
        !preamble || begun <= 2
    });
    let lines: String = lines.map(|line| format!("{line}\n")).collect();
    Ok(lines.replace(".br\n\n.br\n", ".sp\n"))
}

fn heading(kind: &str, title: &str) -> Roff {
    let mut roff = Roff::new();
    roff.control(kind, [title]);
    roff
}

/// Each command that does something, with what it takes.
fn commands(parent: &Command, page: &mut Vec<u8>) -> std::io::Result<()> {
    for command in parent.get_subcommands() {
        match command.get_name() {
            "help" => continue,
            _ if command.has_subcommands() => {
                commands(command, page)?;
                continue;
            }
            _ => {}
        }
        let name = command.get_bin_name().unwrap_or(command.get_name());
        write!(page, "{}", heading("SS", name).render())?;
        let own = command.clone().mut_args(|arg| match arg.get_id().as_str() {
            // Of every command.
            "help" | "version" => arg.hide(true),
            _ => arg,
        });
        let man = Man::new(own);
        let mut parts = Vec::new();
        man.render_synopsis_section(&mut parts)?;
        parts.extend(b".PP\n");
        man.render_description_section(&mut parts)?;
        if command.get_arguments().any(|arg| {
            let id = arg.get_id().as_str();
            id != "help" && id != "version"
        }) {
            man.render_options_section(&mut parts)?;
        }
        let parts = String::from_utf8_lossy(&parts);
        for line in parts.lines().filter(|line| !line.starts_with(".SH ")) {
            writeln!(page, "{line}")?;
        }
        examples(command, page)?;
    }
    Ok(())
}

/// What `--help` ends with: paragraphs, and examples as they are.
fn examples(command: &Command, page: &mut Vec<u8>) -> std::io::Result<()> {
    let text = command.get_after_help().map(ToString::to_string);
    let text = text.unwrap_or_default();
    let mut roff = Roff::new();
    for paragraph in text.split("\n\n") {
        let mut example = false;
        roff.control("PP", []);
        for line in paragraph.lines() {
            if line.starts_with("  ") != example {
                roff.control(if example { "EE" } else { "EX" }, []);
                example = !example;
            }
            roff.text([roman(line)]);
        }
        if example {
            roff.control("EE", []);
        }
    }
    write!(page, "{}", roff.render())
}
