//! Pass `rewrite-einsum`: an `Einsum` of an activation with a weight becomes a product with a matrix.
//!
//! ```text
//! y = Einsum<"abc,cde->abde">(x, W)     becomes   t = MatMul(x, reshape(W, [c, d·e]));  y = Reshape(t, [0, 0, d, e])
//! y = Einsum<"abcd,cde->abe">(x, W)     becomes   y = MatMul(Reshape(x, [0, 0, c·d]), reshape(W, [c·d, e]))
//! ```
//!
//! Letters of x are free, F, or summed over, K; those of W are summed over as well, or free, G. Where K stands at the end of
//! x, and the output is F followed by G in any order, the sum is that of a product of matrices over one axis of the lengths
//! of K multiplied. The weight, a constant, is put into the order K, G once. This is how Keras writes projections
//! (`EinsumDense`), which otherwise no target runs on integers. Sums are added in another order; nothing else is rounded.
//!
//! Declined: equations with letters that repeat in an operand, that only one operand has and the output lacks, or that both
//! have and the output too; free letters in another order; letters summed over that are not the last of x; weights that are
//! not float32. Not changed: other numbers of operands, equations with `...`, two activations.

use crate::ir::{AttributeProto, DataType, Graph, Model, Node, NodeId, NodeProto, TensorProto, ValueId};
use crate::pass::{Found, Operand, Outcome, Pass, PassError, Rewrite, in_turn};

/// Writes sums of products with a weight as products of matrices.
#[derive(Clone, Copy, Debug, Default)]
pub struct RewriteEinsum;

impl Pass for RewriteEinsum {
    fn name(&self) -> &'static str {
        "rewrite-einsum"
    }

    fn about(&self) -> &'static str {
        "an Einsum with a weight becomes a product with a matrix"
    }

    fn run(&self, model: &mut Model) -> Result<Outcome, PassError> {
        let nodes = model.graph.node_ids().collect();
        let split = in_turn(model, nodes, |model, id| Ok(split(&model.graph, id)))?;
        let nodes = model.graph.node_ids().collect();
        let mut outcome = in_turn(model, nodes, found)?;
        outcome.changed += split.changed;
        Ok(outcome)
    }
}

/// An `Einsum` of more than two operands as several of two.
fn split(graph: &Graph, id: NodeId) -> Option<Rewrite> {
    let node = graph.node(id);
    if !node.is("Einsum") || !node.domain().is_empty() || node.inputs().len() < 3 {
        return None;
    }
    let operands: Vec<ValueId> = node.inputs().iter().copied().collect::<Option<_>>()?;
    let output = node.output(0)?;
    let mut steps = chain(node.string("equation")?, operands.len())?;
    let (last, stem) = (steps.pop()?, graph.value(output).name());
    let mut rewrite = Rewrite::of(id);
    let mut product = Operand::from(*operands.first()?);
    let einsum = |name: &str, step: &Step| {
        NodeProto::of("Einsum", name, vec![AttributeProto::string("equation", &step.equation)])
    };
    for (at, step) in steps.iter().enumerate() {
        let name = format!("{stem}_part{}", at + 1);
        product = rewrite.named_op(einsum(&name, step), &[product, operands[step.operand].into()], name.clone());
    }
    rewrite.node(einsum(node.label(graph), &last), &[product, operands[last.operand].into()], Some(output));
    Some(rewrite)
}

/// A sum of products of what was computed so far and an operand.
#[derive(Debug, PartialEq)]
struct Step {
    operand: usize,
    equation: String,
}

/// The sums of two operands that one of `count` operands is, starting from the first operand; `None` for forms that are left
/// as they are.
fn chain(text: &str, count: usize) -> Option<Vec<Step>> {
    let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    let (operands, output) = text.split_once("->")?;
    let operands: Vec<&str> = operands.split(',').collect();
    let repeats = |letters: &str| letters.char_indices().any(|(at, letter)| letters[..at].contains(letter));
    let plain = |letters: &str| letters.chars().all(|c| c.is_ascii_alphabetic()) && !repeats(letters);
    let whole = operands.iter().all(|letters| !letters.is_empty() && plain(letters));
    let computed = plain(output) && output.chars().all(|letter| operands.iter().any(|other| other.contains(letter)));
    if operands.len() != count || !whole || !computed {
        return None;
    }
    let (mut product, mut rest) = (operands[0].to_owned(), (1..count).collect::<Vec<usize>>());
    let mut steps = Vec::new();
    while !rest.is_empty() {
        let shares = |&operand: &usize| operands[operand].chars().any(|letter| product.contains(letter));
        let operand = rest.remove(rest.iter().position(shares).unwrap_or(0));
        let needed =
            |letter: &char| output.contains(*letter) || rest.iter().any(|&other| operands[other].contains(*letter));
        let new = operands[operand].chars().filter(|&letter| !product.contains(letter));
        let letters: String = product.chars().chain(new).filter(needed).collect();
        let next = if rest.is_empty() { output.to_owned() } else { letters };
        if next.is_empty() && !rest.is_empty() {
            return None;
        }
        steps.push(Step { operand, equation: format!("{product},{}->{next}", operands[operand]) });
        product = next;
    }
    Some(steps)
}

fn found(model: &Model, id: NodeId) -> Found {
    let graph = &model.graph;
    let node = graph.node(id);
    let Some([a, b]) = node.two_inputs().filter(|_| node.is("Einsum") && node.domain().is_empty()) else {
        return Ok(None);
    };
    let weight_slot = match (graph.constant(a).is_some(), graph.constant(b).is_some()) {
        (false, true) => 1,
        (true, false) => 0,
        _ => return Ok(None),
    };
    let (read, weight) = if weight_slot == 1 { (a, b) } else { (b, a) };
    let Some(equation) = node.string("equation").and_then(|text| Equation::parse(text, weight_slot)) else {
        return Ok(None);
    };
    let product = equation.product()?;
    let tensor = graph.constant(weight).ok_or("its weight is not constant")?;
    if tensor.element_type() != Some(DataType::Float) {
        return Err("its weight is not float32".into());
    }
    let shape = tensor.shape()?;
    if shape.len() != equation.weight.len() {
        return Err("its weight has another number of axes than its equation".into());
    }
    let lengths = |axes: &[usize]| axes.iter().map(|&axis| shape[axis]).collect::<Vec<usize>>();
    let (summed, free) = (lengths(&product.summed), lengths(&product.free));
    let order: Vec<usize> = product.summed.iter().chain(&product.free).copied().collect();
    let matrix = [summed.iter().product::<usize>(), free.iter().product()];
    let tensor = ordered(model, tensor, &shape, &order, matrix, graph.value(weight).name())?;
    Ok(Some(written(graph, (id, node), read, tensor, (&equation, &summed, &free))))
}

fn written(
    graph: &Graph,
    (id, node): (NodeId, &Node),
    read: ValueId,
    matrix: TensorProto,
    (equation, summed, free): (&Equation, &[usize], &[usize]),
) -> Rewrite {
    let kept = equation.activation.len() - summed.len();
    let mut rewrite = Rewrite::of(id);
    let (name, output) = (node.label(graph).to_owned(), node.output(0));
    let stem = output.map_or(name.as_str(), |value| graph.value(value).name()).to_owned();
    // In a shape 0 stands for the length at the same place.
    let shape = |rewrite: &mut Rewrite, part: &str, lengths: &[usize]| {
        let lengths: Vec<i64> = std::iter::repeat_n(0, kept).chain(lengths.iter().map(|&n| n as i64)).collect();
        rewrite.constant(TensorProto::from_i64(&format!("{stem}_{part}"), &[lengths.len()], &lengths))
    };
    let mut factor = Operand::from(read);
    if summed.len() > 1 {
        let to = shape(&mut rewrite, "joined_shape", &[summed.iter().product()]);
        let joined = NodeProto::of("Reshape", &format!("{stem}_joined"), Vec::new());
        factor = rewrite.named_op(joined, &[factor, to], format!("{stem}_joined"));
    }
    let weight = rewrite.constant(matrix);
    let product = NodeProto::of("MatMul", &name, Vec::<AttributeProto>::new());
    if free.len() == 1 {
        rewrite.node(product, &[factor, weight], output);
        return rewrite;
    }
    let product = rewrite.named_op(product, &[factor, weight], format!("{stem}_product"));
    let to = shape(&mut rewrite, "shape", free);
    rewrite.node(NodeProto::of("Reshape", &format!("{stem}_reshape"), Vec::new()), &[product, to], output);
    rewrite
}

/// The weight with its axes in another order, as a matrix.
fn ordered(
    model: &Model,
    tensor: &TensorProto,
    shape: &[usize],
    order: &[usize],
    matrix: [usize; 2],
    name: &str,
) -> Result<TensorProto, PassError> {
    let name = format!("{name}_matrix");
    if order.iter().copied().eq(0..shape.len()) {
        let dims = matrix.iter().map(|&n| n as i64).collect();
        return Ok(TensorProto { name: Some(name), dims, ..tensor.clone() });
    }
    let values = model.loaded(tensor)?.to_f32()?;
    let strides: Vec<usize> = (0..shape.len()).map(|axis| shape[axis + 1..].iter().product()).collect();
    let mut moved = Vec::with_capacity(values.len());
    let mut at = vec![0; order.len()];
    for _ in 0..values.len() {
        moved.push(values[at.iter().zip(order).map(|(&index, &axis)| index * strides[axis]).sum::<usize>()]);
        for (index, &axis) in at.iter_mut().zip(order).rev() {
            *index += 1;
            if *index < shape[axis] {
                break;
            }
            *index = 0;
        }
    }
    Ok(TensorProto::from_f32(&name, &matrix, &moved))
}

/// The letters of an equation with an activation and a weight.
#[derive(Debug)]
struct Equation {
    activation: Vec<char>,
    weight: Vec<char>,
    output: Vec<char>,
}

/// Axes of the weight in the order of the product.
#[derive(Debug, PartialEq)]
struct Product {
    /// Axes that are summed over, in the order of the activation.
    summed: Vec<usize>,
    /// The other axes, in the order of the output.
    free: Vec<usize>,
}

impl Equation {
    /// The equation of two operands, of which the weight stands at this place; `None` for other forms.
    fn parse(text: &str, weight_slot: usize) -> Option<Self> {
        let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        let (operands, output) = text.split_once("->")?;
        let (a, b) = operands.split_once(',')?;
        let letters = |text: &str| -> Option<Vec<char>> {
            let letters: Vec<char> = text.chars().collect();
            letters.iter().all(char::is_ascii_alphabetic).then_some(letters)
        };
        let (activation, weight) = if weight_slot == 1 { (a, b) } else { (b, a) };
        Some(Self { activation: letters(activation)?, weight: letters(weight)?, output: letters(output)? })
    }

    /// The product of matrices that computes it.
    fn product(&self) -> Result<Product, &'static str> {
        let Self { activation, weight, output } = self;
        let repeats = |letters: &[char]| (1..letters.len()).any(|at| letters[..at].contains(&letters[at]));
        if [activation, weight, output].iter().any(|letters| repeats(letters)) {
            return Err("a letter repeats in an operand");
        }
        if activation.iter().any(|letter| weight.contains(letter) && output.contains(letter)) {
            return Err("a letter of both operands is in the output");
        }
        let is_summed = |letter: &&char| weight.contains(letter);
        let kept: Vec<char> = activation.iter().filter(|letter| !is_summed(letter)).copied().collect();
        let summed: Vec<char> = activation.iter().filter(is_summed).copied().collect();
        let free: Vec<char> = output.iter().filter(|letter| !kept.contains(letter)).copied().collect();
        if kept.len() + free.len() != output.len() || summed.len() + free.len() != weight.len() {
            return Err("a letter of one operand is neither in the other nor in the output");
        }
        if kept.is_empty() || summed.is_empty() || free.is_empty() {
            return Err("it is no product with a matrix");
        }
        if !activation.ends_with(&summed) {
            return Err("letters that are summed over are not the last of the activation");
        }
        if !output.starts_with(&kept) {
            return Err("the output has the letters of the activation in another order");
        }
        let axes = |letters: &[char]| -> Option<Vec<usize>> {
            letters.iter().map(|letter| weight.iter().position(|other| other == letter)).collect()
        };
        let (summed, free) = (axes(&summed), axes(&free));
        summed.zip(free).map(|(summed, free)| Product { summed, free }).ok_or("a letter of the output is in no operand")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn product(text: &str, weight_slot: usize) -> Result<Product, &'static str> {
        Equation::parse(text, weight_slot).unwrap().product()
    }

    #[test]
    fn projections_are_products() {
        let of = |summed: &[usize], free: &[usize]| Ok(Product { summed: summed.to_vec(), free: free.to_vec() });
        assert_eq!(product("abc,cd->abd", 1), of(&[0], &[1]));
        assert_eq!(product("abc, cde -> abde", 1), of(&[0], &[1, 2]));
        assert_eq!(product("abcd,cde->abe", 1), of(&[0, 1], &[2]));
        assert_eq!(product("abcd,ecd->abe", 1), of(&[1, 2], &[0]));
        assert_eq!(product("cde,abc->abed", 0), of(&[0], &[2, 1]));
        assert_eq!(product("abcd,edc->abe", 1), of(&[2, 1], &[0]));
    }

    #[test]
    fn sums_of_many_products_are_chains() {
        for (text, expected) in [
            ("bteh,ehd,bte->btd", vec![(1, "bteh,ehd->bted"), (2, "bted,bte->btd")]),
            ("abc, cd, de -> abe", vec![(1, "abc,cd->abd"), (2, "abd,de->abe")]),
            ("ab,bc,cd,de->ae", vec![(1, "ab,bc->ac"), (2, "ac,cd->ad"), (3, "ad,de->ae")]),
            // No outer product of the first two.
            ("ij,kl,jk->il", vec![(2, "ij,jk->ik"), (1, "ik,kl->il")]),
            ("a,b,c->cab", vec![(1, "a,b->ab"), (2, "ab,c->cab")]),
            ("ab,bc,ac->", vec![(1, "ab,bc->ac"), (2, "ac,ac->")]),
        ] {
            let steps = chain(text, expected.len() + 1).unwrap();
            let steps: Vec<_> = steps.iter().map(|step| (step.operand, step.equation.as_str())).collect();
            assert_eq!(steps, expected, "{text}");
        }
    }

    #[test]
    fn other_sums_are_no_chains() {
        for text in
            ["...a,ab,bc->...c", "aab,bc,cd->ad", "ab,bc,cd", "ab,,b->a", "a,a,b->b", "ab,bc,cd->ae", "ab,bc->ac"]
        {
            assert_eq!(chain(text, 3), None, "{text}");
        }
    }

    #[test]
    fn other_sums_are_declined() {
        for (text, part) in [
            ("aab,bc->ac", "repeats"),
            ("abc,abd->acd", "is in the output"),
            ("abc,cd->ad", "neither in the other nor in the output"),
            ("abc,dbe->acde", "not the last"),
            ("abc,cd->bad", "another order"),
            ("abc,cd->dab", "another order"),
            ("ab,ab->", "is no product"),
            ("abc,c->ab", "is no product"),
        ] {
            let found = product(text, 1);
            assert!(found.as_ref().is_err_and(|reason| reason.contains(part)), "{text}: {found:?}");
        }
        for text in ["...a,ab->...b", "ab,bc", "ab->ba", "ab,bc,cd->ad"] {
            assert!(Equation::parse(text, 1).is_none_or(|equation| equation.product().is_err()), "{text}");
        }
    }
}
