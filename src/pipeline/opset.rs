//! The operator sets that a plan and its file need.

use crate::error::Error;
use crate::prepare::annotate;
use crate::runtime::Runtime;
use crate::scheme::bit_plan::BitPlan;
use crate::scheme::options::{Float16, Format, OutputOptions};
use crate::scheme::packings;
use msq_passes::analysis::{Layer, layers};
use msq_passes::ir::Model;
use msq_passes::{HalfPrecision, InsertQdq, Record, StoreBlocks, UpgradeOpset, pipelines};

/// What a message calls these needs.
const PACKING: &str = "the packing asked for needs";
const WIDE: &str = "activations of 16 bits need";

/// Raises the operator set where the packing has types narrower than a byte, which most models' operator sets lack, where
/// activations are `wide`, and, if the model can be raised, where quantizers have float16 scales.
pub(super) fn raise_opset(
    model: &mut Model,
    plan: &BitPlan,
    wide: bool,
    output: &OutputOptions,
    runtime: &Runtime,
) -> Result<(), Error> {
    raise_for_types(model, plan, output.format, runtime)?;
    if wide {
        raise(model, InsertQdq::WIDE_OPSET, WIDE, runtime)?;
    }
    if output.float16 == Some(Float16::All) {
        raise_for_halves(model, runtime)?;
    }
    Ok(())
}

fn raise_for_types(model: &mut Model, plan: &BitPlan, format: Format, runtime: &Runtime) -> Result<(), Error> {
    let layers = layers(model);
    let blocks = |layer: &&Layer| plan.layer(&layer.name).is_some_and(|p| p.block().is_some());
    let any = layers.iter().any(|layer| blocks(&layer));
    // `MatMulNBits` has bytes of any number of integers.
    let typed = layers.iter().filter(|layer| format != Format::Nbits || !blocks(layer));
    let packed = packings(typed, plan).values().map(|packing| packing.lowest_opset()).max();
    let wanted = packed.max(any.then_some(StoreBlocks::LOWEST_OPSET)).unwrap_or_default();
    raise(model, wanted, PACKING, runtime)
}

/// Raises a quantized model whose quantizers have integers of 16 bits.
pub(super) fn raise_quantized(model: &mut Model, runtime: &Runtime) -> Result<(), Error> {
    if model.opset("").unwrap_or_default() >= InsertQdq::WIDE_OPSET {
        return Ok(());
    }
    let records = pipelines::raise_opset(InsertQdq::WIDE_OPSET).observed(runtime.passes()).run(model)?;
    refuse_declined(&records, InsertQdq::WIDE_OPSET, WIDE)
}

fn raise(model: &mut Model, wanted: i64, what: &'static str, runtime: &Runtime) -> Result<(), Error> {
    if model.opset("").unwrap_or_default() >= wanted {
        return Ok(());
    }
    if wanted > UpgradeOpset::HIGHEST {
        let reason = "the model has to be exported at that opset".to_owned();
        return Err(Error::NoOpset { what, wanted, reason });
    }
    let records = pipelines::raise_opset(wanted).observed(runtime.passes()).run(model)?;
    annotate(model, &*runtime.backend());
    refuse_declined(&records, wanted, what)
}

fn refuse_declined(records: &[Record], wanted: i64, what: &'static str) -> Result<(), Error> {
    let declined = records.iter().flat_map(|record| &record.outcome.declined).next();
    declined.map_or(Ok(()), |d| Err(Error::NoOpset { what, wanted, reason: format!("`{}`: {}", d.site, d.reason) }))
}

fn raise_for_halves(model: &mut Model, runtime: &Runtime) -> Result<(), Error> {
    let wanted = HalfPrecision::QUANTIZERS_OPSET;
    if model.opset("").unwrap_or_default() < wanted {
        let records = pipelines::raise_opset(wanted).observed(runtime.passes()).run(model)?;
        annotate(model, &*runtime.backend());
        for declined in records.iter().flat_map(|record| &record.outcome.declined) {
            tracing::info!(node = declined.site, reason = declined.reason, "quantizers keep float scales");
        }
    }
    Ok(())
}
