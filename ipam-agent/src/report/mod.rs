//! What the agent says: the documents that programs read, and how people see them.
//!
//! Pure: documents go in with the time and the width of the screen, text comes out.

pub mod compose;
pub mod document;
