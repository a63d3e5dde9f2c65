//! Errors, told to people, with what was probably meant.

use std::error::Error;

/// An error with everything that caused it: no `Display` of ours repeats its source.
pub fn in_full(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Two words that are at least so much alike are one of them mistyped (Jaro–Winkler).
const ALIKE: f64 = 0.85;

/// The one of the `known` words that was probably meant by `word`.
pub fn meant<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |word: &str| word.to_lowercase().replace(['-', ' '], "_");
    let word = plain(word);
    let alike = known
        .into_iter()
        .map(|known| (strsim::jaro_winkler(&plain(known), &word), known))
        .max_by(|a, b| a.0.total_cmp(&b.0));
    alike.and_then(|(alike, known)| (alike >= ALIKE).then_some(known))
}

/// ` (did you mean NAME?)`, or nothing.
pub fn hint<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let meant = meant(word, known);
    meant.map_or_else(String::new, |meant| format!(" (did you mean `{meant}`?)"))
}

/// What is wrong with a YAML file, and what would be right; without the place.
pub fn yaml(error: &serde_saphyr::Error) -> String {
    use serde_saphyr::{Error as E, budget::BudgetBreach as Breach};
    let error = error.without_snippet();
    match error {
        E::SerdeUnknownField {
            field, expected, ..
        } => {
            let known = expected.join(", ");
            let hint = hint(field, expected.iter().copied());
            format!("unknown key `{field}`{hint}; known here: {known}")
        }
        E::AliasError { error, .. } => yaml(error),
        E::NullIntoString { .. } => "a value is missing".to_owned(),
        E::MultipleDocuments { .. }
        | E::Budget {
            breach: Breach::Documents { .. },
            ..
        } => "one document only: take out the line `---` and what follows it".to_owned(),
        E::UnknownAnchor { .. } => {
            "a text that begins with `*` needs quotes, '*-bo': without them it \
                                    repeats what is called so, and nothing is"
                .to_owned()
        }
        E::RecursiveReferencesRequireWeakTypes { .. } => {
            "it repeats itself (`*name` within `&name`): write it out".to_owned()
        }
        E::Budget {
            breach: Breach::Anchors { .. } | Breach::Aliases { .. },
            ..
        } => {
            "nothing can be repeated here by `&name` and `*name`: write it out; a text that begins \
              with either needs quotes"
                .to_owned()
        }
        E::Budget { .. } => "it is longer, or nested deeper, than any such file".to_owned(),
        E::DuplicateMappingKey { key: Some(key), .. } => format!("the key `{key}` is there twice"),
        E::SerdeMissingField { field, .. } => format!("the key `{field}` is missing"),
        E::InvalidScalar { ty, .. } => match *ty {
            "boolean" | "bool" => "should be true or false".to_owned(),
            ty if ty.starts_with('u') => "should be a whole number, 0 or more".to_owned(),
            ty => format!("should be a {ty}"),
        },
        E::Unexpected { expected, .. } => match *expected {
            "sequence start" => "should be a list: [ … ], or lines that begin with `- `".to_owned(),
            "mapping start" => "should be keys with values: `key: value`".to_owned(),
            expected => format!("should be a {expected}"),
        },
        other => {
            let text = other.to_string();
            let end = text.rfind(" at line ").unwrap_or(text.len());
            text[..end].to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_meant_is_guessed_and_nonsense_is_not() {
        let known = ["include", "exclude", "data_plane", "max_per_pass"];
        assert_eq!(meant("includes", known), Some("include"));
        assert_eq!(meant("Data-Plane", known), Some("data_plane"));
        assert_eq!(meant("max_per_passes", known), Some("max_per_pass"));
        assert_eq!(meant("zebra", known), None);
        assert_eq!(meant("", known), None);
        assert_eq!(meant("x", []), None);
    }
}
