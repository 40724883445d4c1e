//! A strict JSON scanner that borrows, and the writers for our own messages.
//!
//! orderflow reads five fields of an order and keeps the rest as bytes, so it needs no tree: [`Fields`]
//! walks the fields of one object and hands out slices. What it skips it checks nevertheless: text that
//! this scanner accepts is JSON by RFC 8259, and a test compares it with `serde_json`. There are two
//! differences: nesting stops at [`MAX_DEPTH`], and numbers of any size are numbers here (`serde_json`
//! refuses `1e999`). Escapes that name half a surrogate pair are refused by both.
//!
//! The scanner never recurses: depth is a counter and a bit per level.

mod scan;
mod write;

pub use scan::{Elements, Field, Fields, Kind, MAX_DEPTH, Value, parse};
pub use write::{write_integer, write_string};
