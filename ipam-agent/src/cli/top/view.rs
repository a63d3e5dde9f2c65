//! How it looks. Pure: a model and the time go in, cells come out; any size of screen will do.

use jiff::Timestamp;
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Block, Borders, Clear, Paragraph, Row as Cells, Table},
};

use unicode_width::UnicodeWidthStr as _;

use super::{
    model::{Model, Sheet},
    rows::{Panel, Row, Tone},
};
use crate::report::{
    abridged, ago, clean, count,
    document::{ConflictState, Overview},
};

/// From this width on there are two columns of panels.
const WIDE: u16 = 150;

/// How things are painted: <https://no-color.org> leaves bold, dim and reverse.
#[derive(Clone, Copy, Debug)]
pub(super) struct Paint {
    pub color: bool,
}

impl Paint {
    fn tone(self, tone: Tone) -> Style {
        let style = Style::new();
        let color = |color| match self.color {
            true => style.fg(color),
            false => style,
        };
        match tone {
            Tone::Plain => style,
            Tone::Dim => style.add_modifier(Modifier::DIM),
            Tone::Good => color(Color::Green),
            Tone::Warning => color(Color::Yellow),
            Tone::Bad => color(Color::Red).add_modifier(Modifier::BOLD),
        }
    }
}

pub(super) const KEYS: [(&str, &str); 10] = [
    ("Tab, → ←, 1 to 4", "another panel"),
    ("↑ ↓, k j", "another line"),
    ("PgUp PgDn Home End", "further"),
    (
        "Enter",
        "the story of the address, the segment's addresses,",
    ),
    ("", "the pool's leases"),
    ("Esc", "back; ends the filter"),
    ("/", "only lines with this text; Enter keeps it"),
    ("r", "look again now"),
    ("?", "this"),
    ("q, Ctrl-C", "the end"),
];

/// Draws all of it; the model is told how many lines a page has.
pub(super) fn draw(frame: &mut Frame<'_>, model: &mut Model, now: Timestamp, paint: Paint) {
    let [head, body, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Min(0),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(Paragraph::new(heading(model, now, paint)), head);
    model.page = usize::from(body.height.saturating_sub(3));
    match model.sheet() {
        None | Some(Sheet::Help) => panels(frame, body, model, now, paint),
        Some(Sheet::List(list)) => {
            let length = model.length(list);
            let title = format!("{}: {length}", clean(&list.title));
            let row = |nth| model.listed(list, nth, now);
            let shown = Shown {
                title,
                columns: list.columns,
                length,
                selected: Some(list.cursor.selected),
                empty: "nothing",
            };
            shown.draw(frame, body, row, paint);
        }
        Some(Sheet::Story(story)) => {
            let lines = match story.lines.is_empty() {
                true => vec![Line::from("asking the daemon …")],
                false => {
                    let seen = story.lines.iter().skip(story.top);
                    let seen = seen.take(usize::from(body.height));
                    seen.map(|line| Line::from(line.as_str())).collect()
                }
            };
            let block = Block::new()
                .borders(Borders::TOP)
                .title(Span::styled(format!(" {} ", story.title), bold()));
            frame.render_widget(Paragraph::new(lines).block(block), body);
        }
    }
    if matches!(model.sheet(), Some(Sheet::Help)) {
        help(frame, body);
    }
    frame.render_widget(Paragraph::new(footing(model, paint)), foot);
}

fn bold() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}

fn heading(model: &Model, now: Timestamp, paint: Paint) -> Line<'static> {
    let mut spans = Vec::new();
    if let Some(why) = &model.gone {
        let since = model.overview.as_ref();
        let since = since.map(|overview| ago(now, overview.generated_at));
        let text = match since {
            Some(since) => format!(" NO DAEMON, this is from {since}: {} ", clean(why)),
            None => format!(" NO DAEMON yet: {} ", clean(why)),
        };
        let style = paint.tone(Tone::Bad).add_modifier(Modifier::REVERSED);
        spans.push(Span::styled(text, style));
        return Line::from(spans);
    }
    let Some(overview) = &model.overview else {
        return Line::from("asking the daemon …");
    };
    spans.push(Span::styled(clean(&overview.host).into_owned(), bold()));
    let (text, tone) = standing(overview);
    spans.push(Span::raw("  "));
    spans.push(Span::styled(text, paint.tone(tone)));
    if !overview.blind.is_empty() {
        let text = format!("  blind: {}", clean(&overview.blind.join("; ")));
        spans.push(Span::styled(text, paint.tone(Tone::Warning)));
    }
    if let Some(event) = overview.released_but_alive.first() {
        let text = format!("  RELEASED BUT ALIVE: {}", event.address);
        spans.push(Span::styled(text, paint.tone(Tone::Bad)));
    }
    Line::from(spans)
}

/// How the host is, in a few words.
fn standing(overview: &Overview) -> (String, Tone) {
    let active = overview.conflicts.iter();
    let active = active.filter(|conflict| conflict.state == ConflictState::Active);
    let stale: u64 = overview.pools.iter().map(|pool| pool.leases.stale).sum();
    let leases: u64 = overview.pools.iter().map(|pool| pool.leases.total()).sum();
    let (conflicts, tone) = match active.count() {
        0 => ("no conflict".to_owned(), Tone::Good),
        number => (count(number, "conflict"), Tone::Bad),
    };
    let many = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let mut text = format!(
        "{conflicts}, {}, {}",
        count(many(leases), "lease"),
        count(overview.segments.len(), "segment"),
    );
    if stale > 0 {
        text += &format!(", {stale} stale");
    }
    (text, tone)
}

fn footing(model: &Model, paint: Paint) -> Line<'static> {
    if let Some(problem) = &model.problem {
        return Line::styled(clean(problem).into_owned(), paint.tone(Tone::Bad));
    }
    if model.typing || !model.filter.is_empty() {
        let cursor = if model.typing {
            "▏"
        } else {
            "  (Esc ends it)"
        };
        return Line::from(format!("/{}{cursor}", clean(&model.filter)));
    }
    let keys = match model.sheet() {
        None => "Tab panel  ↑↓ line  Enter open  / filter  ? help  q quit",
        Some(Sheet::List(_)) => "↑↓ line  Enter story  / filter  Esc back  ? help  q quit",
        Some(Sheet::Story(_)) => "↑↓ scroll  Esc back  ? help  q quit",
        Some(Sheet::Help) => "any key goes back",
    };
    Line::styled(keys, paint.tone(Tone::Dim))
}

fn panels(frame: &mut Frame<'_>, area: Rect, model: &mut Model, now: Timestamp, paint: Paint) {
    let focus = model.focus();
    for (panel, area) in Panel::ALL.into_iter().zip(places(area, focus)) {
        let Some(overview) = &model.overview else {
            continue;
        };
        let cursor = model.cursor(panel);
        let length = cursor.length(panel.length(overview));
        let number = 1 + panel as usize;
        let shown = Shown {
            title: format!("{number} {}: {length}", panel.title()),
            columns: panel.columns(),
            length,
            selected: (panel == focus).then_some(cursor.selected),
            empty: panel.empty(),
        };
        shown.draw(frame, area, |nth| model.row(panel, nth, now), paint);
        if panel == focus {
            model.page = usize::from(area.height.saturating_sub(2));
        }
    }
}

/// Where the panels are: the one that keys go to has most of the room.
fn places(area: Rect, focus: Panel) -> [Rect; 4] {
    let share = |panel| match panel == focus {
        true => Constraint::Fill(3),
        false => Constraint::Fill(1),
    };
    if area.width < WIDE {
        return Layout::vertical(Panel::ALL.map(share)).areas(area);
    }
    let [left, right] = Layout::horizontal([Constraint::Fill(4), Constraint::Fill(3)])
        .spacing(2)
        .areas(area);
    let of = |area, panels: [Panel; 2]| Layout::vertical(panels.map(share)).areas::<2>(area);
    let [conflicts, releases] = of(left, [Panel::Conflicts, Panel::Releases]);
    let [segments, pools] = of(right, [Panel::Segments, Panel::Pools]);
    [conflicts, segments, pools, releases]
}

/// A list as it is to be seen.
struct Shown {
    title: String,
    columns: &'static [(&'static str, u16)],
    length: usize,
    /// Which line; none of a list that keys don't go to.
    selected: Option<usize>,
    empty: &'static str,
}

impl Shown {
    fn draw(
        self,
        frame: &mut Frame<'_>,
        area: Rect,
        row: impl Fn(usize) -> Option<Row>,
        paint: Paint,
    ) {
        let title = match self.selected {
            Some(_) => bold(),
            None => Style::new(),
        };
        let block = Block::new()
            .borders(Borders::TOP)
            .title(Span::styled(format!(" {} ", self.title), title));
        if self.length == 0 {
            let text = Line::styled(self.empty, paint.tone(Tone::Dim));
            frame.render_widget(Paragraph::new(text).block(block), area);
            return;
        }
        let height = usize::from(area.height.saturating_sub(2));
        let selected = self.selected.unwrap_or(0);
        // What is selected is in the middle, once it is further down.
        let first = selected.saturating_sub(height / 2);
        let first = first.min(self.length.saturating_sub(height));
        let seen = (first..self.length).take(height);
        let seen: Vec<(usize, Row)> = seen.filter_map(|nth| Some((nth, row(nth)?))).collect();
        let widths = self.widths(&seen, usize::from(area.width));
        let lines = seen.into_iter().map(|(nth, row)| {
            let mut style = paint.tone(row.tone);
            if self.selected == Some(nth) {
                style = style.add_modifier(Modifier::REVERSED);
            }
            let cells = row.cells.iter().zip(&widths);
            Cells::new(cells.map(|(cell, width)| abridged(cell, *width))).style(style)
        });
        let heads = self.columns.iter().map(|&(head, _)| head);
        let constraints = widths.iter().map(|width| {
            // No screen is wider.
            Constraint::Length(u16::try_from(*width).unwrap_or(u16::MAX))
        });
        let table = Table::new(lines, constraints)
            .header(Cells::new(heads).style(paint.tone(Tone::Dim)))
            .block(block);
        frame.render_widget(table, area);
    }
}

impl Shown {
    /// As wide as what is seen needs, and no wider than it may be; the last has the rest.
    fn widths(&self, seen: &[(usize, Row)], whole: usize) -> Vec<usize> {
        let mut left = whole;
        let columns = self.columns.iter().enumerate();
        columns
            .map(|(index, &(head, most))| {
                let cells = seen.iter().filter_map(|(_, row)| row.cells.get(index));
                let needs = cells.map(|cell| cell.width()).chain([head.width()]).max();
                let width = match most {
                    0 => left,
                    most => needs.unwrap_or(0).min(most.into()).min(left),
                };
                left = left.saturating_sub(width + 1);
                width
            })
            .collect()
    }
}

fn help(frame: &mut Frame<'_>, area: Rect) {
    let lines: Vec<Line<'_>> = KEYS
        .iter()
        .map(|(key, what)| {
            Line::from(vec![
                Span::styled(format!(" {key:<20}"), bold()),
                Span::raw(*what),
            ])
        })
        .collect();
    let height = u16::try_from(lines.len()).unwrap_or(u16::MAX) + 2;
    let (width, height) = (area.width.min(74), area.height.min(height));
    let place = Rect {
        x: area.x + (area.width - width) / 2,
        y: area.y + (area.height - height) / 2,
        width,
        height,
    };
    frame.render_widget(Clear, place);
    let block = Block::bordered().title(" Keys ");
    frame.render_widget(Paragraph::new(lines).block(block), place);
}
