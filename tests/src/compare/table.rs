//! The comparison as tables that docs/comparison.md holds as they are.

use std::fmt::Write as _;

use super::{Answer, Comparison, Outcome};

/// Markdown.
pub fn markdown(comparison: &Comparison) -> String {
    let mut text = String::new();
    // Writing to a string doesn't fail.
    let _ = write(&mut text, comparison);
    text
}

fn write(text: &mut String, comparison: &Comparison) -> std::fmt::Result {
    for absent in &comparison.absent {
        writeln!(text, "Not compared: {absent}\n")?;
    }
    sums(text, comparison)?;
    let names: Vec<&str> = comparison.detectors.keys().copied().collect();
    writeln!(text, "\n| incident | true | {} |", names.join(" | "))?;
    writeln!(text, "| --- | --- |{}", " --- |".repeat(names.len()))?;
    for row in &comparison.incidents {
        write!(text, "| {} | {} |", row.incident, row.truth)?;
        for name in &names {
            let cell = row.answers.get(name).map(cell).unwrap_or_default();
            write!(text, " {cell} |")?;
        }
        writeln!(text)?;
    }
    Ok(())
}

fn sums(text: &mut String, comparison: &Comparison) -> std::fmt::Result {
    writeln!(
        text,
        "| detector | found | as a change only | missed | invented | CPU a frame | \
         found in the storm | invented there | addresses lost there |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    )?;
    for sums in comparison.detectors.values() {
        let cost = sums.cpu_us_per_frame;
        let cost = cost.map_or("–".into(), |cost| format!("{cost:.2} µs"));
        let storm = sums.storm.as_ref();
        let [found, invented, lost] = [
            storm.map(|storm| storm.found),
            storm.map(|storm| storm.invented),
            storm.and_then(|storm| storm.addresses_lost),
        ]
        .map(|count| count.map_or("–".into(), |count| count.to_string()));
        writeln!(
            text,
            "| {} | {} | {} | {} | {} | {cost} | {found} | {invented} | {lost} |",
            sums.detector, sums.found, sums.as_change, sums.missed, sums.invented,
        )?;
    }
    if let Some(storm) = &comparison.storm {
        writeln!(
            text,
            "\nThe storm: {} frames from {} addresses, {} a second, and {} duplicates in it.",
            storm.frames, storm.addresses, storm.frames_per_s, storm.duplicates,
        )?;
    }
    Ok(())
}

fn cell(answer: &Answer) -> String {
    let words = answer.words.join(", ");
    match answer.outcome {
        Outcome::Found => format!("**found**: {words}"),
        Outcome::Change => format!("change: {words}"),
        Outcome::Missed => "missed".into(),
        Outcome::Quiet => "quiet".into(),
        Outcome::Invented => format!("**invented**: {words}"),
    }
}
