//! What an operator does where an attribute is absent.
//!
//! After the schema history of ONNX 1.23 (`onnx.defs.get_all_schemas_with_history`), for the operator sets 7 to 28. Not
//! listed: attributes a later set took away; `activations` of `RNN`, which goes by the number of directions; `axes` of
//! `MeanVarianceNormalization`, without which ONNX's own shape inference fails.

use Absent::{Float, Int, Ones, Text, Zeros};

/// The value an absent attribute stands for.
#[derive(Debug)]
pub(super) enum Absent {
    /// An integer.
    Int(i64),
    /// A float.
    Float(f32),
    /// A string.
    Text(&'static str),
    /// A 0 for each spatial axis and side.
    Zeros,
    /// A 1 for each spatial axis.
    Ones,
}

/// An attribute, the operator set since which it has the default, the default, and the operators.
type Row = (&'static str, i64, Absent, &'static [&'static str]);

/// Reductions that got their axes as an input with operator set 18, five sets after `ReduceSum`.
const REDUCTIONS: &[&str] = &[
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSumSquare",
];

/// In the order of attribute and operator set: of two rows for one operator the later one counts. The schemas of
/// `strides` and `dilations` state their default since operator set 11.
const DEFAULTS: &[Row] = &[
    ("activation", 27, Text("none"), &["CausalConvWithState"]),
    ("align_corners", 16, Int(0), &["GridSample"]),
    ("align_corners", 20, Int(0), &["AffineGrid"]),
    ("allowzero", 14, Int(0), &["Reshape"]),
    ("alpha", 7, Float(1e-4), &["LRN"]),
    ("alpha", 7, Float(0.01), &["LeakyRelu"]),
    ("alpha", 7, Float(0.2), &["HardSigmoid"]),
    ("alpha", 7, Float(1.0), &["Elu", "Gemm"]),
    ("alpha", 7, Float(1.673_263_2), &["Selu"]),
    ("alpha", 10, Float(1.0), &["ThresholdedRelu"]),
    ("alpha", 12, Float(1.0), &["Celu"]),
    ("alpha", 24, Float(1.0), &["Swish"]),
    ("alpha", 28, Float(1.0), &["SwiGLU"]),
    ("antialias", 18, Int(0), &["Resize"]),
    ("approximate", 20, Text("none"), &["Gelu"]),
    ("auto_pad", 7, Text("NOTSET"), &["AveragePool", "Conv", "ConvTranspose", "LpPool", "MaxPool"]),
    ("auto_pad", 10, Text("NOTSET"), &["ConvInteger", "QLinearConv"]),
    ("axis", 7, Int(-1), &["LpNormalization", "TopK"]),
    ("axis", 7, Int(0), &["ArgMax", "ArgMin", "Gather", "Split"]),
    ("axis", 7, Int(1), &["Flatten", "Hardmax", "LogSoftmax", "Softmax"]),
    ("axis", 9, Int(-1), &["OneHot"]),
    ("axis", 9, Int(0), &["Scatter"]),
    ("axis", 11, Int(0), &["GatherElements", "ScatterElements", "SplitToSequence"]),
    ("axis", 13, Int(-1), &["Hardmax", "LogSoftmax", "Softmax"]),
    ("axis", 13, Int(1), &["DequantizeLinear", "QuantizeLinear"]),
    ("axis", 17, Int(-1), &["LayerNormalization"]),
    ("axis", 23, Int(-1), &["RMSNormalization"]),
    ("axis", 24, Int(-2), &["TensorScatter"]),
    ("batch_axis", 10, Int(1), &["ReverseSequence"]),
    ("batch_dims", 12, Int(0), &["GatherND"]),
    ("beta", 7, Float(0.5), &["HardSigmoid"]),
    ("beta", 7, Float(0.75), &["LRN"]),
    ("beta", 7, Float(1.0), &["Gemm"]),
    ("bias", 7, Float(1.0), &["LRN"]),
    ("bias", 9, Float(0.0), &["Shrink"]),
    ("block_size", 21, Int(0), &["DequantizeLinear", "QuantizeLinear"]),
    ("case_change_action", 10, Text("NONE"), &["StringNormalizer"]),
    ("ceil_mode", 10, Int(0), &["AveragePool", "MaxPool"]),
    ("ceil_mode", 18, Int(0), &["LpPool"]),
    ("center_point_box", 10, Int(0), &["NonMaxSuppression"]),
    ("chunk_size", 27, Int(64), &["LinearAttention"]),
    ("coordinate_transformation_mode", 11, Text("half_pixel"), &["Resize"]),
    ("coordinate_transformation_mode", 16, Text("half_pixel"), &["RoiAlign"]),
    ("count_include_pad", 7, Int(0), &["AveragePool"]),
    ("cubic_coeff_a", 11, Float(-0.75), &["Resize"]),
    ("detect_negative", 10, Int(1), &["IsInf"]),
    ("detect_positive", 10, Int(1), &["IsInf"]),
    ("dilations", 10, Ones, &["ConvInteger", "QLinearConv"]),
    ("dilations", 11, Ones, &["Conv", "ConvTranspose", "MaxPool"]),
    ("dilations", 18, Ones, &["Col2Im", "LpPool"]),
    ("dilations", 19, Ones, &["AveragePool", "DeformConv"]),
    ("direction", 7, Text("forward"), &["GRU", "LSTM", "RNN"]),
    ("dtype", 7, Int(1), &["RandomNormal", "RandomUniform"]),
    ("dtype", 7, Int(6), &["Multinomial"]),
    ("epsilon", 7, Float(1e-5), &["BatchNormalization", "InstanceNormalization"]),
    ("epsilon", 17, Float(1e-5), &["LayerNormalization"]),
    ("epsilon", 18, Float(1e-5), &["GroupNormalization"]),
    ("epsilon", 23, Float(1e-5), &["RMSNormalization"]),
    ("exclude_outside", 11, Int(0), &["Resize"]),
    ("exclusive", 11, Int(0), &["CumSum"]),
    ("exclusive", 26, Int(0), &["CumProd"]),
    ("extrapolation_value", 11, Float(0.0), &["Resize"]),
    ("fmod", 10, Int(0), &["Mod"]),
    ("gamma", 7, Float(1.050_701), &["Selu"]),
    ("group", 7, Int(1), &["Conv", "ConvTranspose"]),
    ("group", 10, Int(1), &["ConvInteger", "QLinearConv"]),
    ("group", 19, Int(1), &["DeformConv"]),
    ("high", 7, Float(1.0), &["RandomUniform", "RandomUniformLike"]),
    ("input_forget", 7, Int(0), &["LSTM"]),
    ("interleaved", 23, Int(0), &["RotaryEmbedding"]),
    ("inverse", 17, Int(0), &["DFT"]),
    ("is_case_sensitive", 10, Int(0), &["StringNormalizer"]),
    ("is_causal", 23, Int(0), &["Attention"]),
    ("k", 9, Int(0), &["EyeLike"]),
    ("keep_aspect_ratio_policy", 18, Text("stretch"), &["Resize"]),
    ("keepdims", 7, Int(1), REDUCTIONS),
    ("keepdims", 7, Int(1), &["ArgMax", "ArgMin", "ReduceSum"]),
    ("keepdims", 11, Int(1), &["SplitToSequence"]),
    ("lambd", 9, Float(0.5), &["Shrink"]),
    ("largest", 11, Int(1), &["TopK"]),
    ("layout", 14, Int(0), &["GRU", "LSTM", "RNN"]),
    ("left_window_size", 25, Int(-1), &["Attention"]),
    ("linear_before_reset", 7, Int(0), &["GRU"]),
    ("low", 7, Float(0.0), &["RandomUniform", "RandomUniformLike"]),
    ("mean", 7, Float(0.0), &["RandomNormal", "RandomNormalLike"]),
    ("mode", 7, Text("constant"), &["Pad"]),
    ("mode", 7, Text("nearest"), &["Upsample"]),
    ("mode", 10, Text("avg"), &["RoiAlign"]),
    ("mode", 10, Text("nearest"), &["Resize"]),
    ("mode", 11, Text("DCR"), &["DepthToSpace"]),
    ("mode", 16, Text("bilinear"), &["GridSample"]),
    ("mode", 20, Text("linear"), &["GridSample"]),
    ("mode", 24, Text("linear"), &["TensorScatter"]),
    ("mode", 28, Text("DCR"), &["SpaceToDepth"]),
    ("momentum", 7, Float(0.9), &["BatchNormalization"]),
    ("nearest_mode", 11, Text("round_prefer_floor"), &["Resize"]),
    ("new_axis", 11, Int(0), &["ConcatFromSequence"]),
    ("noop_with_empty_axes", 13, Int(0), &["ReduceSum"]),
    ("noop_with_empty_axes", 18, Int(0), REDUCTIONS),
    ("offset_group", 19, Int(1), &["DeformConv"]),
    ("onesided", 17, Int(0), &["DFT"]),
    ("onesided", 17, Int(1), &["STFT"]),
    ("output_datatype", 17, Int(1), &["BlackmanWindow", "HammingWindow", "HannWindow", "MelWeightMatrix"]),
    ("output_dtype", 21, Int(0), &["QuantizeLinear"]),
    ("output_dtype", 23, Int(0), &["DequantizeLinear"]),
    ("output_height", 10, Int(1), &["RoiAlign"]),
    ("output_padding", 11, Zeros, &["ConvTranspose"]),
    ("output_width", 10, Int(1), &["RoiAlign"]),
    ("p", 7, Int(2), &["GlobalLpPool", "LpNormalization", "LpPool"]),
    ("padding_mode", 16, Text("zeros"), &["GridSample"]),
    ("pads", 7, Zeros, &["AveragePool", "Conv", "ConvTranspose", "LpPool", "MaxPool"]),
    ("pads", 9, Zeros, &["MaxUnpool"]),
    ("pads", 10, Zeros, &["ConvInteger", "QLinearConv"]),
    ("pads", 18, Zeros, &["Col2Im"]),
    ("pads", 19, Zeros, &["DeformConv"]),
    ("periodic", 17, Int(1), &["BlackmanWindow", "HammingWindow", "HannWindow"]),
    ("pixel_format", 20, Text("RGB"), &["ImageDecoder"]),
    ("precision", 23, Int(0), &["QuantizeLinear"]),
    ("qk_matmul_output_mode", 23, Int(0), &["Attention"]),
    ("reduction", 12, Text("mean"), &["NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"]),
    ("reduction", 16, Text("none"), &["ScatterElements", "ScatterND"]),
    ("reverse", 11, Int(0), &["CumSum"]),
    ("reverse", 26, Int(0), &["CumProd"]),
    ("right_window_size", 25, Int(-1), &["Attention"]),
    ("rotary_embedding_dim", 23, Int(0), &["RotaryEmbedding"]),
    ("round_mode", 24, Text("up"), &["Cast", "CastLike"]),
    ("sample_size", 7, Int(1), &["Multinomial"]),
    ("sampling_ratio", 10, Int(0), &["RoiAlign"]),
    ("saturate", 19, Int(1), &["Cast", "CastLike", "QuantizeLinear"]),
    ("scale", 7, Float(1.0), &["RandomNormal", "RandomNormalLike"]),
    ("scale", 27, Float(0.0), &["LinearAttention"]),
    ("select_last_index", 12, Int(0), &["ArgMax", "ArgMin"]),
    ("softcap", 23, Float(0.0), &["Attention"]),
    ("sorted", 11, Int(1), &["TopK", "Unique"]),
    ("spatial_scale", 7, Float(1.0), &["MaxRoiPool"]),
    ("spatial_scale", 10, Float(1.0), &["RoiAlign"]),
    ("start", 15, Int(0), &["Shape"]),
    ("stash_type", 17, Int(1), &["LayerNormalization"]),
    ("stash_type", 21, Int(1), &["GroupNormalization"]),
    ("stash_type", 23, Int(1), &["RMSNormalization"]),
    ("stash_type", 27, Int(1), &["Range"]),
    ("storage_order", 8, Int(0), &["MaxPool"]),
    ("strides", 10, Ones, &["ConvInteger", "QLinearConv"]),
    ("strides", 11, Ones, &["AveragePool", "Conv", "ConvTranspose", "LpPool", "MaxPool", "MaxUnpool"]),
    ("strides", 18, Ones, &["Col2Im"]),
    ("strides", 19, Ones, &["DeformConv"]),
    ("time_axis", 10, Int(0), &["ReverseSequence"]),
    ("training_mode", 14, Int(0), &["BatchNormalization"]),
    ("transA", 7, Int(0), &["Gemm"]),
    ("transB", 7, Int(0), &["Gemm"]),
    ("update_rule", 27, Text("gated_delta"), &["LinearAttention"]),
    ("upper", 14, Int(1), &["Trilu"]),
];

/// The value for which an absent `attribute` of `op` stands, if there is one.
pub(super) fn default_of(op: &str, attribute: &str, opset: i64) -> Option<&'static Absent> {
    let mut rows = DEFAULTS.iter().rev();
    let row = rows.find(|(name, since, _, ops)| *name == attribute && *since <= opset && ops.contains(&op))?;
    Some(&row.2)
}

#[cfg(test)]
mod tests {
    use super::{Absent, DEFAULTS, default_of};
    use crate::ir::NEWEST_OPSET;
    use crate::ops::first_opset;

    #[test]
    fn rows_are_in_order_and_no_older_than_their_operators() {
        assert!(DEFAULTS.is_sorted_by_key(|(attribute, since, ..)| (*attribute, *since)));
        for (attribute, since, _, ops) in DEFAULTS {
            assert!((7..=NEWEST_OPSET).contains(since), "{attribute} since {since}");
            for op in *ops {
                assert!(first_opset(op).is_some_and(|first| first <= *since), "{op} {attribute} since {since}");
            }
        }
    }

    #[test]
    fn no_operator_has_two_defaults_at_once() {
        for (i, (attribute, since, _, ops)) in DEFAULTS.iter().enumerate() {
            let others = DEFAULTS[i + 1..].iter().filter(|(name, from, ..)| (name, from) == (attribute, since));
            for (_, _, _, more) in others {
                assert!(ops.iter().all(|op| !more.contains(op)), "{attribute} since {since}");
            }
        }
    }

    #[test]
    fn a_default_that_moved_goes_by_the_operator_set() {
        let axis = |opset| default_of("Softmax", "axis", opset);
        assert!(matches!(axis(12), Some(Absent::Int(1))));
        assert!(matches!(axis(13), Some(Absent::Int(-1))));
        assert!(default_of("MaxPool", "ceil_mode", 9).is_none());
    }
}
