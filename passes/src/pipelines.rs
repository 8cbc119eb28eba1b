//! Every ordered list of passes of the program. No other place puts passes in order.
//!
//! A pipeline runs between two points at which something other than a pass is needed, such as types that an engine
//! infers. On the model that is written they run in the order of this file: [`fix`], [`inline`], [`admit`], [`lift`], [`fold`], [`unfuse`],
//! [`canonicalize`], [`fuse_functions`], [`equalize`], [`raise_opset`], [`bound_masks`], [`smooth`], [`quantize`], [`finish`], [`halve`], [`rename`]. [`tap`],
//! [`extract`], [`differentiate`] and [`examine`] run on copies. Each entry says why it stands where it stands: `before`
//! and `after` another pass are constraints that a test keeps. Passes that only an option brings in name the option.
//! [`descriptions`] says all this of the same lists that run.

mod copies;

pub use copies::{differentiate, examine, extract, tap};

use crate::analysis::Placement;
use crate::form::{
    FuseLstm, FuseNBits, FuseQlinear, HalfPrecision, HoldQuantizers, LowerInteger, RestoreActivations, SinkConstants,
    SplitBiases, SplitPads, SplitSlopes, WidenChannels,
};
use crate::ir::TensorProto;
use crate::pass::{Pipeline, PipelineDescription};
use crate::prepare::{
    BalanceInputs, BoundMasks, CancelTransposes, CompleteNodes, EliminateDeadNodes, EliminateIdentities,
    EqualizeChannels, FixInputs, FoldConstants, Freeze, FreezeInitializers, FuseAffine, FuseBatchNorm, FuseBounds,
    FuseGelu, FuseLayerNorm, HoistConstants, HoistInvariants, InlineBranches, InlineFunctions, LiftConstants,
    LoadConstants, NormalizeGemm, NormalizePadding, NormalizePooling, NormalizeReshape, RewriteActivations,
    RewriteEinsum, SinglePrecision, SinkActivations, SmoothActivations, UnfuseContrib, UpgradeOpset,
};
use crate::quantize::{
    ActivationQuantizer, InsertQdq, PackWeights, Packing, QuantizeDynamically, QuantizedLayer, SplitOutliers,
    StoreBlocks, StoreConstants, StoreWeights, StoredTensor,
};
use crate::target::Profile;
use crate::tidy::{CleanNames, CompactIntegers, DropDefaults, HalfConstants, ShareConstants, ShareWeights};
use indexmap::{IndexMap, IndexSet};

/// Gives inputs the values that they have from now on, by name.
pub fn fix<'a>(values: IndexMap<String, TensorProto>) -> Pipeline<'a> {
    Pipeline::new("fix", "what the caller says once and for all; then data feed the inputs that are left").with_if(
        !values.is_empty(),
        "fix-input",
        FixInputs { values },
        "first: all that follows sees constants; before `fold-constants` and before `inline-branches`, which carry out what \
         they decide",
    )
}

/// Opens functions of the model, so that everything else sees what is in them.
pub fn inline<'a>() -> Pipeline<'a> {
    Pipeline::new("inline", "one graph without calls; then one sees in which types it computes")
        .with(InlineFunctions, "first: what stands in functions is seen by no other pass")
}

/// Takes in whatever runtimes load: forms of a file that the later passes do not know become forms that they do. `freeze`
/// says which initializers that callers may override become constants.
pub fn admit<'a>(freeze: Freeze) -> Pipeline<'a> {
    Pipeline::new("admit", "what runtimes load and no later pass knows becomes what they know")
        .with(CompleteNodes, "after `inline-functions`, whose nodes leave out what functions leave out")
        .with(
            LoadConstants,
            "after `inline-functions`: constants in functions are read as well; before `single-precision`, which \
             converts what is there",
        )
        .with_if(
            freeze != Freeze::Nothing,
            "freeze-initializers",
            FreezeInitializers { which: freeze },
            "after `inline-functions`, which shows what reads a weight; before `single-precision`, which keeps the \
             types of inputs",
        )
        .with(SinglePrecision, "last: constants are where they stay, and inputs are what a caller feeds")
}

/// Brings weights where every other pass looks for them.
pub fn lift<'a>() -> Pipeline<'a> {
    Pipeline::new("lift", "weights become initializers, nodes get names; then the engine finds what is constant")
        .with(LiftConstants, "first: every pass after it looks for weights among the initializers")
        .with(
            HoistInvariants,
            "after `lift-constants`; before `hoist-constants`, which takes constants out of a body that a loop in it reads by \
             name",
        )
        .with(HoistConstants, "after `lift-constants`; before `clean-names`, which makes names unique")
        .with(CleanNames { strip: false }, "layers go by name from here on")
}

/// Folds the constants that the engine found, by name, and raises the operator set to the one quantizers need.
pub fn fold<'a>(constants: IndexMap<String, TensorProto>) -> Pipeline<'a> {
    Pipeline::new("fold", "what is constant becomes a constant, in one operator set; then the engine infers shapes")
        .with(FoldConstants { constants }, "before `upgrade-opset`, which wants scales and shapes as constants")
        .with(InlineBranches, "after `fold-constants`, which shows which conditions are constant")
        .with(EliminateDeadNodes, "after `fold-constants` and `inline-branches`, which leave what they replaced unread")
        .with(
            UpgradeOpset::default(),
            "after `lift-constants`, which ends the listing of initializers as inputs; before `eliminate-identities` \
             and all that follow, which know one form of each operator",
        )
}

/// Writes fused operators of onnxruntime out, after which the engine is asked again for types, shapes and constants; nodes of
/// the operators `kept` stay as they are.
pub fn unfuse<'a>(kept: &[String]) -> Pipeline<'a> {
    Pipeline::new("unfuse", "layers that onnxruntime's optimizers fused with what stands around them stand alone")
        .with(UnfuseContrib, "after `upgrade-opset`: it writes operator set 13 on; before `eliminate-identities`")
        .sealing(kept.to_vec())
}

/// Leaves few forms of the same thing. `fold_batch_norms` says whether batch-norms go into the layers before them; nodes of
/// the operators `kept`, which the caller wants in float, are neither folded nor written in another way.
pub fn canonicalize<'a>(fold_batch_norms: bool, kept: &[String]) -> Pipeline<'a> {
    Pipeline::new("canonicalize", "few forms of the same thing, each layer with all that it can take in")
        .with(
            EliminateIdentities,
            "after `fold-constants`, which may show that a Pad is one; before `fuse-batch-norm`: an Identity in between \
             hides the layer",
        )
        .with(NormalizePadding, "after `upgrade-opset`, which makes paddings an operand; after `eliminate-identities`")
        .with(
            NormalizeReshape,
            "after `fold-constants` and `lift-constants`, which show what of a shape is constant, and after \
             `eliminate-identities`",
        )
        .with(
            RewriteEinsum,
            "after `fold-constants` and `lift-constants`, which show weights; before `normalize-gemm`, which joins what is \
             added to the product",
        )
        .with(
            CancelTransposes,
            "after `fold-constants`, which transposes weights; before `fuse-batch-norm` and before `fuse-affine`, which look \
             for what follows a layer",
        )
        .with(FuseBounds, "before `fuse-affine` and before `rewrite-activations`: they know `Relu` and `Clip`")
        .with(NormalizeGemm, "before `fuse-batch-norm`: one behind MatMul and Add goes into the Gemm of both")
        .with_if(
            fold_batch_norms,
            "batch-norm = fold",
            FuseBatchNorm,
            "before `fuse-affine`: a batch-norm may stand between a layer and an affine",
        )
        .with(FuseAffine, "before `rewrite-activations`: an affine may stand between layer and activation")
        .with(RewriteActivations, "after `fuse-batch-norm`, which may stand between a layer and its activation, too")
        .with(SinkActivations, "after `fuse-batch-norm` and after `fuse-affine`, for which a pool is an end")
        .with(NormalizePooling, "after `upgrade-opset` and the shapes that the engine infers behind it")
        .with(EliminateDeadNodes, "last: what the passes before it replaced is unread")
        .sealing(sealed(kept))
}

/// Of the operators to keep, those whose nodes passes take away or write in another way. These layers take in what stands
/// around them and stay what they are.
fn sealed(kept: &[String]) -> Vec<String> {
    let stays = |op: &str| matches!(op, "Conv" | "ConvTranspose" | "Gemm");
    kept.iter().filter(|op| !stays(op)).cloned().collect()
}

/// Writes functions that are spelled out as one node, for targets that have integer kernels for these alone; nodes of the
/// operators `kept` stay as they are.
pub fn fuse_functions<'a>(kept: &[String]) -> Pipeline<'a> {
    Pipeline::new("fuse-functions", "functions of several nodes become one, for targets that run nothing but integers")
        .with(
            FuseLayerNorm,
            "after `eliminate-identities`, which shows what follows what; before calibration, which \
             looks at what is left",
        )
        .with(FuseGelu, "after `rewrite-activations`; before calibration, too")
        .with(EliminateDeadNodes, "last: a deviation or a mean may be left unread")
        .sealing(sealed(kept))
}

/// Scales channels between layers, which keeps the outputs but not what lies between: for quantization only.
pub fn equalize<'a>() -> Pipeline<'a> {
    Pipeline::new("equalize", "equal ranges for the channels of a tensor, for targets with one scale per tensor").with(
        EqualizeChannels,
        "after `fuse-batch-norm` and after `fuse-affine`, which take away what stands between layers; before \
         calibration, which has to see the scaled activations",
    )
}

/// Raises the operator set to one that has the types of the bit plan.
pub fn raise_opset<'a>(opset: i64) -> Pipeline<'a> {
    Pipeline::new("raise-opset", "the operator set that a bit plan needs: types narrower than a byte are new").with(
        UpgradeOpset::to(opset),
        "before `insert-qdq`: quantizers are written in the operator set of the file; bits are not known earlier",
    )
}

/// Gives masked scores the bounds found for them, by name: for targets that run nothing but integers. Nodes of the operators
/// `kept` stay as they are.
pub fn bound_masks<'a>(bounds: IndexMap<String, f32>, kept: &[String]) -> Pipeline<'a> {
    Pipeline::new("bound-masks", "masked scores that a quantizer can hold")
        .with(
            BoundMasks { bounds },
            "after `fold-constants`, which shows masks; before `insert-qdq` and before calibration, which has to see the \
             bounded scores",
        )
        .with(EliminateDeadNodes, "after `bound-masks`: what computed an added mask may be unread")
        .sealing(sealed(kept))
}

/// Multiplies inputs of the recurrent layers of these names by powers of two: for quantization only.
pub fn balance<'a>(nodes: IndexSet<String>) -> Pipeline<'a> {
    Pipeline::new("balance", "weights of one size for the inputs of recurrent layers, where that loses less").with(
        BalanceInputs { nodes },
        "after `fold-constants`, which shows weights; before `store-constants` and before calibration, which has to see the \
         multiplied inputs",
    )
}

/// Divides channels of activations by the factors found for them, by name: for quantization only.
pub fn smooth<'a>(factors: IndexMap<String, Vec<f32>>) -> Pipeline<'a> {
    Pipeline::new("smooth", "like ranges for the channels of what products read, where that loses less").with(
        SmoothActivations { factors },
        "after `equalize-channels`, which asks no data; before `insert-qdq` and before calibration, which has to see the \
         divided activations",
    )
}

/// Decisions that [`quantize`] writes into a graph.
#[derive(Clone, Copy, Debug)]
pub struct Decisions<'a> {
    /// Where quantizers go, as found on this very model.
    pub placement: &'a Placement,
    /// Parameters of every value that has its own, by value name.
    pub activations: &'a IndexMap<String, ActivationQuantizer>,
    /// Parameters of what a layer reads, by layer name, where they are not those of the value.
    pub requantized: &'a IndexMap<String, ActivationQuantizer>,
    /// Channels of activations of which products read in float what quantizers clip, by value name.
    pub outliers: &'a IndexMap<String, Vec<usize>>,
    /// Weights of the layers that run on integers, by layer name.
    pub on_integers: &'a IndexMap<String, QuantizedLayer>,
    /// Weights of the layers that compute in float, by layer name.
    pub weight_only: &'a IndexMap<String, QuantizedLayer>,
    /// Weights of the layers that quantize their input at run time, by layer name.
    pub dynamic: &'a IndexMap<String, QuantizedLayer>,
    /// Weights beside the layers, by the names they have in bit plans.
    pub stored: &'a IndexMap<String, StoredTensor>,
    /// Recurrent nodes that quantize what they read at run time, by name.
    pub recurrent: &'a IndexSet<String>,
}

/// Writes quantizers and integer weights into the graph, as QDQ: the form that says what it computes.
pub fn quantize(decisions: Decisions<'_>) -> Pipeline<'_> {
    let Decisions {
        placement,
        activations,
        requantized,
        outliers,
        on_integers: layers,
        weight_only,
        dynamic,
        stored,
        recurrent,
    } = decisions;
    Pipeline::new("quantize", "quantizers and integer weights, as QDQ")
        .with(
            InsertQdq { placement, activations, requantized, layers },
            "before `store-weights`: the placement holds handles of nodes and values as they are now",
        )
        .with(
            SplitOutliers { channels: outliers.clone() },
            "after `insert-qdq`: it reads ranges and integers off the graph",
        )
        .with(StoreWeights { layers: weight_only }, "after `insert-qdq`: it finds layers by name")
        .with(StoreBlocks { layers: weight_only }, "after `insert-qdq`: it finds layers by name")
        .with(QuantizeDynamically { layers: dynamic }, "after `insert-qdq`: it finds layers by name")
        .with(
            StoreConstants { constants: stored },
            "after `insert-qdq`, after `store-weights` and after `store-blocks`: layers that read the same tensor have \
             their own integers then",
        )
        .with_if(
            !recurrent.is_empty(),
            "act-bits = dynamic",
            FuseLstm { nodes: recurrent.clone() },
            "after `store-constants`, which writes integers of recurrent weights; before `pack-weights`, which may store them \
             in fewer bits, and before the result is compared with the float model, as what is rounded at run time counts",
        )
        .with(EliminateDeadNodes, "after `insert-qdq` and after `store-weights`: the float weights are unread now")
}

/// How the operators of a quantized file compute.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// In float, between quantizers.
    #[default]
    Qdq,
    /// On integers with requantization, as `QLinearConv`.
    Qlinear {
        /// Whether operators of onnxruntime's own domain may be written.
        contrib: bool,
    },
    /// On integers up to the sum, as `ConvInteger`.
    Integer,
    /// As QDQ, but for products with weights in blocks, `MatMulNBits` of onnxruntime, and tables in blocks,
    /// `GatherBlockQuantized`.
    NBits(FuseNBits),
}

/// What [`finish`] makes of a QDQ graph.
#[derive(Clone, Debug, Default)]
pub struct Finish {
    /// How each layer is packed, by name; empty where nothing is.
    pub packings: IndexMap<String, Packing>,
    /// Whether weights are unpacked by functions of the model.
    pub functions: bool,
    /// How operators compute.
    pub form: Form,
    /// Convolutions that get more channels.
    pub widened: WidenChannels,
    /// Whether float vectors are stored in half precision where that is exact.
    pub half_scales: bool,
    /// Whether the file is to be as small as it can be.
    pub strip: bool,
}

/// Brings the QDQ graph into the form and size wanted, for a target. No value changes.
pub fn finish<'a>(wanted: Finish, target: &Profile) -> Pipeline<'a> {
    let Finish { packings, functions, form, widened, half_scales, strip } = wanted;
    let knows_spelled = target.joins_activations;
    let splits_biases = !target.forms.biases_of_open_shapes;
    let [splits_pads, splits_slopes, holds_quantizers] = target
        .prices
        .map_or([false; 3], |prices| [prices.padded_columns, prices.splits_slopes, prices.moves_quantizers]);
    let (qlinear, contrib) = match form {
        Form::Qlinear { contrib } => (true, contrib),
        Form::Qdq | Form::Integer | Form::NBits(_) => (false, false),
    };
    let integer = form == Form::Integer;
    let nbits = if let Form::NBits(fuse) = form { Some(fuse) } else { None };
    Pipeline::new("finish", "the form of the operators, the packing of the weights, the size of the file")
        .with(
            RestoreActivations { knows_spelled },
            "after `insert-qdq`, whose quantizers stand between the nodes of what runs on integers; before \
             `share-constants`, as it drops constants",
        )
        .with_if(
            nbits.is_some(),
            "format = nbits",
            nbits.unwrap_or_default(),
            "before `share-weights`, which finds the words of a table and of the product tied to it alike; before \
             `pack-weights`, which makes other types of the integers",
        )
        .with(
            ShareWeights,
            "after `insert-qdq`, `store-weights` and `store-constants`, which write integers for every reader; before \
             `pack-weights`, so that what is shared is packed once",
        )
        .with_if(
            !packings.is_empty(),
            "bits < 8",
            PackWeights { layers: packings, functions },
            "before `fuse-qlinear` and before `lower-integer`: it looks for a layer's integers behind the layer's name",
        )
        .with_if(
            !widened.layers.is_empty(),
            "channels that a fast kernel takes",
            widened,
            "after `pack-weights`, which stores the weights that there are; before `fuse-qlinear`: it looks for quantizers \
             around a layer",
        )
        .with_if(qlinear, "format = qlinear", FuseQlinear { contrib }, "after `insert-qdq` and after `pack-weights`")
        .with_if(
            integer,
            "format = integer",
            LowerInteger,
            "after `insert-qdq` and after `pack-weights`, in place of `fuse-qlinear`",
        )
        .with_if(
            splits_biases,
            "profile = openvino",
            SplitBiases,
            "after `fuse-qlinear` and after `lower-integer`, which take biases into operators of their own; before \
             `half-constants`, which stores biases in a form that has to be computed",
        )
        .with_if(
            splits_pads,
            "columns that a fast kernel takes",
            SplitPads,
            "after `fuse-qlinear` and after `lower-integer`: every `Conv` but those between quantizers is one of floats",
        )
        .with_if(
            splits_slopes,
            "PRelu that a runtime branches in",
            SplitSlopes,
            "after `insert-qdq`: placement and calibration know one node; before `half-constants`, which stores slopes in a \
             form that has to be computed",
        )
        .with_if(
            holds_quantizers,
            "a runtime that moves quantizers",
            HoldQuantizers,
            "after `fuse-qlinear` and after `lower-integer`: pools that run on integers have taken in their quantizers, or \
             stand between them",
        )
        .with(EliminateDeadNodes, "after `fuse-qlinear` or `lower-integer`: what the form has taken in is unread")
        .with_if(
            half_scales,
            "half-scales",
            HalfConstants,
            "after `lower-integer` and `fuse-qlinear`, which read constants; before `share-constants`, so that equal \
             vectors are in the pool as often as in the graph",
        )
        .with_if(
            strip,
            "strip-names",
            ShareConstants,
            "after `insert-qdq`, `pack-weights` and the form, whose constants are many and alike",
        )
        .with_if(
            strip,
            "strip-names",
            DropDefaults,
            "after `insert-qdq`, which writes the weights off which a `kernel_shape` is read",
        )
        .with_if(strip, "strip-names", CompactIntegers, "after `share-constants`, which compares bytes")
}

/// Makes float16 of what stays float, if `wanted`: of weights, or of the computation.
pub fn halve<'a>(wanted: Option<HalfPrecision>) -> Pipeline<'a> {
    Pipeline::new("halve", "what stays float becomes float16").with_if(
        wanted.is_some(),
        "float16",
        wanted.unwrap_or_default(),
        "after `half-constants` and `share-constants`, which look for float vectors; before `clean-names`: nodes on \
         integers and values that were seen are known by name",
    )
}

/// Moves constants into the sub-graphs that alone read them, if `wanted`: where the target evaluates nodes of constants.
pub fn sink<'a>(wanted: bool) -> Pipeline<'a> {
    Pipeline::new("sink", "where the weights of sub-graphs stand").with_if(
        wanted,
        "a target that folds constants",
        SinkConstants,
        "after `hoist-constants`, which brings them where other passes look; after `pack-weights`, `share-constants` and \
         `half-precision`, which change constants of the main graph; before `clean-names`, whose names are planned for \
         values of the main graph",
    )
}

/// Names values and nodes of the file. The caller asks [`CleanNames::plan`] first what names will become.
pub fn rename<'a>(names: CleanNames) -> Pipeline<'a> {
    Pipeline::new("rename", "names of the file").with(names, "last: the passes before it name what they make")
}

/// What is to be said of every pipeline, in the order in which they run.
pub fn descriptions() -> Vec<PipelineDescription> {
    let placement = Placement {
        profile: Profile::ORT_CPU,
        nodes: IndexMap::new(),
        values: IndexMap::new(),
        absorbed: IndexMap::new(),
        kept: Vec::new(),
        predicted: None,
        widened: IndexMap::new(),
    };
    let (quantizers, outliers) = (IndexMap::new(), IndexMap::new());
    let (layers, stored, recurrent) = (IndexMap::new(), IndexMap::new(), IndexSet::new());
    let decisions = Decisions {
        placement: &placement,
        activations: &quantizers,
        requantized: &quantizers,
        outliers: &outliers,
        on_integers: &layers,
        weight_only: &layers,
        dynamic: &layers,
        stored: &stored,
        recurrent: &recurrent,
    };
    let pipelines = [
        fix(IndexMap::new()),
        inline(),
        admit(Freeze::Weights),
        lift(),
        fold(IndexMap::new()),
        unfuse(&[]),
        canonicalize(true, &[]),
        fuse_functions(&[]),
        equalize(),
        raise_opset(UpgradeOpset::HIGHEST),
        bound_masks(IndexMap::new(), &[]),
        balance(IndexSet::new()),
        smooth(IndexMap::new()),
        quantize(decisions),
        finish(Finish::default(), &Profile::ORT_CPU),
        halve(None),
        sink(true),
        rename(CleanNames::default()),
        tap(Vec::new()),
        extract(Vec::new(), Vec::new()),
        differentiate(Vec::new(), Vec::new()),
        examine(),
    ];
    pipelines.iter().map(Pipeline::describe).collect()
}

#[cfg(test)]
mod tests;
