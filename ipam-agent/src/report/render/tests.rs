//! Golden renderings. What a person would see is in `snapshots/`: read it when it changes.

pub(crate) mod samples;

use insta::assert_snapshot;

use super::{Document, Format, render, watch_head, watch_line};
use crate::report::{View, document::WatchLine};

const NARROW: View = View {
    width: Some(80),
    color: false,
};
const WIDE: View = View {
    width: Some(120),
    color: false,
};

fn show<D: Document>(document: &D, format: Format, view: View) -> String {
    render(document, format, view).expect("rendered")
}

/// At 80 and 120 columns, and as CSV.
fn all<D: Document>(document: &D) -> String {
    [
        show(document, Format::Table, NARROW),
        show(document, Format::Table, WIDE),
        show(document, Format::Csv, NARROW),
    ]
    .join("\n=====\n\n")
}

#[test]
fn report() {
    assert_snapshot!(all(&samples::report(2)));
}

#[test]
fn report_without_conflicts() {
    assert_snapshot!(show(&samples::quiet_report(), Format::Table, NARROW));
    let mut blind = samples::quiet_report();
    blind.blind = vec!["mgmt-br: veth9 can't be attached: permission denied".to_owned()];
    blind.segments.clear();
    assert_snapshot!(show(&blind, Format::Table, NARROW));
}

#[test]
fn report_of_few_conflicts() {
    for number in [1, 3] {
        assert_snapshot!(show(&samples::report(number), Format::Table, NARROW));
    }
}

#[test]
fn report_of_500_conflicts() {
    let report = samples::report(500);
    let text = show(&report, Format::Table, NARROW);
    let listed = |text: &str| {
        let lines = text.lines();
        let of = lines.filter(|line| line.starts_with("critical") || line.starts_with("warning"));
        of.count()
    };
    assert_eq!(listed(&text), 40);
    let head: Vec<_> = text.lines().take(12).collect();
    let tail: Vec<_> = text.lines().skip(86).collect();
    assert_snapshot!(format!("{}\n[…]\n{}", head.join("\n"), tail.join("\n")));
    // Other programs look for theirs among all of them.
    assert_eq!(listed(&show(&report, Format::Table, View::default())), 500);
}

#[test]
fn report_as_json() {
    assert_snapshot!(show(&samples::report(1), Format::Json, NARROW));
}

#[test]
fn report_in_colour() {
    let view = View {
        width: Some(80),
        color: true,
    };
    assert_snapshot!(show(&samples::report(1), Format::Table, view).replace('\x1b', "ESC"));
}

#[test]
fn leases() {
    assert_snapshot!(all(&samples::leases()));
}

#[test]
fn addresses() {
    assert_snapshot!(all(&samples::addresses()));
}

#[test]
fn segments() {
    assert_snapshot!(all(&samples::segments()));
}

#[test]
fn explain() {
    assert_snapshot!(all(&samples::explain()));
}

#[test]
fn plan() {
    assert_snapshot!(all(&samples::plan()));
}

#[test]
fn applied() {
    assert_snapshot!(all(&samples::applied()));
}

#[test]
fn history() {
    assert_snapshot!(all(&samples::history()));
    let mut history = samples::history();
    history.entries.truncate(1);
    assert_snapshot!(show(&history, Format::Json, NARROW));
}

#[test]
fn undone() {
    for undone in samples::undone() {
        assert_snapshot!(all(&undone));
    }
}

fn watched(format: Format, view: View) -> String {
    let lines = samples::watched();
    let mut text = watch_head(format).expect("rendered");
    for line in &lines {
        text.extend(watch_line(line, format, view).expect("rendered"));
    }
    text
}

#[test]
fn watch() {
    let color = View {
        width: Some(80),
        color: true,
    };
    assert_snapshot!(
        [
            watched(Format::Table, NARROW),
            watched(Format::Table, color).replace('\x1b', "ESC"),
            watched(Format::Csv, NARROW),
        ]
        .join("\n=====\n\n")
    );
}

#[test]
fn watch_as_json() {
    let text = watched(Format::Json, NARROW);
    assert_snapshot!(text);
    let lines = text.lines().map(serde_json::from_str::<WatchLine>);
    let lines: Result<Vec<_>, _> = lines.collect();
    assert_eq!(lines.expect("read"), samples::watched());
}

#[test]
fn a_line_is_one_line_whatever_is_in_it() {
    let mut line = samples::watched().remove(0);
    let conflict = line.conflict.as_mut().expect("a conflict");
    conflict.reason = "used\r\nby\u{1b}[2J\u{85}two".to_owned();
    conflict.segment.name = "br\n0".to_owned();
    for format in [Format::Table, Format::Json, Format::Csv] {
        let text = watch_line(&line, format, NARROW).expect("rendered");
        let text = text.expect("for people too");
        assert_eq!(text.matches(['\n', '\r', '\x1b']).count(), 1, "{text:?}");
        assert!(text.ends_with('\n'), "{text:?}");
    }
}

#[test]
fn check() {
    let checks = samples::checks();
    assert_snapshot!(checks.each_ref().map(all).join("\n#####\n\n"));
}

#[test]
fn doctor() {
    assert_snapshot!(all(&samples::doctor()));
}

#[test]
fn a_name_cannot_move_the_cursor() {
    let mut leases = samples::leases();
    let hostile = "x\x1b]0;owned\x07\x1b[2J\u{202e}\r\nFAKE  active";
    leases.leases[0].lease.holder.pod = Some(hostile.to_owned());
    leases.leases[0].lease.store = hostile.to_owned();
    leases.leases[0].reason = hostile.to_owned();
    for format in [Format::Table, Format::Csv] {
        let text = show(&leases, format, NARROW);
        let obeyed = |character: char| character != '\n' && character.is_control();
        assert!(!text.contains(obeyed), "{text:?}");
        assert!(!text.lines().any(|line| line.starts_with("FAKE")), "{text}");
    }
}

/// What a program reads back is what was written, down to the last field.
#[test]
fn documents_survive_json() {
    fn check<D>(document: &D)
    where
        D: Document + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
    {
        let json = show(document, Format::Json, NARROW);
        let read: D = serde_json::from_str(&json).expect("read");
        assert_eq!(*document, read);
    }
    check(&samples::report(2));
    check(&samples::leases());
    check(&samples::addresses());
    check(&samples::segments());
    check(&samples::explain());
    check(&samples::plan());
    check(&samples::applied());
    check(&samples::history());
    samples::undone().iter().for_each(check);
    check(&samples::doctor());
    samples::checks().iter().for_each(check);
}

#[test]
fn another_document_is_refused() {
    let json = show(&samples::plan(), Format::Json, NARROW);
    let read = serde_json::from_str::<crate::report::document::Applied>(&json);
    assert!(read.is_err_and(|error| error.to_string().contains("ipam-agent/plan/v1")));
}
