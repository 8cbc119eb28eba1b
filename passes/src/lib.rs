//! Graph passes of msq-onnx: a lossless in-memory ONNX model ([`ir`]) and the rewrites that prepare, observe and
//! quantize it.
//!
//! A [`Pass`] is a small value; a [`Pipeline`] runs an ordered list of them and, in debug and test builds, validates the
//! model after each. All pipelines are in [`pipelines`]. Nothing here runs a model: what has to be computed by running is
//! handed in through a pass's fields.

pub mod analysis;
mod form;
mod gradient;
pub mod ir;
pub mod lint;
pub mod ops;
mod partition;
mod pass;
pub mod pipelines;
mod prepare;
mod quantize;
mod target;
mod tidy;

pub use form::{
    FuseLstm, FuseNBits, FuseQlinear, HalfPrecision, HoldQuantizers, LowerInteger, Magnitude, RestoreActivations,
    SinkConstants, SplitBiases, SplitPads, SplitSlopes, WidenChannels, narrow_channels,
};
pub use gradient::Differentiate;
pub use partition::{ExtractSegment, InsertTaps};
pub use pass::{
    Declined, Outcome, Pass, PassError, PassObserver, Pipeline, PipelineDescription, Record, StepDescription, run_pass,
};
pub use prepare::{
    BalanceInputs, BoundMasks, CancelTransposes, CompleteNodes, EliminateDeadNodes, EliminateIdentities,
    EqualizeChannels, FixInputs, FoldConstants, Freeze, FreezeInitializers, FuseAffine, FuseBatchNorm, FuseBounds,
    FuseGelu, FuseLayerNorm, HoistConstants, HoistInvariants, InlineBranches, InlineFunctions, LiftConstants,
    LoadConstants, NormalizeGemm, NormalizePadding, NormalizePooling, NormalizeReshape, RewriteActivations,
    RewriteEinsum, SinglePrecision, SinkActivations, SmoothActivations, UnfuseContrib, UpgradeOpset, inline_calls,
};
pub use quantize::{
    ActivationQuantizer, Granularity, InsertQdq, Integers, LayerBias, PackWeights, Packing, QuantizeDynamically,
    QuantizedLayer, SplitOutliers, StoreBlocks, StoreConstants, StoreWeights, StoredTensor, TrellisCode, TrellisRate,
    WINDOWS,
};
pub use target::{
    ActivationGrid, BiasForm, Blocks, Choice, Forms, Kernel, Limit, Note, Prices, Profile, RuleId, Severity, Support,
    WideActivations,
};
pub use tidy::{CleanNames, CompactIntegers, DropDefaults, HalfConstants, ShareConstants, ShareWeights};
