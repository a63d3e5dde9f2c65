//! The agent, which dies as by a power cut where a test says: at the point that
//! `IPAM_AGENT_DIES_AT` names, `POINT` or `POINT:COUNT` for the so manieth time that it is
//! reached. The agent that is shipped has nothing of this.

use std::process::ExitCode;

fn main() -> ExitCode {
    #[cfg(debug_assertions)]
    ipam_agent::fault::on_reach(die);
    ipam_agent::cli::main()
}

#[cfg(debug_assertions)]
fn die(point: &str) {
    use std::sync::atomic::{AtomicU32, Ordering};

    use nix::{
        sys::signal::{Signal, kill},
        unistd::Pid,
    };

    static REACHED: AtomicU32 = AtomicU32::new(0);
    let wanted = std::env::var("IPAM_AGENT_DIES_AT").unwrap_or_default();
    let (wanted, count) = wanted.split_once(':').unwrap_or((&wanted, "1"));
    if point == wanted
        && (REACHED.fetch_add(1, Ordering::SeqCst) + 1).to_string() == count
        && kill(Pid::this(), Signal::SIGKILL).is_ok()
    {
        loop {
            std::thread::park();
        }
    }
}
