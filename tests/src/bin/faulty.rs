//! The agent, which dies as by a power cut where a test says, or panics: at the point that
//! `IPAM_AGENT_DIES_AT` or `IPAM_AGENT_PANICS_AT` names, `POINT` or `POINT:COUNT` for the so manieth time that it is
//! reached. The agent that is shipped has nothing of this.

use std::process::ExitCode;

fn main() -> ExitCode {
    #[cfg(debug_assertions)]
    ipam_agent::fault::on_reach(fail);
    ipam_agent::cli::main()
}

#[cfg(debug_assertions)]
fn fail(point: &str) {
    use std::sync::atomic::{AtomicU32, Ordering};

    use nix::{
        sys::signal::{Signal, kill},
        unistd::Pid,
    };

    static REACHED: AtomicU32 = AtomicU32::new(0);
    let panics = std::env::var("IPAM_AGENT_PANICS_AT");
    let is_to_panic = panics.is_ok();
    let wanted = panics.or_else(|_| std::env::var("IPAM_AGENT_DIES_AT"));
    let wanted = wanted.unwrap_or_default();
    let (wanted, count) = wanted.split_once(':').unwrap_or((&wanted, "1"));
    if point == wanted && (REACHED.fetch_add(1, Ordering::SeqCst) + 1).to_string() == count {
        assert!(!is_to_panic, "a defect");
        while kill(Pid::this(), Signal::SIGKILL).is_ok() {
            std::thread::park();
        }
    }
}
