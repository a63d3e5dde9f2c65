//! What the agent says: the documents that programs read, and how people see them.
//!
//! Pure: a document goes in with the width of the screen, text comes out. "Now" is when
//! the document was made.

pub mod compose;
pub mod document;
pub(crate) mod page;
mod render;
pub mod schema;
mod vendor;

#[cfg(test)]
pub(crate) use self::render::samples;
pub use self::{
    page::{Page, View, abridged, ago, clean, count},
    render::{Csv, Document, Format, RenderError, render, watch_head, watch_line},
    vendor::vendor,
};
