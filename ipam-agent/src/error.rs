//! Errors, told to people.

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
