//! The layers that the caller leaves in float.

use super::SchemeError;
use super::options::SchemeOptions;
use msq_passes::analysis::{StoredWeight, layers, stored_weights};
use msq_passes::ir::{Model, Node};
use regex::Regex;
use std::collections::HashSet;

/// Patterns of layer names, and operators, to leave in float.
#[derive(Debug)]
pub(crate) struct Selection {
    skip: Vec<(String, Option<Regex>)>,
    keep_float: Vec<String>,
}

impl Selection {
    /// Compiles the caller's patterns; each must match a layer of the model.
    pub(crate) fn new(model: &Model, options: &SchemeOptions) -> Result<Self, SchemeError> {
        let mut names: Vec<String> = layers(model).into_iter().map(|l| l.name).collect();
        for weight in stored_weights(model) {
            names.push(weight.name);
            names.extend(weight.readers);
        }
        let mut skip = Vec::new();
        for pattern in &options.skip {
            let entry = compile(pattern, &names)?;
            if !names.iter().any(|name| matches(&entry, name)) {
                return Err(SchemeError::NoSuchLayer { pattern: pattern.clone() });
            }
            skip.push(entry);
        }
        let ops: Vec<String> = stored_weights(model).into_iter().map(|weight| weight.op).collect();
        let missing = |op: &&String| !ops.contains(op) && !model.graph.nodes().any(|(_, n)| n.op() == op.as_str());
        match options.keep_float.iter().find(missing) {
            Some(op) => Err(SchemeError::NoSuchOperator { op: op.clone() }),
            None => Ok(Self { skip, keep_float: options.keep_float.clone() }),
        }
    }

    /// Why the node is left in float, if it is.
    pub(crate) fn refusal(&self, node: &Node, name: &str) -> Option<String> {
        if let Some((pattern, _)) = self.skip.iter().find(|entry| matches(entry, name)) {
            return Some(format!("left float by option `skip={pattern}`"));
        }
        self.keeps(node.op())
    }

    /// Why a weight beside the layers is left in float, if it is: by its own name, or by that of a node that reads it.
    pub(crate) fn refuses(&self, weight: &StoredWeight) -> Option<String> {
        let names = || weight.readers.iter().chain([&weight.name]);
        if let Some((pattern, _)) = self.skip.iter().find(|entry| names().any(|name| matches(entry, name))) {
            return Some(format!("left float by option `skip={pattern}`"));
        }
        self.keeps(&weight.op)
    }

    fn keeps(&self, op: &str) -> Option<String> {
        self.keep_float.iter().any(|o| o == op).then(|| format!("left float by option `keep-float={op}`"))
    }
}

/// Refuses operators that occur neither in the model as it was nor as it is once it is prepared.
pub(crate) fn refuse_unknown_operators(
    kept: &[String],
    before: &HashSet<String>,
    prepared: &Model,
) -> Result<(), SchemeError> {
    let missing = |op: &&String| !before.contains(*op) && !prepared.graph.nodes().any(|(_, n)| n.op() == op.as_str());
    match kept.iter().find(missing) {
        Some(op) => Err(SchemeError::NoSuchOperator { op: op.clone() }),
        None => Ok(()),
    }
}

/// A pattern that equals a layer's name matches only that layer, whatever it means as a regular expression.
fn compile(pattern: &str, names: &[String]) -> Result<(String, Option<Regex>), SchemeError> {
    if names.iter().any(|name| name == pattern) {
        return Ok((pattern.to_owned(), None));
    }
    let regex = Regex::new(&format!("^(?:{pattern})$"))
        .map_err(|e| SchemeError::BadPattern { pattern: pattern.to_owned(), reason: last_line(&e) })?;
    Ok((pattern.to_owned(), Some(regex)))
}

/// What is wrong with a pattern. The lines before show where, in a form for terminals.
fn last_line(error: &regex::Error) -> String {
    let text = error.to_string();
    let last = text.lines().last().unwrap_or_default().trim();
    last.strip_prefix("error: ").unwrap_or(last).to_owned()
}

fn matches((pattern, regex): &(String, Option<Regex>), name: &str) -> bool {
    regex.as_ref().map_or(pattern == name, |regex| regex.is_match(name))
}
