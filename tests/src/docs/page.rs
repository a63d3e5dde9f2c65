//! What of a Markdown page is to be done, in its order.

use std::ops::Range;

use anyhow::{Result, bail, ensure};

/// Something that a page has to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// Something happens on the host.
    Lab {
        /// The line, from 1.
        line: usize,
        /// What.
        what: String,
    },
    /// A configuration is shown.
    Config {
        /// The line of its fence, from 1.
        line: usize,
        /// It.
        text: String,
    },
    /// A lease file is shown.
    Leases {
        /// The line of its fence, from 1.
        line: usize,
        /// It.
        text: String,
    },
    /// A command is typed.
    Command(Command),
}

/// A command, and what it should print.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Its line, from 1.
    pub line: usize,
    /// It.
    pub text: String,
    /// What it prints, on both streams.
    pub output: String,
    /// Which lines of the page show that, from 0.
    pub shown: Range<usize>,
    /// How it ends, where the page says so (`? 2`).
    pub status: Option<i32>,
}

/// Blocks of these languages show something that nothing runs.
const SHOWN: [&str; 4] = ["text", "json", "promql", "markdown"];

/// What is to be done.
pub fn items(text: &str) -> Result<Vec<Item>> {
    let mut items = Vec::new();
    let mut excuse = false;
    let mut lines = text.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        let number = index + 1;
        if let Some(comment) = line.trim().strip_prefix("<!-- ") {
            let Some(comment) = comment.strip_suffix(" -->") else {
                continue;
            };
            if let Some(what) = comment.strip_prefix("lab: ") {
                let what = what.to_owned();
                items.push(Item::Lab { line: number, what });
            }
            excuse = comment.starts_with("not run: ");
            continue;
        }
        let Some(language) = line.trim_start().strip_prefix("```") else {
            if !line.trim().is_empty() {
                excuse = false;
            }
            continue;
        };
        let mut block = Vec::new();
        let mut closed = false;
        for (index, line) in lines.by_ref() {
            if line.trim() == "```" {
                closed = true;
                break;
            }
            block.push((index, line));
        }
        ensure!(closed, "line {number}: a block without end");
        let text: String = block.iter().map(|(_, line)| format!("{line}\n")).collect();
        match language {
            _ if excuse => {}
            "console" => items.extend(commands(&block)?.into_iter().map(Item::Command)),
            "yaml" => items.push(Item::Config { line: number, text }),
            "yaml leases" => items.push(Item::Leases { line: number, text }),
            shown if SHOWN.contains(&shown) => {}
            other => bail!(
                "line {number}: a block of `{other}` is neither run nor read; \
                 say `<!-- not run: why -->` before it, or make it `console`"
            ),
        }
        excuse = false;
    }
    Ok(items)
}

fn commands(block: &[(usize, &str)]) -> Result<Vec<Command>> {
    let mut commands: Vec<Command> = Vec::new();
    for &(index, line) in block {
        if let Some(text) = line.strip_prefix("$ ") {
            commands.push(Command {
                line: index + 1,
                text: text.to_owned(),
                output: String::new(),
                shown: index + 1..index + 1,
                status: None,
            });
            continue;
        }
        let Some(command) = commands.last_mut() else {
            bail!("line {}: output without a command", index + 1);
        };
        if command.text.ends_with('\\') && command.output.is_empty() {
            command.text += &format!("\n{line}");
            command.shown = index + 1..index + 1;
        } else if let Some(status) = line.strip_prefix("? ") {
            command.status = Some(status.trim().parse()?);
        } else {
            command.output += &format!("{line}\n");
            command.shown.end = index + 1;
        }
    }
    for command in &mut commands {
        // An empty line before the next command is for the eye.
        let kept = command.output.trim_end_matches('\n').len();
        let empty = command.output[kept..].len().saturating_sub(1);
        if kept > 0 {
            command.output.truncate(kept + 1);
            command.shown.end -= empty;
        } else {
            command.output.clear();
            command.shown.end = command.shown.start;
        }
    }
    Ok(commands)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_and_their_output_are_told_apart() {
        let page = "# Title\n\n```console\n$ a \\\n  b\none\ntwo\n\n$ c\n? 2\n```\n\
                    <!-- lab: boot -->\n```yaml\nkeep: []\n```\n";
        let [Item::Command(a), Item::Command(c), lab, config] = &items(page).expect("a page")[..]
        else {
            panic!("four items");
        };
        assert_eq!((&*a.text, &*a.output), ("a \\\n  b", "one\ntwo\n"));
        assert_eq!((a.shown.clone(), a.status), (5..7, None));
        assert_eq!((&*c.text, &*c.output, c.status), ("c", "", Some(2)));
        assert!(matches!(lab, Item::Lab { what, .. } if what == "boot"));
        assert!(matches!(config, Item::Config { text, .. } if text == "keep: []\n"));
    }

    #[test]
    fn nothing_that_looks_like_a_command_goes_unrun_without_a_reason() {
        assert!(items("```sh\nrm -rf /\n```\n").is_err());
        let excused = "<!-- not run: it takes a cluster -->\n```sh\nkubectl get pods\n```\n";
        assert_eq!(items(excused).expect("a page"), []);
        assert!(items("```console\n$ a\n").is_err(), "no end");
        assert!(items("```console\noutput\n```\n").is_err(), "no command");
    }
}
