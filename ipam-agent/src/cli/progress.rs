//! What somebody sees who waits for more than a second: a bar or a spinner on stderr,
//! where that is a terminal.

use std::{io::IsTerminal as _, pin::pin, time::Duration};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::{Instant, interval};

/// From then on it is shown.
const SHORT: Duration = Duration::from_secs(1);
const REFRESH: Duration = Duration::from_millis(100);

/// Does `work`, and shows that it is done. With `length`, how long it takes, as a bar.
pub(super) async fn waiting<T>(
    what: &str,
    length: Option<Duration>,
    work: impl Future<Output = T>,
) -> T {
    if !std::io::stderr().is_terminal() {
        return work.await;
    }
    let bar = bar(what, length);
    let begun = Instant::now();
    let mut refresh = interval(REFRESH);
    let mut work = pin!(work);
    loop {
        tokio::select! {
            done = &mut work => {
                bar.finish_and_clear();
                return done;
            }
            _ = refresh.tick() => {
                let elapsed = begun.elapsed();
                if bar.is_hidden() && elapsed >= SHORT {
                    bar.set_draw_target(ProgressDrawTarget::stderr());
                }
                bar.set_position(milliseconds(elapsed));
                bar.tick();
            }
        }
    }
}

fn bar(what: &str, length: Option<Duration>) -> ProgressBar {
    let template = match length {
        Some(_) => "{msg} {wide_bar} {elapsed_precise}",
        None => "{spinner} {msg} {elapsed_precise}",
    };
    let style = ProgressStyle::with_template(template);
    let length = length.map(milliseconds);
    ProgressBar::with_draw_target(length, ProgressDrawTarget::hidden())
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        .with_message(what.to_owned())
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
