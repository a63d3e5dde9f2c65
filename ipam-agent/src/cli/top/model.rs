//! What is shown, and what keys do to it. Knows no terminal, no clock and no daemon.

use std::net::IpAddr;

use jiff::Timestamp;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::rows::{self, Panel, Row, Target};
use crate::report::document::{AddressRecord, Addresses, LeaseRecord, Leases, Overview};

/// Something that is to be done outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// End.
    Quit,
    /// Ask for the story of an address, as wide as it can be shown.
    Explain(IpAddr),
    /// Ask who is on the wires.
    Addresses(String),
    /// Look again now.
    Refresh,
}

/// What lies over the panels.
#[derive(Debug)]
pub(super) enum Sheet {
    /// Who is on a segment, or the leases of a store.
    List(List),
    /// All that is known of an address.
    Story(Story),
    /// The keys.
    Help,
}

#[derive(Debug)]
pub(super) struct List {
    pub title: String,
    pub columns: &'static [(&'static str, u16)],
    records: Records,
    pub cursor: Cursor,
}

#[derive(Debug)]
enum Records {
    Leases(Vec<LeaseRecord>),
    Addresses(Vec<AddressRecord>),
}

impl List {
    fn length(&self) -> usize {
        match &self.records {
            Records::Leases(records) => records.len(),
            Records::Addresses(records) => records.len(),
        }
    }

    fn row(&self, index: usize, now: Timestamp) -> Option<Row> {
        match &self.records {
            Records::Leases(records) => records.get(index).map(|it| rows::lease(it, now)),
            Records::Addresses(records) => records.get(index).map(|it| rows::address(it, now)),
        }
    }
}

#[derive(Debug)]
pub(super) struct Story {
    pub title: String,
    /// Empty until the daemon has answered.
    pub lines: Vec<String>,
    /// The first line that is seen.
    pub top: usize,
}

/// Which lines of a list fit the filter, and which one is selected.
#[derive(Clone, Debug, Default)]
pub(super) struct Cursor {
    /// None: all.
    matches: Option<Vec<usize>>,
    /// Among those that fit.
    pub selected: usize,
    /// What is selected, to find it again when the list is another.
    key: Option<String>,
}

impl Cursor {
    pub fn length(&self, all: usize) -> usize {
        self.matches.as_ref().map_or(all, Vec::len)
    }

    /// The place in the whole list of one that fits.
    pub fn index(&self, nth: usize) -> usize {
        match &self.matches {
            None => nth,
            Some(matches) => matches.get(nth).copied().unwrap_or(usize::MAX),
        }
    }

    /// Another list, or another filter: what was selected stays so, if it is still there.
    fn renew(&mut self, all: usize, filter: &str, row: impl Fn(usize) -> Option<Row>) {
        let filter = filter.to_lowercase();
        self.matches = (!filter.is_empty()).then(|| {
            let fits = |index: &usize| row(*index).is_some_and(|row| row.has(&filter));
            (0..all).filter(fits).collect()
        });
        let length = self.length(all);
        if let Some(key) = &self.key {
            let is_it = |nth: &usize| row(self.index(*nth)).is_some_and(|row| row.key == *key);
            // Where it was is where it mostly is.
            let found = Some(self.selected).filter(|nth| *nth < length && is_it(nth));
            if let Some(nth) = found.or_else(|| (0..length).find(is_it)) {
                self.selected = nth;
                return;
            }
        }
        self.selected = self.selected.min(length.saturating_sub(1));
    }

    fn go(&mut self, by: Step, page: usize, all: usize, row: impl Fn(usize) -> Option<Row>) {
        let last = self.length(all).saturating_sub(1);
        self.selected = by.from(self.selected, page).min(last);
        // The first is wherever the worst is; who goes elsewhere stays with what is there.
        self.key = match self.selected {
            0 => None,
            nth => row(self.index(nth)).map(|row| row.key),
        };
    }
}

#[derive(Clone, Copy)]
enum Step {
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
}

impl Step {
    fn of(key: KeyCode) -> Option<Self> {
        Some(match key {
            KeyCode::Up | KeyCode::Char('k') => Self::Up,
            KeyCode::Down | KeyCode::Char('j') => Self::Down,
            KeyCode::PageUp => Self::PageUp,
            KeyCode::PageDown | KeyCode::Char(' ') => Self::PageDown,
            KeyCode::Home | KeyCode::Char('g') => Self::Home,
            KeyCode::End | KeyCode::Char('G') => Self::End,
            _ => return None,
        })
    }

    fn from(self, place: usize, page: usize) -> usize {
        match self {
            Self::Up => place.saturating_sub(1),
            Self::Down => place.saturating_add(1),
            Self::PageUp => place.saturating_sub(page.max(1)),
            Self::PageDown => place.saturating_add(page.max(1)),
            Self::Home => 0,
            Self::End => usize::MAX,
        }
    }
}

/// The whole view.
#[derive(Debug, Default)]
pub(super) struct Model {
    /// None until the daemon has answered once.
    pub overview: Option<Overview>,
    leases: Vec<LeaseRecord>,
    /// Why it doesn't answer now.
    pub gone: Option<String>,
    /// The last thing that went wrong, until the next key.
    pub problem: Option<String>,
    focus: usize,
    cursors: [Cursor; 4],
    /// The last is seen.
    sheets: Vec<Sheet>,
    pub filter: String,
    /// Whether keys go to the filter.
    pub typing: bool,
    /// How many lines of a list were seen last, for the keys that go by pages.
    pub page: usize,
}

impl Model {
    pub fn focus(&self) -> Panel {
        Panel::ALL[self.focus]
    }

    pub fn sheet(&self) -> Option<&Sheet> {
        self.sheets.last()
    }

    pub fn cursor(&self, panel: Panel) -> &Cursor {
        &self.cursors[panel as usize]
    }

    /// A line that fits the filter.
    pub fn row(&self, panel: Panel, nth: usize, now: Timestamp) -> Option<Row> {
        let index = self.cursor(panel).index(nth);
        panel.row(self.overview.as_ref()?, index, now)
    }

    /// The same of a list that lies over them.
    pub fn listed(&self, list: &List, nth: usize, now: Timestamp) -> Option<Row> {
        list.row(list.cursor.index(nth), now)
    }

    /// How many lines a list has that fit.
    pub fn length(&self, list: &List) -> usize {
        list.cursor.length(list.length())
    }

    /// The daemon answered.
    pub fn fresh(&mut self, overview: Overview, leases: Leases) {
        self.gone = None;
        self.leases = leases.leases;
        self.overview = Some(overview);
        self.renew();
    }

    /// The daemon doesn't answer; what was seen last stays.
    pub fn gone(&mut self, why: String) {
        self.gone = Some(why);
    }

    /// What was asked for an address.
    pub fn story(&mut self, address: IpAddr, text: &str) {
        if let Some(Sheet::Story(story)) = self.sheets.last_mut()
            && story.title == address.to_string()
        {
            story.lines = text.lines().map(str::to_owned).collect();
        }
    }

    /// Who is on a segment.
    pub fn addresses(&mut self, segment: &str, addresses: Addresses) {
        let mut records = addresses.addresses;
        records.retain(|record| record.segment.to_string() == segment);
        self.open_list(segment, rows::ADDRESSES, Records::Addresses(records));
    }

    fn open_list(
        &mut self,
        title: &str,
        columns: &'static [(&'static str, u16)],
        records: Records,
    ) {
        self.filter.clear();
        self.renew();
        self.sheets.push(Sheet::List(List {
            title: title.to_owned(),
            columns,
            records,
            cursor: Cursor::default(),
        }));
    }

    /// What is selected, and fits the filter, is found anew.
    fn renew(&mut self) {
        // Ages are no part of what is looked for.
        let now = Timestamp::UNIX_EPOCH;
        if let Some(Sheet::List(list)) = self.sheets.last_mut() {
            let mut cursor = std::mem::take(&mut list.cursor);
            cursor.renew(list.length(), &self.filter, |index| list.row(index, now));
            list.cursor = cursor;
            return;
        }
        let Some(overview) = &self.overview else {
            return;
        };
        for (panel, cursor) in Panel::ALL.into_iter().zip(&mut self.cursors) {
            let row = |index| panel.row(overview, index, now);
            cursor.renew(panel.length(overview), &self.filter, row);
        }
    }

    /// A key was pressed.
    pub fn key(&mut self, key: KeyEvent) -> Option<Effect> {
        self.problem = None;
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if control => return Some(Effect::Quit),
            KeyCode::Char('l') if control => return Some(Effect::Refresh),
            _ if control => return None,
            code if self.typing => {
                self.typed(code);
                return None;
            }
            KeyCode::Char('q') => return Some(Effect::Quit),
            KeyCode::Char('r') => return Some(Effect::Refresh),
            KeyCode::Char('?') => {
                if !matches!(self.sheet(), Some(Sheet::Help)) {
                    self.sheets.push(Sheet::Help);
                }
                return None;
            }
            KeyCode::Esc | KeyCode::Backspace => {
                // What is nearest to the eye goes first.
                if self.filter.is_empty() {
                    self.sheets.pop();
                }
                self.filter.clear();
                self.renew();
                return None;
            }
            _ => {}
        }
        match self.sheets.last_mut() {
            Some(Sheet::Help) => {
                self.sheets.pop();
                None
            }
            Some(Sheet::Story(story)) => {
                if let Some(step) = Step::of(key.code) {
                    let last = story.lines.len().saturating_sub(self.page);
                    story.top = step.from(story.top, self.page).min(last);
                }
                None
            }
            Some(Sheet::List(_)) | None => self.key_in_list(key.code),
        }
    }

    fn typed(&mut self, key: KeyCode) {
        match key {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => {
                if self.filter.pop().is_none() {
                    self.typing = false;
                }
            }
            KeyCode::Char(character) if self.filter.len() < 64 => self.filter.push(character),
            _ => return,
        }
        self.renew();
    }

    fn key_in_list(&mut self, key: KeyCode) -> Option<Effect> {
        let over = !self.sheets.is_empty();
        match key {
            KeyCode::Char('/') => self.typing = true,
            KeyCode::Enter => return self.open(),
            KeyCode::Tab | KeyCode::Right if !over => self.focus = (self.focus + 1) % 4,
            KeyCode::BackTab | KeyCode::Left if !over => self.focus = (self.focus + 3) % 4,
            KeyCode::Char(digit @ '1'..='4') if !over => {
                self.focus = digit as usize - '1' as usize;
            }
            _ => {
                if let Some(step) = Step::of(key) {
                    self.go(step);
                }
            }
        }
        None
    }

    fn go(&mut self, step: Step) {
        let now = Timestamp::UNIX_EPOCH;
        let page = self.page;
        if let Some(Sheet::List(list)) = self.sheets.last_mut() {
            let mut cursor = std::mem::take(&mut list.cursor);
            cursor.go(step, page, list.length(), |index| list.row(index, now));
            list.cursor = cursor;
        } else if let Some(overview) = &self.overview {
            let panel = Panel::ALL[self.focus];
            let row = |index| panel.row(overview, index, now);
            self.cursors[self.focus].go(step, page, panel.length(overview), row);
        }
    }

    fn open(&mut self) -> Option<Effect> {
        let now = Timestamp::UNIX_EPOCH;
        let row = match self.sheets.last() {
            Some(Sheet::List(list)) => self.listed(list, list.cursor.selected, now),
            _ => self.row(self.focus(), self.cursor(self.focus()).selected, now),
        };
        match row?.target {
            Target::Story(address) => {
                self.sheets.push(Sheet::Story(Story {
                    title: address.to_string(),
                    lines: Vec::new(),
                    top: 0,
                }));
                Some(Effect::Explain(address))
            }
            Target::Segment(segment) => Some(Effect::Addresses(segment)),
            Target::Store(store) => {
                let of = self.leases.iter().filter(|it| it.lease.store == store);
                let leases = of.cloned().collect();
                self.open_list(&store, rows::LEASES, Records::Leases(leases));
                None
            }
        }
    }
}
