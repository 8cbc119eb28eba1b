//! The bit plan that a run begins with, and choices that contradict each other or the target.

use super::opset::raise_opset;
use crate::error::Error;
use crate::runtime::Runtime;
use crate::scheme::Scheme;
use crate::scheme::bit_plan::BitPlan;
use crate::scheme::options::{Format, Options, RoundingMode};
use crate::solve::SolverRow;
use msq_passes::ir::Model;

/// The bits of the layers of a prepared model, whose operator set is raised to what they need.
pub(super) fn planned(model: &mut Model, options: &Options, runtime: &Runtime) -> Result<BitPlan, Error> {
    // Layers have their names now.
    let plan = resolved_plan(model, options)?;
    let wide = plan.is_wide() || options.scheme.encodings.is_wide();
    if wide && matches!(options.output.format, Format::Qlinear | Format::Integer) {
        return Err(Error::WideFormat { format: options.output.format });
    }
    raise_opset(model, &plan, wide, &options.output, runtime)?;
    Ok(plan)
}

/// The plan for the layers of this model, with the bits of the first and the last layers and those that encodings give.
pub(super) fn resolved_plan(model: &Model, options: &Options) -> Result<BitPlan, Error> {
    let chosen = &options.scheme;
    let plan = chosen.plan.resolved(model, chosen.first_last_bits, &chosen.profile)?;
    let plan = plan.with_fitting_products(model, &chosen.profile);
    let plan = if options.takes_trellis(model) { plan.with_trellis() } else { plan };
    if chosen.encodings.tensors.is_empty() {
        return Ok(plan);
    }
    let scheme = Scheme::new(model, &plan, options)?;
    Ok(chosen.encodings.planned(model, &scheme.placement, &plan)?)
}

/// Refuses forms that the target does not run, and contradictory choices.
pub(super) fn check_choices(options: &Options) -> Result<(), Error> {
    let profile = &options.scheme.profile;
    let refused = match options.output.format {
        Format::Qlinear if !profile.qlinear => Some("QLinearConv and its kin"),
        Format::Integer if !profile.integer => Some("ConvInteger and its kin"),
        Format::Nbits if !profile.contrib || profile.blocks.is_none() => Some("MatMulNBits"),
        _ if options.output.functions && !profile.functions => Some("functions of the model"),
        _ => None,
    };
    let solver = options.solve.solver.as_ref().map(SolverRow::of).transpose()?;
    if options.solve.rounding == RoundingMode::Stochastic && solver.is_some_and(|row| !row.has_option("rounding")) {
        return Err(Error::StochasticSolver);
    }
    match refused {
        Some(form) => Err(Error::Target { profile: profile.name, form }),
        None => Ok(()),
    }
}
