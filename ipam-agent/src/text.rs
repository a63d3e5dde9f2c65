//! Files that people write are text: UTF-8, with or without a mark at its beginning.

/// The text of a file, or the line in which it is none, from 1, and why.
pub fn read(bytes: &[u8]) -> Result<&str, (u64, String)> {
    let line = |at: usize| 1 + bytes[..at].iter().filter(|byte| **byte == b'\n').count() as u64;
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err((1, "it is UTF-16: save it as UTF-8".to_owned()));
    }
    // What a power cut leaves of a file.
    if let Some(at) = bytes.iter().position(|byte| *byte == 0) {
        let what = "the file is damaged (NUL bytes): restore it";
        return Err((line(at), what.to_owned()));
    }
    let text = str::from_utf8(bytes).map_err(|error| {
        let at = error.valid_up_to();
        let what = format!("byte {:#04x} is no UTF-8: save it as UTF-8", bytes[at]);
        (line(at), what)
    })?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

/// As much of a text as a message quotes.
pub fn quote(text: &str) -> String {
    match text.char_indices().nth(120) {
        Some((end, _)) => format!("{} …", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_text_is_told_with_its_line() {
        assert_eq!(read(b"keep: []\n"), Ok("keep: []\n"));
        assert_eq!(
            read("\u{feff}keep: [] # ü\n".as_bytes()),
            Ok("keep: [] # ü\n")
        );
        for (bytes, line, words) in [
            (&b"\xff\xfek\0e\0"[..], 1, "UTF-16"),
            (b"keep: []\n\0\0\0", 2, "NUL bytes"),
            (b"a\nb\nM\xfcller\n", 3, "byte 0xfc is no UTF-8"),
            (b"cut off \xc3", 1, "byte 0xc3"),
        ] {
            let (at, what) = read(bytes).expect_err(words);
            assert!(at == line && what.contains(words), "{at}: {what}");
        }
    }

    #[test]
    fn a_message_quotes_no_book() {
        assert_eq!(quote("short"), "short");
        assert_eq!(quote(&"ü".repeat(500)).chars().count(), 122);
    }
}
