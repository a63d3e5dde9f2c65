//! Where results go, and whom to ask.

use std::{
    env,
    io::{self, BufRead, ErrorKind, IsTerminal, Write},
};

use super::CliError;
use crate::report::{Document, Format, View, render};

/// What a command writes to and asks.
pub struct Io<'a> {
    /// Results.
    pub out: &'a mut dyn Write,
    /// How they may look.
    pub view: View,
    /// Everything else.
    pub err: &'a mut dyn Write,
    /// How that may look.
    pub err_view: View,
    /// A person's answers, if there is a person.
    pub answers: Option<&'a mut dyn BufRead>,
}

impl Io<'_> {
    /// Calls `with` with this process's own.
    pub fn with_stdio<T>(with: impl FnOnce(&mut Io<'_>) -> T) -> T {
        // Not locked: what is logged meanwhile comes from other threads.
        let (mut out, mut err) = (io::stdout(), io::stderr());
        let person = io::stdin().is_terminal() && err.is_terminal();
        let mut stdin = io::stdin().lock();
        with(&mut Io {
            view: view(&out),
            err_view: view(&err),
            out: &mut out,
            err: &mut err,
            answers: person.then_some(&mut stdin),
        })
    }

    /// Writes a result.
    pub fn show<D: Document>(&mut self, document: &D, format: Format) -> Result<(), CliError> {
        let text = render(document, format, self.view)?;
        self.put(&text).map(drop)
    }

    /// Writes a part of a result; whether anybody still reads.
    pub(super) fn put(&mut self, text: &str) -> Result<bool, CliError> {
        written(
            self.out
                .write_all(text.as_bytes())
                .and_then(|()| self.out.flush()),
        )
    }

    /// Writes a table for the person who is about to be asked.
    pub(super) fn preview<D: Document>(&mut self, document: &D) -> Result<(), CliError> {
        let text = render(document, Format::Table, self.err_view)?;
        self.tell(&text)
    }

    /// Writes something that is no result.
    pub fn tell(&mut self, text: &str) -> Result<(), CliError> {
        written(
            self.err
                .write_all(text.as_bytes())
                .and_then(|()| self.err.flush()),
        )
        .map(drop)
    }

    /// Whether a person says yes. Anything but a yes is a no.
    pub(super) fn confirm(
        &mut self,
        question: &str,
        option: &'static str,
    ) -> Result<bool, CliError> {
        if self.answers.is_none() {
            return Err(CliError::Unconfirmed(option));
        }
        self.tell(&format!("{question} [y/N] "))?;
        let mut answer = String::new();
        if let Some(answers) = &mut self.answers {
            answers.read_line(&mut answer).map_err(CliError::Write)?;
        }
        let answer = answer.trim().to_ascii_lowercase();
        Ok(matches!(answer.as_str(), "y" | "yes"))
    }
}

/// Whether there is a reader. One that has seen enough is no error.
fn written(result: io::Result<()>) -> Result<bool, CliError> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(CliError::Write(error)),
    }
}

/// How text may look there: <https://no-color.org>, and no colours where nobody looks.
fn view<T: IsTerminal + std::os::fd::AsFd>(stream: &T) -> View {
    if !stream.is_terminal() {
        return View::default();
    }
    let unset = |name| env::var_os(name).is_none_or(|value| value.is_empty());
    let dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
    View {
        width: terminal_size::terminal_size_of(stream).map(|(width, _)| width.0.into()),
        color: unset("NO_COLOR") && !dumb,
    }
}
