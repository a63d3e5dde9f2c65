use jiff::Timestamp;
use ratatui::{
    Terminal,
    backend::TestBackend,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
    style::Modifier,
};

use super::{
    model::{Effect, Model},
    view::{Paint, draw},
};
use crate::report::{Format, View, document::*, render, samples};

fn now() -> Timestamp {
    samples::now()
}

/// The model of a host with conflicts, stale leases and releases.
fn model() -> Model {
    let mut model = Model::default();
    fresh(&mut model, samples::report(12));
    model
}

fn fresh(model: &mut Model, report: Report) {
    let leases = samples::leases();
    let pools = pools(&leases);
    model.fresh(Overview::new(report, &leases, pools), leases);
}

/// A pool of 254 addresses for each store.
fn pools(leases: &Leases) -> Pools {
    let mut stores: Vec<StoreRecord> = Vec::new();
    for record in &leases.leases {
        let name = &record.lease.store;
        if stores.last().is_none_or(|store| store.store != *name) {
            stores.push(StoreRecord {
                store: name.clone(),
                mode: crate::engine::lease::Mode::Observe,
                failed: None,
                read_only: None,
                pools: vec![PoolRecord {
                    prefix: Some("10.52.0.0/24".to_owned()),
                    first: None,
                    last: None,
                    gateway: None,
                    segment: None,
                    addresses: Some(254),
                    free: Some(254),
                    leases: LeaseCounts::default(),
                    contested: 0,
                    rows: Vec::new(),
                    rows_left_out: 0,
                }],
            });
        }
        let pool = stores.last_mut().and_then(|store| store.pools.last_mut());
        let pool = pool.expect("just made");
        pool.leases.add(record.lease.state);
        pool.free = pool.free.map(|free| free - 1);
    }
    Pools {
        schema: PoolsSchema::V1,
        generated_at: now(),
        host: leases.host.clone(),
        blind: Vec::new(),
        paused: None,
        stores,
    }
}

/// What a screen of this size shows.
fn screen(model: &mut Model, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
    let paint = Paint { color: true };
    terminal
        .draw(|frame| draw(frame, model, now(), paint))
        .expect("drawn");
    terminal.backend().to_string()
}

fn press(model: &mut Model, keys: &str) -> Vec<Effect> {
    let press = |code| KeyEvent::new(code, KeyModifiers::NONE);
    let mut effects = Vec::new();
    for key in keys.split(' ').filter(|key| !key.is_empty()) {
        let code = match key {
            "Tab" => KeyCode::Tab,
            "BackTab" => KeyCode::BackTab,
            "Up" => KeyCode::Up,
            "Down" => KeyCode::Down,
            "End" => KeyCode::End,
            "Home" => KeyCode::Home,
            "PageDown" => KeyCode::PageDown,
            "Enter" => KeyCode::Enter,
            "Esc" => KeyCode::Esc,
            "Backspace" => KeyCode::Backspace,
            text => {
                for character in text.chars() {
                    effects.extend(model.key(press(KeyCode::Char(character))));
                }
                continue;
            }
        };
        effects.extend(model.key(press(code)));
    }
    effects
}

#[test]
fn the_whole_view_at_80_columns_and_on_a_big_screen() {
    let mut model = model();
    insta::assert_snapshot!("overview_80x24", screen(&mut model, 80, 24));
    insta::assert_snapshot!("overview_160x50", screen(&mut model, 160, 50));
}

/// What `--output` prints.
#[test]
fn one_look_as_text() {
    let leases = samples::leases();
    let overview = Overview::new(samples::report(2), &leases, pools(&leases));
    let show = |format, width| {
        let view = View {
            width,
            color: false,
        };
        render(&overview, format, view).expect("rendered")
    };
    let looks = [
        show(Format::Table, Some(80)),
        show(Format::Table, Some(120)),
        show(Format::Csv, None),
    ];
    insta::assert_snapshot!("one_look", looks.join("\n=====\n\n"));
}

#[test]
fn a_host_where_nothing_is_wrong() {
    let mut model = Model::default();
    let leases = Leases {
        leases: Vec::new(),
        ..samples::leases()
    };
    let pools = pools(&leases);
    model.fresh(
        Overview::new(samples::quiet_report(), &leases, pools),
        leases,
    );
    insta::assert_snapshot!("quiet_80x24", screen(&mut model, 80, 24));
    // There is nothing to open.
    assert!(press(&mut model, "Enter Tab Tab Enter Down End Enter").is_empty());
}

#[test]
fn every_size_of_screen_will_do() {
    for (width, height) in [(1, 1), (2, 3), (10, 4), (40, 10), (149, 24), (500, 200)] {
        let mut model = model();
        screen(&mut model, width, height);
        press(&mut model, "? Esc Enter");
        screen(&mut model, width, height);
        press(&mut model, "Esc 3 Enter End PageDown");
        screen(&mut model, width, height);
    }
}

#[test]
fn keys_go_through_panels_and_lines() {
    let mut model = model();
    screen(&mut model, 80, 24);
    let story = press(&mut model, "Down Down Enter");
    let third = model.overview.as_ref().expect("seen").conflicts[2].address;
    assert_eq!(story, [Effect::Explain(third)]);
    insta::assert_snapshot!("asking_80x24", screen(&mut model, 80, 24));
    model.story(third, "Who has it\n\n  02:00:00:00:00:01");
    insta::assert_snapshot!("story_80x24", screen(&mut model, 80, 24));
    assert!(
        press(&mut model, "Esc Tab Enter").len() == 1,
        "a segment is asked for"
    );
    press(&mut model, "Tab Enter");
    insta::assert_snapshot!("pool_80x24", screen(&mut model, 80, 24));
    press(&mut model, "Esc ?");
    insta::assert_snapshot!("help_80x24", screen(&mut model, 80, 24));
    assert_eq!(press(&mut model, "Esc q"), [Effect::Quit]);
    let control = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(model.key(control), Some(Effect::Quit));
}

#[test]
fn a_filter_leaves_the_lines_that_have_its_text() {
    let mut model = model();
    let all = model.overview.as_ref().expect("seen").conflicts.len();
    let last = model.overview.as_ref().expect("seen").conflicts[all - 1].address;
    // `q` is a letter here, and ends nothing.
    assert!(press(&mut model, "/ quiet").is_empty());
    press(
        &mut model,
        "Backspace Backspace Backspace Backspace Backspace",
    );
    press(&mut model, &last.to_string());
    insta::assert_snapshot!("filtered_80x24", screen(&mut model, 80, 24));
    assert_eq!(press(&mut model, "Enter Enter"), [Effect::Explain(last)]);
    press(&mut model, "Esc Esc");
    assert!(model.filter.is_empty());
    assert_eq!(model.cursor(model.focus()).length(all), all);
}

#[test]
fn what_is_selected_stays_so_when_others_come() {
    let mut model = model();
    let second = model.overview.as_ref().expect("seen").conflicts[1].clone();
    press(&mut model, "Down");
    let mut report = samples::report(12);
    let mut new = report.conflicts[0].clone();
    new.id = "new".to_owned();
    report.conflicts.insert(0, new);
    fresh(&mut model, report);
    assert_eq!(
        press(&mut model, "Enter"),
        [Effect::Explain(second.address)]
    );
    assert_eq!(model.cursor(model.focus()).selected, 2);
    // It is over and forgotten: the selection stays on the screen.
    press(&mut model, "Esc");
    fresh(&mut model, samples::report(1));
    assert_eq!(press(&mut model, "Enter").len(), 1);
}

#[test]
fn a_daemon_that_went_away_is_told_of_and_what_was_seen_stays() {
    let mut model = model();
    model.gone("no daemon answers on /run/ipam-agent/agent.sock".to_owned());
    insta::assert_snapshot!("gone_80x24", screen(&mut model, 80, 24));
    fresh(&mut model, samples::report(12));
    assert!(!screen(&mut model, 80, 24).contains("NO DAEMON"));
}

#[test]
fn names_from_the_wire_move_no_cursor() {
    let mut model = Model::default();
    let mut report = samples::report(2);
    report.host = "node\x1b[2J1".to_owned();
    report.conflicts[0].segment.name = "br\x1b]0;title\x07".to_owned();
    fresh(&mut model, report);
    let screen = screen(&mut model, 160, 50);
    assert!(
        !screen.contains('\x1b') && screen.contains("\\u{1b}[2J"),
        "{screen}"
    );
}

#[test]
fn without_colours_it_can_be_read_as_well() {
    let mut model = model();
    let mut terminal = Terminal::new(TestBackend::new(80, 24)).expect("a terminal");
    let paint = Paint { color: false };
    terminal
        .draw(|frame| draw(frame, &mut model, now(), paint))
        .expect("drawn");
    let cells = terminal.backend().buffer().content();
    let plain = ratatui::style::Color::Reset;
    assert!(
        cells
            .iter()
            .all(|cell| cell.fg == plain && cell.bg == plain)
    );
    let reversed = |cell: &ratatui::buffer::Cell| cell.modifier.contains(Modifier::REVERSED);
    assert!(cells.iter().any(reversed), "the selection shows");
}
