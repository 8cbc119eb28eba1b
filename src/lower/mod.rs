//! From a QDQ graph to the file: the form of its operators, the packing of its weights, its names.

use crate::scheme::Scheme;
use crate::scheme::options::Format;
use indexmap::IndexMap;
use msq_passes::ir::Model;
use msq_passes::{
    CleanNames, CompactIntegers, DropDefaults, EliminateDeadNodes, FuseQlinear, HalfConstants, LowerInteger, Manager,
    PackWeights, PassError, ShareConstants,
};

/// Brings the QDQ graph into the form and size wanted. Returns the names of inner values that were shortened.
pub(crate) fn finish(model: &mut Model, scheme: &Scheme) -> Result<IndexMap<String, String>, PassError> {
    let (output, packings, strip) = (&scheme.output, &scheme.packings, scheme.is_stripped());
    let mut passes = Manager::new();
    if !packings.is_empty() {
        // Before the form: it looks for a layer's integers behind its name.
        passes = passes.with(PackWeights { layers: packings.clone(), functions: output.functions });
    }
    match output.format {
        Format::Qdq => {}
        Format::Qlinear => passes = passes.with(FuseQlinear { contrib: scheme.target.contrib }),
        Format::Integer => passes = passes.with(LowerInteger),
    }
    // What the form has taken in is unread.
    passes = passes.with(EliminateDeadNodes);
    if output.half_scales {
        passes = passes.with(HalfConstants);
    }
    if strip {
        passes = passes
            // Constants of the passes before are many and alike.
            .with(ShareConstants)
            .with(DropDefaults)
            .with(CompactIntegers);
    }
    passes.run(model)?;
    let names = CleanNames { strip };
    let shortened = names.plan(model);
    // Last: the passes before name what they make.
    Manager::new().with(names).run(model)?;
    Ok(shortened)
}
