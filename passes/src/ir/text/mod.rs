//! Models as text: the ONNX textual syntax, printed and parsed.
//!
//! The syntax is that of the ONNX project's `docs/Syntax.md`; what [`print()`] writes, `onnx.parser.parse_model` reads.
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
//! Up to [`INLINE_LIMIT`] elements are written out. Larger tensors become `{}`: `onnx.parser` sees tensors without
//! data, [`parse`] fills in made-up numbers. The comment behind says of which kind, see `fill.rs`. A declaration
//! without `= {}` is a tensor as well when such a comment follows, else the type of a value in between. Data in a file
//! of its own is written as `["location": "w.bin"]` and comes back as such.
//!
//! Floats of 16 bits and fewer are written as their bits, which is what the syntax asks for; [`parse`] also takes
//! 16-bit floats by value, told by a point: `float16[2] {0.5, 1.5}`.
//!
//! # What goes through text unchanged
//!
//! `parse(print(m))` is `m` for models of small tensors, with these exceptions. Attributes are printed in name order.
//! Parsed tensors hold `raw_data` (or `string_data`), whichever field the elements were in. NaN keeps only its sign.
//! Where a field may be absent or hold its default, `parse` states the names of graphs and values, the domain of an
//! operator set and the type of an attribute, and leaves out an empty domain or overload of a node. What the syntax
//! has no place for, such as documentation of nodes, is printed as comments, which `parse` skips.
//!
//! # Extensions
//!
//! `onnx.parser` does not know these; the first two are written only where it has no way of its own.
//!
//! * Names of operators, domains, overloads and attributes that are no identifiers are quoted.
//! * `\xHH` in a string is a byte, for strings that are not UTF-8.
//! * A comment `# name "..."` behind a nested graph's signature or behind a tensor in an attribute gives its full
//!   name; `onnx.parser` skips it and sees a plain name or none.

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

/// Tensors with more elements are described instead of written out, unless asked otherwise.
pub const INLINE_LIMIT: usize = 8;

/// Prints a model.
pub fn print(model: &ModelProto) -> String {
    print_with_limit(model, INLINE_LIMIT)
}

/// Prints a model, writing tensors of up to `inline_limit` elements out.
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

/// Prints a type, for instance `float[N,3,8,8]`; nothing where the syntax has no words for it.
pub fn print_type(value: &TypeProto) -> Option<String> {
    spell::type_text(value)
}

/// Parses a model.
///
/// # Errors
///
/// The text is not in the syntax, nests graphs or types more than 32 levels deep, or asks for made-up tensors of more
/// than 2^24 elements each or 2^26 in all.
pub fn parse(text: &str) -> Result<ModelProto, ParseError> {
    Parser::new(text)?.model()
}
