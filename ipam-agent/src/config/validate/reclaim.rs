//! What a release needs, and the floors under it.

use std::time::Duration;

use super::{At, Result, duration::duration};
use crate::config::{
    Cri, Holders, Reclaim,
    raw::{self, Text},
};

/// A sandbox is unknown to the runtime until its set-up is finished, up to 4 minutes: no
/// lease is judged younger.
const GATE_FLOOR: Duration = Duration::from_secs(5 * 60);
/// Of a damaged lease the address is all there is to judge by.
const DAMAGED_FLOOR: Duration = Duration::from_secs(15 * 60);
/// What answered right after boot may not have started everything yet.
const REBOOT_FLOOR: Duration = Duration::from_secs(60);
/// Two passes must agree: not within one hiccup.
const PASS_FLOOR: Duration = Duration::from_secs(10);

pub(super) fn reclaim(at: At<'_>, raw: raw::Reclaim, holders: &Holders) -> Result<Reclaim> {
    let default = Reclaim::default();
    let lab = raw.lab;
    if let Some(clean_caches) = &raw.clean_caches
        && clean_caches.value
        && holders.cri == Cri::Off
    {
        let right = "with `holders: { cri: off }` nobody knows containers by their ids, and no \
                     entry would ever go: name the runtime there, or say false";
        return Err(at.wrong("reclaim.clean_caches", clean_caches, right));
    }
    let gate = |key, text: &Option<Text>, default, floor| match text {
        Some(text) => {
            let floor = if lab { Duration::ZERO } else { floor };
            duration(at, key, text, floor, hint(false))
        }
        None => Ok(default),
    };
    let reclaim = Reclaim {
        gate: gate("reclaim.gate", &raw.gate, default.gate, GATE_FLOOR)?,
        damaged_gate: gate(
            "reclaim.damaged_gate",
            &raw.damaged_gate,
            default.damaged_gate,
            DAMAGED_FLOOR,
        )?,
        asked_gate: gate(
            "reclaim.asked_gate",
            &raw.asked_gate,
            default.asked_gate,
            GATE_FLOOR,
        )?,
        asked_damaged_gate: gate(
            "reclaim.asked_damaged_gate",
            &raw.asked_damaged_gate,
            default.asked_damaged_gate,
            DAMAGED_FLOOR,
        )?,
        reboot_gate: gate(
            "reclaim.reboot_gate",
            &raw.reboot_gate,
            default.reboot_gate,
            REBOOT_FLOOR,
        )?,
        pass_interval: gate(
            "reclaim.pass_interval",
            &raw.pass_interval,
            default.pass_interval,
            PASS_FLOOR,
        )?,
        max_per_pass: default.max_per_pass,
        max_percent: default.max_percent,
        clean_caches: raw.clean_caches.is_some_and(|clean| clean.value),
        lab,
    };
    // Of a damaged lease there is less to judge by: it is never judged sooner.
    let reclaim = Reclaim {
        damaged_gate: match &raw.damaged_gate {
            None => reclaim.damaged_gate.max(reclaim.gate),
            Some(_) => reclaim.damaged_gate,
        },
        asked_damaged_gate: match &raw.asked_damaged_gate {
            None => reclaim.asked_damaged_gate.max(reclaim.asked_gate),
            Some(_) => reclaim.asked_damaged_gate,
        },
        ..reclaim
    };
    for (key, written, damaged, gate) in [
        (
            "damaged_gate",
            &raw.damaged_gate,
            reclaim.damaged_gate,
            ("gate", reclaim.gate),
        ),
        (
            "asked_damaged_gate",
            &raw.asked_damaged_gate,
            reclaim.asked_damaged_gate,
            ("asked_gate", reclaim.asked_gate),
        ),
    ] {
        if let Some(text) = written
            && damaged < gate.1
            && !lab
        {
            let (other, length) = gate;
            let length = jiff::SignedDuration::try_from(length).unwrap_or_default();
            let right = format!(
                "shorter than `{other}`, {length:#}: of a damaged lease less is known, \
                 so that it needs no less time"
            );
            return Err(at.wrong(format!("reclaim.{key}"), text, right));
        }
    }
    // A pass that follows the last one at once would never let the wire be heard.
    if let Some(text) = &raw.pass_interval
        && reclaim.pass_interval.is_zero()
    {
        return Err(at.wrong("reclaim.pass_interval", text, "should be more than 0s"));
    }
    let at_most = |key: &str, written: Option<serde_saphyr::Spanned<u64>>, default, lab_limit| {
        let Some(written) = written else {
            return Ok(default);
        };
        let limit = if lab { lab_limit } else { default };
        if (1..=limit).contains(&written.value) {
            return Ok(written.value);
        }
        let right = format!("should be 1 to {limit}{}", hint(lab));
        Err(at.wrong(key, &written, right))
    };
    let max_per_pass = at_most(
        "reclaim.max_per_pass",
        raw.max_per_pass,
        default.max_per_pass as u64,
        u64::from(u32::MAX),
    )?;
    let max_percent = at_most(
        "reclaim.max_percent",
        raw.max_percent,
        u64::from(default.max_percent),
        100,
    )?;
    Ok(Reclaim {
        max_per_pass: usize::try_from(max_per_pass).unwrap_or(usize::MAX),
        max_percent: u8::try_from(max_percent).unwrap_or(100),
        ..reclaim
    })
}

fn hint(lab: bool) -> &'static str {
    if lab {
        ""
    } else {
        " (only a laboratory may go beyond, with `reclaim.lab: true`)"
    }
}
