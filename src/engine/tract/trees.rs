//! Ensembles of decision trees: tract 0.23 goes through the votes of all leaves of all trees before those of the leaf that a
//! sample falls into, and takes the comparison ≥ for a leaf.

use super::own::rewrite;
use crate::engine::EngineError;
use std::ops::Range;
use tract_onnx::prelude::{Arc, DatumExt, TValue, Tensor};
use tract_onnx::tract_core::internal::{
    EvalContext, EvalOp, Op, StaticName, TVec, TractResult, TypedFact, TypedOp, as_op, bail, ensure, format_err,
    op_as_typed_op, op_out_of_plan, tvec,
};
use tract_onnx::tract_core::model::{TypedModel, TypedModelPatch};
use tract_onnx_opl::ml::tree::{Aggregate, Cmp, TreeEnsemble};
use tract_onnx_opl::ml::tree_ensemble_classifier::TreeEnsembleClassifier;

/// Replaces the ensembles of a model.
pub(super) fn replace(model: &mut TypedModel) -> Result<(), EngineError> {
    rewrite(model, "trees", |model, node, op: &TreeEnsembleClassifier| {
        let rank = model.outlet_fact(node.inputs[0])?.rank();
        if rank != 2 || op.ensemble.aggregate_fn != Aggregate::Sum {
            return Ok(None);
        }
        let trees = Trees(Arc::new(Ensemble::new(&op.ensemble)?));
        TypedModelPatch::replace_single_op(model, node, &node.inputs, trees).map(Some)
    })
}

/// The votes of all trees, summed by class.
#[derive(Debug)]
struct Ensemble {
    /// The node that each tree begins at.
    roots: Vec<usize>,
    nodes: Vec<Node>,
    /// Classes and what is added to their scores.
    votes: Vec<(usize, f32)>,
    features: usize,
    classes: usize,
}

/// A node of a tree.
#[derive(Debug)]
enum Node {
    /// A comparison of a feature with a threshold, which sends a sample on to one of two nodes; `missing` says whether it
    /// holds for NaN.
    Branch { feature: usize, order: Cmp, threshold: f32, missing: bool, holds: usize, fails: usize },
    /// The votes of a leaf.
    Leaf(Range<usize>),
}

impl Ensemble {
    /// Reads tract's tables: five numbers per node, two per vote.
    fn new(ensemble: &TreeEnsemble) -> TractResult<Self> {
        let data = &ensemble.data;
        let [roots, nodes, votes] = [&data.trees, &data.nodes, &data.leaves].map(|table| numbers(table));
        let whole = Self {
            roots: roots?.into_iter().map(|root| root as usize).collect(),
            nodes: nodes?.as_chunks().0.iter().map(node).collect(),
            votes: votes?.as_chunks().0.iter().map(|&[class, vote]| (class as usize, f32::from_bits(vote))).collect(),
            features: ensemble.max_used_feature + 1,
            classes: ensemble.n_classes,
        };
        ensure!(whole.is_sound(), "trees refer to nodes, votes or classes that are not there");
        Ok(whole)
    }

    /// Whether all that nodes and votes refer to is there.
    fn is_sound(&self) -> bool {
        let is_node = |node: &usize| *node < self.nodes.len();
        let sound = |node: &Node| match node {
            Node::Branch { feature, holds, fails, .. } => *feature < self.features && is_node(holds) && is_node(fails),
            Node::Leaf(votes) => self.votes.get(votes.clone()).is_some(),
        };
        self.roots.iter().all(is_node)
            && self.nodes.iter().all(sound)
            && self.votes.iter().all(|(class, _)| *class < self.classes)
    }

    /// Adds what all trees say of a sample to the scores of the classes.
    fn add(&self, sample: &[f32], scores: &mut [f32]) -> TractResult<()> {
        for &root in &self.roots {
            for &(class, vote) in &self.votes[self.leaf(root, sample)?] {
                scores[class] += vote;
            }
        }
        Ok(())
    }

    /// The votes of the leaf that a sample falls into.
    fn leaf(&self, root: usize, sample: &[f32]) -> TractResult<Range<usize>> {
        let mut at = root;
        // No path is longer than there are nodes, unless it goes in circles.
        for _ in 0..self.nodes.len() {
            match &self.nodes[at] {
                Node::Leaf(votes) => return Ok(votes.clone()),
                Node::Branch { feature, order, threshold, missing, holds, fails } => {
                    let value = sample[*feature];
                    let goes = order.compare(value, *threshold) || *missing && value.is_nan();
                    at = if goes { *holds } else { *fails };
                }
            }
        }
        bail!("a tree has no end")
    }
}

fn node(&[first, second, third, threshold, flags]: &[u32; 5]) -> Node {
    let order = match flags as u8 {
        // tract's own conversion leaves this one out.
        code if code == Cmp::GreaterEqual.to_u8() => Some(Cmp::GreaterEqual),
        code => Cmp::try_from(code).ok(),
    };
    let Some(order) = order else { return Node::Leaf(first as usize..second as usize) };
    let [feature, holds, fails] = [first, second, third].map(|number| number as usize);
    Node::Branch { feature, order, threshold: f32::from_bits(threshold), missing: flags & 0x100 != 0, holds, fails }
}

fn numbers(table: &Tensor) -> TractResult<Vec<u32>> {
    Ok(table.try_as_plain_ram()?.as_slice::<u32>()?.to_vec())
}

/// The operator: from samples, [n, features], to scores, [n, classes].
#[derive(Clone, Debug)]
struct Trees(Arc<Ensemble>);

impl PartialEq for Trees {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Trees {}

impl Op for Trees {
    fn name(&self) -> StaticName {
        "OwnTrees".into()
    }

    op_as_typed_op!();
}

impl EvalOp for Trees {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let Ensemble { features, classes, .. } = &*self.0;
        let [count, width] = *inputs[0].shape() else { bail!("samples are no matrix") };
        ensure!(width >= *features, "samples have {width} features, trees compare {features}");
        let samples = inputs[0].cast_to::<f32>()?;
        let samples = samples.try_as_plain_ram()?;
        let mut scores = Tensor::zero::<f32>(&[count, *classes])?;
        let mut plain = scores.try_as_plain_ram_mut()?;
        let rows = plain.as_slice_mut::<f32>()?.chunks_exact_mut((*classes).max(1));
        for (sample, scores) in samples.as_slice::<f32>()?.chunks_exact(width).zip(rows) {
            self.0.add(sample, scores)?;
        }
        Ok(tvec!(scores.into()))
    }
}

impl TypedOp for Trees {
    as_op!();

    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let count = inputs[0].shape.first().ok_or_else(|| format_err!("samples are no matrix"))?;
        Ok(tvec!(f32::fact([count.clone(), self.0.classes.into()])))
    }
}

#[cfg(test)]
mod tests {
    use crate::data::Array;
    use crate::engine::Backend;
    use crate::engine::tract::Tract;
    use msq_passes::ir::{self, Model};

    /// Two trees of depth one over three classes: x₀ against 1, and x₁ against 0, which NaN passes.
    fn model(mode: &str) -> Model {
        let node = format!(
            "label, y = ai.onnx.ml.TreeEnsembleClassifier <
                nodes_treeids = [0, 0, 0, 1, 1, 1], nodes_nodeids = [0, 1, 2, 0, 1, 2],
                nodes_featureids = [0, 0, 0, 1, 0, 0], nodes_values = [1.0, 0.0, 0.0, 0.0, 0.0, 0.0],
                nodes_modes = [\"{mode}\", \"LEAF\", \"LEAF\", \"{mode}\", \"LEAF\", \"LEAF\"],
                nodes_truenodeids = [1, 0, 0, 1, 0, 0], nodes_falsenodeids = [2, 0, 0, 2, 0, 0],
                nodes_missing_value_tracks_true = [0, 0, 0, 1, 0, 0],
                class_treeids = [0, 0, 1, 1, 1], class_nodeids = [1, 2, 1, 2, 2], class_ids = [0, 1, 2, 0, 1],
                class_weights = [0.5, 0.25, 2.0, 4.0, 8.0], classlabels_int64s = [0, 1, 2]> (x)"
        );
        let text = format!(
            "<ir_version: 8, opset_import: [\"\": 17, \"ai.onnx.ml\": 1]> g (float[5,2] x) => (float[5,3] y) {{ {node} }}"
        );
        ir::import(ir::text::parse(&text).unwrap()).unwrap()
    }

    /// Which tree's comparison holds for each of the samples, read from the scores.
    fn holds(mode: &str) -> Vec<[bool; 2]> {
        let samples = vec![0.5, 1.0, 1.0, 0.0, 2.0, -1.0, f32::NAN, f32::NAN, 0.0, 0.0];
        let x = Array::from_f32(vec![5, 2], samples).unwrap();
        let plan = Tract.load(&model(mode), &[vec![5, 2]]).unwrap();
        let scores = plan.session().unwrap().run(&[x]).unwrap()[0].value().to_f32().unwrap();
        let read = |row: &[f32]| {
            let (first, second) = (row[0] % 4.0 == 0.5, row[2] == 2.0);
            let expected = |class: usize| [[0.0, 0.25, 0.0], [0.5, 0.0, 0.0]][usize::from(first)][class];
            let other = |class: usize| [[4.0, 8.0, 0.0], [0.0, 0.0, 2.0]][usize::from(second)][class];
            (0..3).for_each(|class| assert_eq!(row[class], expected(class) + other(class), "{mode} {row:?}"));
            [first, second]
        };
        scores.chunks_exact(3).map(read).collect()
    }

    #[test]
    fn every_comparison_sends_samples_to_their_leaf() {
        let (yes, no) = (true, false);
        assert_eq!(holds("BRANCH_LEQ"), [[yes, no], [yes, yes], [no, yes], [no, yes], [yes, yes]]);
        assert_eq!(holds("BRANCH_LT"), [[yes, no], [no, no], [no, yes], [no, yes], [yes, no]]);
        assert_eq!(holds("BRANCH_GTE"), [[no, yes], [yes, yes], [yes, no], [no, yes], [no, yes]]);
        assert_eq!(holds("BRANCH_GT"), [[no, yes], [no, no], [yes, no], [no, yes], [no, no]]);
        assert_eq!(holds("BRANCH_EQ"), [[no, no], [yes, yes], [no, no], [no, yes], [no, yes]]);
        assert_eq!(holds("BRANCH_NEQ"), [[yes, yes], [no, no], [yes, yes], [yes, yes], [yes, no]]);
    }

    #[test]
    fn the_time_per_tree_does_not_grow_with_their_number() {
        // What a sample visits: a node and a leaf of each tree, not the leaves of all.
        let trees = |count: i64| {
            let list = |of: &dyn Fn(i64) -> String| (0..count).map(of).collect::<Vec<_>>().join(", ");
            let each = |three: &str| list(&|_| three.to_owned());
            let node = format!(
                "label, y = ai.onnx.ml.TreeEnsembleClassifier <nodes_treeids = [{}], nodes_nodeids = [{}],
                    nodes_featureids = [{zeros}], nodes_values = [{floats}], nodes_modes = [{}],
                    nodes_truenodeids = [{}], nodes_falsenodeids = [{}], class_treeids = [{}], class_nodeids = [{}],
                    class_ids = [{}], class_weights = [{}], classlabels_int64s = [0, 1, 2]> (x)",
                list(&|tree| format!("{tree}, {tree}, {tree}")),
                each("0, 1, 2"),
                each("\"BRANCH_LEQ\", \"LEAF\", \"LEAF\""),
                each("1, 0, 0"),
                each("2, 0, 0"),
                list(&|tree| format!("{tree}, {tree}")),
                each("1, 2"),
                each("1, 2"),
                each("1.0, 1.0"),
                zeros = each("0, 0, 0"),
                floats = each("0.0, 0.0, 0.0"),
            );
            let text = format!(
                "<ir_version: 8, opset_import: [\"\": 17, \"ai.onnx.ml\": 1]>
                 g (float[64,1] x) => (float[64,3] y) {{ {node} }}"
            );
            let plan = Tract.load(&ir::import(ir::text::parse(&text).unwrap()).unwrap(), &[vec![64, 1]]).unwrap();
            let x = Array::from_f32(vec![64, 1], (0..64).map(|i| i as f32 - 31.5).collect()).unwrap();
            let mut session = plan.session().unwrap();
            let mut run = || {
                let start = std::time::Instant::now();
                let scores = session.run(std::slice::from_ref(&x)).unwrap()[0].value().to_f32().unwrap();
                assert_eq!(scores.iter().sum::<f32>(), 64.0 * count as f32);
                start.elapsed()
            };
            (0..5).map(|_| run()).min().unwrap()
        };
        let (few, many) = (trees(100), trees(3200));
        assert!(many < 32 * 8 * few, "{few:?} for 100 trees, {many:?} for 3200");
    }
}
