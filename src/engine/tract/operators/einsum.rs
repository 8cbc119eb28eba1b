//! `Einsum` with an ellipsis in some operands and not in others.
//!
//! tract 0.23 takes an operand without one for having one of as many axes as it has letters too few, so that
//! `...j,jk->...k` loses axes of the result, over which it sums. Here the ellipsis becomes letters, of which an operand of
//! fewer axes has the last ones, and the result all. Other equations are left to tract.

use super::{Built, tracts};
use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::{OutletId, SpecialOps};
use tract_onnx::tract_core::axes::AxesMapping;
use tract_onnx::tract_core::internal::{StaticName, TVec, TractResult, TypedModel, ensure, format_err};
use tract_onnx::tract_core::ops::einsum::EinSum;
use tract_onnx::tract_hir::infer::{InferenceResult, Solver, TensorProxy};
use tract_onnx::tract_hir::internal::{Expansion, IntoExp, check_input_arity, check_output_arity, expand};

/// The terms of the operands and of the result, if that is stated.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Einsum {
    operands: Vec<String>,
    result: Option<String>,
}

pub(super) fn build(context: &ParsingContext, node: &NodeProto) -> Built {
    let equation: String = node.get_attr::<&str>("equation")?.split_whitespace().collect();
    let (operands, result) = match equation.split_once("->") {
        Some((operands, result)) => (operands, Some(result.to_owned())),
        None => (&*equation, None),
    };
    let operands: Vec<String> = operands.split(',').map(str::to_owned).collect();
    let dotted = operands.iter().filter(|term| term.contains("...")).count();
    if dotted == 0 || dotted == operands.len() {
        return tracts(context, node);
    }
    Ok((expand(Einsum { operands, result }), Vec::new()))
}

impl Einsum {
    /// The axes of operands of these ranks.
    fn axes(&self, ranks: &[usize]) -> TractResult<AxesMapping> {
        let stated = self.operands.iter().chain(&self.result).flat_map(|term| term.chars());
        let taken: Vec<char> = stated.filter(char::is_ascii_alphabetic).collect();
        let count = |term: &str, rank: usize| {
            let letters = term.chars().filter(char::is_ascii_alphabetic).count();
            rank.checked_sub(letters).ok_or_else(|| format_err!("{rank} axes of `{term}`"))
        };
        let counts = self.operands.iter().zip(ranks).map(|(term, &rank)| count(term, rank));
        let counts = counts.collect::<TractResult<Vec<usize>>>()?;
        let most = counts.iter().copied().max().unwrap_or(0);
        let letters: Vec<char> = ('a'..='z').chain('A'..='Z').filter(|c| !taken.contains(c)).take(most).collect();
        ensure!(letters.len() == most, "too many axes");
        let spelled = |term: &str, count: usize| {
            let own: String = letters[most - count..].iter().collect();
            term.replace("...", &own)
        };
        let operands: Vec<String> =
            self.operands.iter().zip(&counts).map(|(term, &count)| spelled(term, count)).collect();
        let result = if let Some(result) = &self.result {
            spelled(result, most)
        } else {
            // The axes of the ellipsis, then the letters that stand once, sorted.
            let mut once: Vec<char> = taken.iter().copied().filter(|c| is_once(*c, &taken)).collect();
            once.sort_unstable();
            letters.iter().chain(&once).collect()
        };
        format!("{}->{result}", operands.join(",")).parse()
    }
}

fn is_once(letter: char, among: &[char]) -> bool {
    among.iter().filter(|other| **other == letter).count() == 1
}

impl Expansion for Einsum {
    fn name(&self) -> StaticName {
        "EinSum".into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, self.operands.len())?;
        check_output_arity(outputs, 1)?;
        for input in inputs {
            solver.equals(&input.datum_type, &outputs[0].datum_type)?;
        }
        let ranks: Vec<_> = inputs.iter().map(|input| &input.rank).collect();
        solver.given_all(ranks, move |solver, ranks| {
            let ranks: Vec<usize> = ranks.iter().map(|rank| *rank as usize).collect();
            let axes = self.axes(&ranks)?;
            let rank: usize = axes.iter_all_axes().map(|axis| axis.outputs[0].len()).sum();
            solver.equals(&outputs[0].rank, rank as i64)?;
            for axis in axes.iter_all_axes() {
                let [at] = axis.outputs[0][..] else { continue };
                // Where operands differ, one of them has length 1.
                let first = axis.inputs.iter().enumerate().find_map(|(input, places)| Some((input, *places.first()?)));
                let Some((input, place)) = first else { continue };
                let alone = axis.inputs.iter().filter(|places| !places.is_empty()).count() == 1;
                if alone {
                    solver.equals(outputs[0].shape[at].bex(), inputs[input].shape[place].bex())?;
                }
            }
            Ok(())
        })
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        let ranks =
            inputs.iter().map(|&input| Ok(model.outlet_fact(input)?.rank())).collect::<TractResult<Vec<_>>>()?;
        let operating_dt = model.outlet_fact(inputs[0])?.datum_type;
        model.wire_node(prefix, EinSum { axes: self.axes(&ranks)?, operating_dt, q_params: None }, inputs)
    }
}

#[cfg(test)]
mod tests {
    use crate::engine::tract::testing::run_shaped;

    #[test]
    fn an_ellipsis_in_one_operand() {
        let values: [(&[usize], &[f32]); 1] = [(&[2, 1, 2], &[1.0, 2.0, 3.0, 4.0])];
        let of = |equation: &str| {
            let node = format!("y = Einsum <equation = \"{equation}\"> (x, w)");
            run_shaped("float[2,1,2] x", "float[2,2] w = {1.0, 10.0, 2.0, 20.0}", &node, &values)
        };
        let product = (vec![2, 1, 2], vec![5.0, 50.0, 11.0, 110.0]);
        assert_eq!(of("...j,jk->...k"), product);
        assert_eq!(of("... j, j k"), product);
    }
}
