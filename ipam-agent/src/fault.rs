//! Points of a release, and of putting a lease back, at which a test may have the process
//! die. In a release build there is nothing here; in a debug build, nothing happens until a
//! test's own program says what.

#[cfg(debug_assertions)]
static HOOK: std::sync::OnceLock<fn(&str)> = std::sync::OnceLock::new();

/// Has `hook` called with the name of each point that is reached. The first one counts.
#[cfg(debug_assertions)]
pub fn on_reach(hook: fn(&str)) {
    let _ = HOOK.set(hook);
}

/// Says that this point is reached.
pub(crate) fn reach(_point: &str) {
    #[cfg(debug_assertions)]
    if let Some(hook) = HOOK.get() {
        hook(_point);
    }
}
