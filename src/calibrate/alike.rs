//! One quantizer for values that the same weight multiplies, where their ranges are alike.
//!
//! A weight that many layers read, as in an unrolled recurrent network, is stored once, but a bias in int32 has the scale
//! `s_x·s_w`: with a quantizer for each step every step has its own integers and scales of the bias, which together take
//! more bytes than the weight. Values whose ranges are at least 0.7 of their union take the parameters of the union, which
//! costs them 3 dB at most, and mostly far less. Values that are zero throughout, such as a first state, take those of
//! the widest.
//!
//! Not changed: quantizers that stand for clamps, those that encodings give, and those of other bits.

use crate::quant::{Affine, GridKind, GridSpec, Range};
use crate::scheme::Scheme;
use indexmap::IndexMap;
use msq_passes::ActivationQuantizer;
use msq_passes::ir::{Model, ValueId};

/// Share of the common range that a value must fill.
const ALIKE: f32 = 0.7;
/// Readers from which on it is worth it.
const READERS: usize = 3;

/// Gives values that the layers of a group read the same parameters, where they are alike.
pub(super) fn join(model: &Model, scheme: &Scheme, activations: &mut IndexMap<String, ActivationQuantizer>) {
    let kind = scheme.target.activations.into();
    for group in scheme.groups.iter().filter(|group| group.len() >= READERS) {
        let members = scheme.placement.layers().filter(|layer| group.contains(&layer.name) && layer.bias.is_some());
        let mut roots: Vec<ValueId> = Vec::new();
        for layer in members {
            let root = scheme.placement.root(layer.input);
            if !roots.contains(&root) && scheme.is_free(&model.graph, root) {
                roots.push(root);
            }
        }
        join_group(model, &roots, kind, activations);
    }
}

/// A value's quantizer as a range.
struct Member {
    name: String,
    range: Range,
    zero: bool,
}

fn join_group(
    model: &Model,
    roots: &[ValueId],
    kind: GridKind,
    activations: &mut IndexMap<String, ActivationQuantizer>,
) {
    let name = |root: &ValueId| model.graph.value(*root).name().to_owned();
    let Some(first) = roots.first().and_then(|root| activations.get(&name(root))).copied() else { return };
    let Ok(grid) = GridSpec::new(kind, first.bits) else { return };
    let mut members: Vec<Member> = Vec::new();
    for root in roots {
        let name = name(root);
        let Some(own) = activations.get(&name).filter(|own| (own.bits, own.signed) == (first.bits, first.signed))
        else {
            continue;
        };
        let constant = model.graph.constant(*root).and_then(|tensor| tensor.to_f32().ok());
        let zero = constant.is_some_and(|values| values.iter().all(|&v| v == 0.0));
        members.push(Member { name, range: Affine::from(own).range(), zero });
    }
    // The widest first, so that each set begins with a range that the others can fill.
    members.sort_by(|a, b| {
        (a.zero, b.range.width()).partial_cmp(&(b.zero, a.range.width())).unwrap_or(std::cmp::Ordering::Equal)
    });
    let mut sets: Vec<(Range, Vec<String>)> = Vec::new();
    for member in members {
        let fits = |(range, _): &&mut (Range, Vec<String>)| {
            member.zero || member.range.width() >= ALIKE * range.union(member.range).width()
        };
        match sets.iter_mut().find(fits) {
            Some((range, names)) => {
                if !member.zero {
                    *range = range.union(member.range);
                }
                names.push(member.name);
            }
            None => sets.push((member.range, vec![member.name])),
        }
    }
    for (range, names) in sets.into_iter().filter(|(_, names)| names.len() > 1) {
        let affine = grid.affine(range);
        for name in names {
            if let Some(quantizer) = activations.get_mut(&name) {
                (quantizer.scale, quantizer.zero_point) = (affine.scale, affine.zero_point);
            }
        }
    }
}
