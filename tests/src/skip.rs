//! Tests that need what a machine may lack: a skip is seen, and is a failure where
//! `IPAM_AGENT_NO_SKIP=1` says that the machine must have it.

/// `Some` for root; else `None`, and the skip of what needs it is printed.
///
/// # Panics
///
/// Where skips are failures.
pub fn privileged(what: &str) -> Option<()> {
    if nix::unistd::geteuid().is_root() {
        return Some(());
    }
    skip(&format!("{what} needs root"))
}

/// Print the skip; yields `None`.
///
/// # Panics
///
/// Where skips are failures.
pub fn skip(why: &str) -> Option<()> {
    assert!(
        std::env::var_os("IPAM_AGENT_NO_SKIP").is_none_or(|value| value != "1"),
        "IPAM_AGENT_NO_SKIP=1, but {why}"
    );
    // Past the test harness, which hides what a passing test prints.
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
    None
}
