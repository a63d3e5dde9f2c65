//! What differs from run to run is left out of the comparison: times, ids, MACs, and how far
//! columns are apart.

/// The text with what differs from run to run written as `‹…›`, and single spaces.
pub fn masked(text: &str) -> String {
    let lines = text.lines().map(|line| {
        let words: Vec<String> = line.split_whitespace().map(word).collect();
        spans(&words)
    });
    lines.map(|line| line + "\n").collect()
}

/// One word, with the punctuation around it.
fn word(word: &str) -> String {
    let is_edge = |c: char| matches!(c, '(' | ')' | ',' | '.' | ';' | ':' | '"' | '\'' | '`');
    let core = word.trim_matches(is_edge);
    let Some(begin) = word.find(core).filter(|_| !core.is_empty()) else {
        return word.to_owned();
    };
    let mask = match core {
        "now" => "‹ago›",
        core if is_mac(core) => "‹mac›",
        core if is_release(core) => "‹release›",
        core if is_time(core) => "‹time›",
        core if is_veth(core) => "‹veth›",
        core if is_hex(core) => "‹id›",
        _ => return word.to_owned(),
    };
    let end = begin + core.len();
    format!("{}{mask}{}", &word[..begin], &word[end..])
}

fn is_mac(word: &str) -> bool {
    let bytes: Vec<&str> = word.split(':').collect();
    let is_byte = |byte: &&str| byte.len() == 2 && byte.bytes().all(|b| b.is_ascii_hexdigit());
    bytes.len() == 6 && bytes.iter().all(is_byte)
}

/// `2026-11-23T12:00:00Z`, `2026-11-23`, `12:00:00Z`.
fn is_time(word: &str) -> bool {
    let plain = word
        .bytes()
        .all(|b| b.is_ascii_digit() || b"-:.TZ".contains(&b));
    let digits = word.bytes().filter(u8::is_ascii_digit).count();
    let year = word.bytes().position(|b| !b.is_ascii_digit());
    let dated = year == Some(4) && word.as_bytes()[4] == b'-' && digits >= 8;
    plain && (dated || word.ends_with('Z') && digits >= 6)
}

/// A kernel's release: `6.1.0-37-amd64`.
fn is_release(word: &str) -> bool {
    let begins = word.bytes().next().is_some_and(|b| b.is_ascii_digit());
    let dots = word.bytes().filter(|b| *b == b'.').count();
    begins && dots >= 2 && word.contains('-') && word.bytes().any(|b| b.is_ascii_alphabetic())
}

/// An interface that the bridge plugin made.
fn is_veth(word: &str) -> bool {
    let rest = word.strip_prefix("veth");
    rest.is_some_and(|rest| rest.len() == 8 && rest.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// A container's id, or a conflict's.
fn is_hex(word: &str) -> bool {
    let hex = word.bytes().all(|b| b.is_ascii_hexdigit());
    hex && word.len() >= 12 && word.bytes().any(|b| b.is_ascii_digit())
}

/// The words with spans of time left out: `12 s`, `5 min`, `3.5 s`.
fn spans(words: &[String]) -> String {
    let is_number = |word: &str| {
        let digits = word.trim_start_matches(['(', '~']);
        !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit() || b == b'.')
    };
    let unit = |word: &str| {
        let unit = word.trim_end_matches(|c: char| !c.is_alphanumeric());
        matches!(unit, "s" | "min" | "h" | "d" | "ms")
    };
    let mut line = Vec::new();
    let mut words = words.iter().peekable();
    while let Some(word) = words.next() {
        match words.peek() {
            Some(next) if is_number(word) && unit(next) => {
                let end = next.trim_start_matches(char::is_alphanumeric);
                line.push(format!("‹span›{end}"));
                words.next();
            }
            // How many agree depends on when one looks.
            Some(next) if is_number(word) && next.starts_with("passes") => {
                line.push("‹n›".to_owned());
            }
            _ => line.push(word.clone()),
        }
    }
    // Now and a second ago are the same to a reader.
    uncounted(&line.join(" ").replace("‹span› ago", "‹ago›"))
}

/// How many frames were heard, the number after a last time, depends on the moment.
fn uncounted(line: &str) -> String {
    let mut words: Vec<&str> = line.split(' ').collect();
    for at in 1..words.len() {
        let number = words[at].bytes().all(|b| b.is_ascii_digit());
        if number && words[at - 1] == "‹ago›" {
            words[at] = "‹n›";
        }
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::masked;

    #[test]
    fn what_differs_from_run_to_run_is_left_out_and_nothing_else() {
        let one = "10.52.0.5   02:00:00:00:00:0a  veth1a2b3c4d   3 s ago,  id 0123456789abcdef";
        let two = "10.52.0.5  66:4e:aa:bb:cc:0a  vethffffffff  12 min ago, id fedcba9876543210";
        assert_eq!(masked(one), masked(two));
        assert_ne!(masked(one), masked(&two.replace("10.52.0.5", "10.52.0.6")));
        let at = |time: &str| masked(&format!("resolved {time} by web-1"));
        assert_eq!(at("2026-11-23 12:00:00Z"), at("2027-01-02 23:59:59Z"));
        let now = masked("66:4e:aa:bb:cc:0a veth1a2b3c4d now now 1 arp-request");
        let then = "66:4e:aa:bb:cc:0a veth1a2b3c4d 2 s ago 1 s ago 12 arp-request";
        assert_eq!(now, masked(then));
        assert_eq!(masked("6.1.0-37-amd64"), masked("6.18.44-2-default"));
        assert_ne!(masked("10.0.0.1-10.0.0.9"), masked("10.0.0.1-10.0.0.8"));
        assert_ne!(masked("13 leases"), masked("12 leases"));
        assert_ne!(masked("duplicate-address"), masked("lease-mismatch"));
    }
}
