//! The screen, the keys, the clock and the daemon.

use std::{
    env,
    io::{IsTerminal as _, stdin, stdout},
    thread,
    time::Duration,
};

use jiff::Timestamp;
use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyEventKind},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::{Instant, interval, sleep_until},
};

use super::{
    look,
    model::{Effect, Model},
    view::{Paint, draw},
};
use crate::{
    cli::CliError,
    error::in_full,
    report::{
        Format, View,
        document::{Addresses, Explain, Leases, Overview},
        render,
    },
    serve::{Client, ClientError},
};

/// From one look at the daemon to the next, at least.
const INTERVAL: Duration = Duration::from_secs(2);
/// The next look waits so many times as long as the last took: a host with 100,000 leases
/// has better things to do.
const REST: u32 = 20;
/// Ages go on even if nothing else does.
const TICK: Duration = Duration::from_secs(1);

/// The daemon's answers.
enum Answer {
    Look(Result<(Overview, Leases), ClientError>),
    Story(std::net::IpAddr, Result<Explain, ClientError>),
    Addresses(String, Result<Addresses, ClientError>),
}

/// Shows it until somebody ends it. The terminal is put back in any case: `ratatui::init`
/// sees to it in a panic, and SIGTERM and its kind end the loop.
pub(super) async fn run(client: Client, view: View) -> Result<(), CliError> {
    let dumb = env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    if !stdin().is_terminal() || !stdout().is_terminal() || dumb {
        return Err(CliError::NoTerminal);
    }
    // A first look without it, as an error is told best on a plain screen.
    let first = look(&client).await?;
    let mut terminal = ratatui::try_init().map_err(CliError::Write)?;
    let mut model = Model::default();
    model.fresh(first.0, first.1);
    let paint = Paint { color: view.color };
    let shown = converse(&client, &mut terminal, &mut model, paint).await;
    ratatui::restore();
    shown
}

async fn converse(
    client: &Client,
    terminal: &mut DefaultTerminal,
    model: &mut Model,
    paint: Paint,
) -> Result<(), CliError> {
    let on = |kind| signal(kind).map_err(CliError::Runtime);
    let mut terminate = on(SignalKind::terminate())?;
    let mut interrupt = on(SignalKind::interrupt())?;
    let mut hangup = on(SignalKind::hangup())?;
    let mut keys = keys();
    let (sender, mut answers) = mpsc::unbounded_channel();
    let mut tick = interval(TICK);
    let mut next_look = Instant::now() + INTERVAL;
    let mut looking: Option<Instant> = None;
    loop {
        terminal
            .draw(|frame| draw(frame, model, Timestamp::now(), paint))
            .map_err(CliError::Write)?;
        let effect = tokio::select! {
            event = keys.recv() => match event {
                Some(Ok(Event::Key(key))) if key.kind == KeyEventKind::Press => model.key(key),
                Some(Ok(_)) => None,
                // There is no terminal any more.
                Some(Err(_)) | None => Some(Effect::Quit),
            },
            Some(answer) = answers.recv() => {
                if matches!(answer, Answer::Look(_))
                    && let Some(began) = looking.take()
                {
                    next_look = Instant::now() + INTERVAL.max(began.elapsed() * REST);
                }
                answered(model, answer);
                None
            },
            () = sleep_until(next_look), if looking.is_none() => Some(Effect::Refresh),
            _ = tick.tick() => None,
            _ = terminate.recv() => Some(Effect::Quit),
            _ = interrupt.recv() => Some(Effect::Quit),
            _ = hangup.recv() => Some(Effect::Quit),
        };
        let (client, sender) = (client.clone(), sender.clone());
        match effect {
            None => {}
            Some(Effect::Quit) => return Ok(()),
            Some(Effect::Refresh) if looking.is_some() => {}
            Some(Effect::Refresh) => {
                looking = Some(Instant::now());
                tokio::spawn(async move {
                    let _ = sender.send(Answer::Look(look(&client).await));
                });
            }
            Some(Effect::Explain(address)) => {
                tokio::spawn(async move {
                    let explain = client.get(&format!("/api/v1/explain/{address}")).await;
                    let _ = sender.send(Answer::Story(address, explain));
                });
            }
            Some(Effect::Addresses(segment)) => {
                tokio::spawn(async move {
                    let addresses = client.get("/api/v1/addresses").await;
                    let _ = sender.send(Answer::Addresses(segment, addresses));
                });
            }
        }
    }
}

/// The terminal's events, from a thread that waits for them until the process ends.
fn keys() -> mpsc::Receiver<std::io::Result<Event>> {
    let (sender, keys) = mpsc::channel(64);
    thread::spawn(move || {
        loop {
            let event = event::read();
            let last = event.is_err();
            if sender.blocking_send(event).is_err() || last {
                return;
            }
        }
    });
    keys
}

fn answered(model: &mut Model, answer: Answer) {
    match answer {
        Answer::Look(Ok((overview, leases))) => model.fresh(overview, leases),
        Answer::Look(Err(error)) => model.gone(in_full(&error)),
        Answer::Story(address, Ok(explain)) => {
            let view = View {
                width: ratatui::crossterm::terminal::size()
                    .ok()
                    .map(|size| size.0.into()),
                color: false,
            };
            match render(&explain, Format::Table, view) {
                Ok(text) => model.story(address, &text),
                Err(error) => model.problem = Some(error.to_string()),
            }
        }
        Answer::Addresses(segment, Ok(addresses)) => model.addresses(&segment, addresses),
        Answer::Story(_, Err(error)) | Answer::Addresses(_, Err(error)) => {
            model.problem = Some(in_full(&error));
        }
    }
}
