//! Durations, with their unit.

use std::time::Duration;

use jiff::SignedDuration;

use super::{At, Result};
use crate::config::raw::Text;

/// Nobody means a day and a week by any of them; such a number is a slip of the unit.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

/// A duration of `floor` at least; `hint` says what else would be right.
pub(super) fn duration(
    at: At<'_>,
    key: &str,
    text: &Text,
    floor: Duration,
    hint: &str,
) -> Result<Duration> {
    let written = text.value.trim();
    if !written.is_empty() && written.bytes().all(|byte| byte.is_ascii_digit()) {
        let right = format!("the unit is missing: {written}s or {written}m?");
        return Err(at.wrong(key, text, right));
    }
    let duration = written.parse::<SignedDuration>().ok();
    let Some(duration) = duration.and_then(|duration| Duration::try_from(duration).ok()) else {
        let right = "not a duration such as 90s, 15m or 1h30m";
        return Err(at.wrong(key, text, right));
    };
    if duration < floor {
        let floor = SignedDuration::try_from(floor).unwrap_or_default();
        let right = format!("should be {floor:#} or more{hint}");
        return Err(at.wrong(key, text, right));
    }
    if duration > LONGEST {
        return Err(at.wrong(key, text, "should be a week (168h) or less"));
    }
    Ok(duration)
}
