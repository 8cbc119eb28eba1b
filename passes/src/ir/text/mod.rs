//! Models as text: the ONNX textual syntax, printed and parsed.
//!
//! The syntax is that of the ONNX project's `docs/Syntax.md`; `onnx.parser.parse_model` reads the text that [`print()`]
//! writes.
//!
//! ```text
//! <
//!   ir_version: 8,
//!   opset_import: ["": 17]
//! >
//! net (float[N,3,8,8] x) => (float[N,16,8,8] y)
//! <
//!   float[16,3,3,3] w = {},  # fill normal 0.121: 432 elements, absmax 0.713, rms 0.121
//!   float[1] b = {0.5}
//! >
//! {
//!   [conv1] t = Conv <pads = [1, 1, 1, 1]> (x, w)
//!   y = Add (t, b)
//! }
//! ```
//!
//! # Tensors
//!
//! Tensors of up to [`INLINE_LIMIT`] elements are written out. Larger tensors become `{}`: `onnx.parser` reads tensors
//! without data, [`parse`] fills in generated numbers, of the kind that the comment behind them states (see `fill.rs`).
//! A declaration without `= {}` is a tensor as well if such a comment follows, else the type of an inner value.
//! External data is written as `["location": "w.bin"]` and parsed as external data.
//!
//! Floats of 16 bits and fewer are written as their bits, as the syntax requires; [`parse`] also accepts 16-bit floats
//! by value, recognised by the decimal point: `float16[2] {0.5, 1.5}`.
//!
//! # What the text form preserves
//!
//! `parse(print(m))` equals `m` for models of small tensors, with these exceptions. Attributes are printed in name
//! order. Parsed tensors hold `raw_data` (or `string_data`), whichever field held the elements before. Of a NaN only
//! the sign is preserved. Where a field may be absent or hold its default, `parse` states the names of graphs and
//! values, the domain of an operator set and the type of an attribute, and leaves out an empty domain or overload of a
//! node. Fields for which the syntax has no place, such as documentation of nodes, are printed as comments, which
//! `parse` skips.
//!
//! # Extensions
//!
//! `onnx.parser` does not know these extensions; the first two are written only where the ONNX syntax has no form.
//!
//! * Names of operators, domains, overloads and attributes that are no identifiers are quoted.
//! * `\xHH` in a string is a byte, for strings that are not UTF-8.
//! * A comment `# name "..."` behind a nested graph's signature or behind a tensor in an attribute gives its full
//!   name; `onnx.parser` skips the comment and reads a plain name or none.

mod describe;
mod elements;
mod fill;
mod layout;
mod lex;
mod notes;
mod parse;
mod parse_attribute;
mod parse_tensor;
mod print;
mod print_attribute;
mod spell;
#[cfg(test)]
mod tests;

pub use lex::ParseError;

use crate::ir::{GraphProto, ModelProto, NodeProto, TypeProto};
use parse::Parser;
use print::Printer;

/// Tensors with more elements are described instead of written out, by default.
pub const INLINE_LIMIT: usize = 8;

/// Prints a model.
pub fn print(model: &ModelProto) -> String {
    print_with_limit(model, INLINE_LIMIT)
}

/// Prints a model and writes out tensors of up to `inline_limit` elements.
pub fn print_with_limit(model: &ModelProto, inline_limit: usize) -> String {
    Printer { inline_limit }.model(model)
}

/// Prints a graph, without a line end behind it.
pub fn print_graph(graph: &GraphProto) -> String {
    Printer { inline_limit: INLINE_LIMIT }.graph(graph, 0, false)
}

/// Prints a node, without a line end behind it; one line unless it has notes or sub-graphs.
pub fn print_node(node: &NodeProto) -> String {
    Printer { inline_limit: INLINE_LIMIT }.node(node, 0)
}

/// Prints a type, for instance `float[N,3,8,8]`; `None` where the syntax cannot express it.
pub fn print_type(value: &TypeProto) -> Option<String> {
    spell::type_text(value)
}

/// Parses a model.
///
/// # Errors
///
/// The text is not in the syntax, nests graphs or types more than 32 levels deep, or declares generated tensors of more
/// than 2^24 elements each or 2^26 in all.
pub fn parse(text: &str) -> Result<ModelProto, ParseError> {
    Parser::new(text)?.model()
}
