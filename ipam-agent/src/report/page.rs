//! Text for a terminal: lines, wrapped sentences and columns. All of it goes through
//! [`clean`], so that no name from the wire or from a lease can move the cursor.

mod table;

use std::{borrow::Cow, fmt::Write};

use jiff::Timestamp;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

pub(super) use self::table::{Align, Table};

/// How text may look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// The terminal's columns; none: as wide as it gets, as into a pipe.
    pub width: Option<usize>,
    /// Whether colours are shown.
    pub color: bool,
}

/// How a piece of text is painted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Style {
    #[default]
    Plain,
    Bold,
    Dim,
    Good,
    Warning,
    Bad,
}

impl Style {
    /// Select Graphic Rendition (ECMA-48 §8.3.117).
    const fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Bold => "1",
            Self::Dim => "2",
            Self::Good => "32",
            Self::Warning => "33",
            Self::Bad => "1;31",
        }
    }
}

/// A piece of text that isn't broken.
#[derive(Clone, Debug, Default)]
pub(super) struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    pub fn new(style: Style, text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            style,
        }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(Style::Plain, text)
    }
}

/// Text being written.
#[derive(Debug)]
pub struct Page {
    view: View,
    now: Timestamp,
    out: String,
}

impl Page {
    /// An empty page, at the time from which "3 s ago" is counted.
    pub fn new(view: View, now: Timestamp) -> Self {
        Self {
            view,
            now,
            out: String::new(),
        }
    }

    /// The text.
    pub fn finish(self) -> String {
        self.out
    }

    /// Whether there is room for columns that are only nice to have.
    pub(super) fn is_wide(&self) -> bool {
        self.view.width.is_none_or(|width| width >= 110)
    }

    /// Whether somebody looks at it; else it goes into a pipe or a file.
    pub(super) fn is_screen(&self) -> bool {
        self.view.width.is_some()
    }

    /// An empty line, unless there is one already, or nothing.
    pub(super) fn blank(&mut self) {
        if !self.out.is_empty() && !self.out.ends_with("\n\n") {
            self.out.push('\n');
        }
    }

    /// One line of pieces, two spaces apart.
    pub(super) fn line<const N: usize>(&mut self, indent: usize, cells: [Cell; N]) {
        self.indent(indent);
        for (index, cell) in cells.into_iter().enumerate() {
            if index > 0 {
                self.out.push_str("  ");
            }
            self.paint(cell.style, &clean(&cell.text));
        }
        self.end_line();
    }

    /// Sentences, broken between words where the screen ends.
    pub(super) fn text(&mut self, indent: usize, style: Style, text: &str) {
        let text = clean(text);
        let width = self.view.width.map(|width| width.saturating_sub(indent));
        for line in wrap(&text, width) {
            self.indent(indent);
            self.paint(style, line);
            self.end_line();
        }
    }

    /// Columns.
    pub(super) fn table(&mut self, indent: usize, table: Table) {
        table.write(self, indent);
    }

    /// When it was: "3 s ago", or the date if it is longer ago than a day.
    pub(super) fn ago(&self, at: Timestamp) -> String {
        ago(self.now, at)
    }

    /// The same of a time that may never have been.
    pub(super) fn ago_or(&self, at: Option<Timestamp>, never: &str) -> String {
        at.map_or_else(|| never.to_owned(), |at| self.ago(at))
    }

    fn indent(&mut self, columns: usize) {
        self.out.extend(std::iter::repeat_n(' ', columns));
    }

    fn paint(&mut self, style: Style, text: &str) {
        if self.view.color && style != Style::Plain && !text.is_empty() {
            // Writing to a string doesn't fail.
            let _ = write!(self.out, "\x1b[{}m{text}\x1b[0m", style.code());
        } else {
            self.out.push_str(text);
        }
    }

    fn end_line(&mut self) {
        let kept = self.out.trim_end_matches(' ').len();
        self.out.truncate(kept);
        self.out.push('\n');
    }
}

/// When it was: "3 s ago", or the date if it is longer ago than a day.
pub fn ago(now: Timestamp, at: Timestamp) -> String {
    let seconds = now.duration_since(at).as_secs();
    match seconds {
        0 => "now".to_owned(),
        1..DAY => format!("{} ago", span(seconds)),
        NEXT_DAY..0 => format!("in {}", span(-seconds)),
        _ => date(at),
    }
}

const DAY: i64 = 24 * 3600;
const NEXT_DAY: i64 = -DAY;

/// The date and time, UTC.
pub fn date(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// Seconds in the largest unit that is not zero.
pub fn span(seconds: i64) -> String {
    match seconds {
        ..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / DAY),
    }
}

/// `1 lease`, `2 leases`.
pub fn count(number: usize, one: &str) -> String {
    match number {
        1 => format!("1 {one}"),
        _ if one.ends_with("ss") => format!("{number} {one}es"),
        _ => format!("{number} {one}s"),
    }
}

/// The text in at most `width` columns: cut off where it is longer, and it shows.
pub fn abridged(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut kept = String::new();
    for character in text.chars() {
        if kept.width() + character.width().unwrap_or(0) + 1 > width {
            break;
        }
        kept.push(character);
    }
    format!("{}…", kept.trim_end())
}

/// The text without anything that a terminal would obey or that hides what is there:
/// control characters, direction overrides and zero-width characters are written out.
pub fn clean(text: &str) -> Cow<'_, str> {
    let is_hidden = |character: char| {
        character.is_control()
            || matches!(character,
                '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
    };
    if !text.contains(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut cleaned = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if is_hidden(character) {
            cleaned.extend(character.escape_default());
        } else {
            cleaned.push(character);
        }
    }
    Cow::Owned(cleaned)
}

/// Lines of at most `width` columns; a word that is longer stays whole.
fn wrap(text: &str, width: Option<usize>) -> Vec<&str> {
    let Some(width) = width.filter(|&width| text.width() > width) else {
        return vec![text];
    };
    let mut lines = Vec::new();
    let (mut start, mut end) = (0, 0);
    for word in text.split(' ') {
        // Where the word stands in the text: they are parts of it.
        let from = word.as_ptr() as usize - text.as_ptr() as usize;
        let until = from + word.len();
        if end > start && text[start..until].width() > width {
            lines.push(&text[start..end]);
            start = from;
        }
        end = until;
    }
    lines.push(&text[start..]);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_gets_through() {
        assert_eq!(clean("web-0"), "web-0");
        assert_eq!(clean("a\x1b[2Jb\u{9b}c"), "a\\u{1b}[2Jb\\u{9b}c");
        assert_eq!(clean("x\r\ny\u{202e}z"), "x\\r\\ny\\u{202e}z");
    }

    #[test]
    fn lines_break_between_words() {
        let lines = wrap("two machines use 10.0.0.5 at once", Some(12));
        assert_eq!(lines, ["two machines", "use 10.0.0.5", "at once"]);
        assert_eq!(wrap("aaaaaaaaaa b", Some(4)), ["aaaaaaaaaa", "b"]);
        assert_eq!(wrap("", Some(4)), [""]);
        assert_eq!(wrap("a b", None), ["a b"]);
    }

    #[test]
    fn what_is_cut_off_shows() {
        assert_eq!(abridged("Dell", 4), "Dell");
        assert_eq!(abridged("Super Micro Computer", 12), "Super Micro…");
        assert_eq!(abridged("深圳市", 5), "深圳…");
        assert_eq!(abridged("ab", 1), "…");
    }

    #[test]
    fn times_are_told_from_now() {
        let now: Timestamp = "2026-11-23T12:00:00Z".parse().expect("a time");
        let page = Page::new(View::default(), now);
        let ago = |text: &str| page.ago(text.parse().expect("a time"));
        assert_eq!(ago("2026-11-23T12:00:00Z"), "now");
        assert_eq!(ago("2026-11-23T11:59:57Z"), "3 s ago");
        assert_eq!(ago("2026-11-23T11:55:00Z"), "5 min ago");
        assert_eq!(ago("2026-11-23T01:00:00Z"), "11 h ago");
        assert_eq!(ago("2026-11-21T12:00:00Z"), "2026-11-21 12:00:00Z");
        assert_eq!(ago("2026-11-23T12:04:00Z"), "in 4 min");
    }
}
