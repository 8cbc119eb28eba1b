//! Inputs that get a value once and for all.

use super::PrepareError;
use crate::data::{Array, ShapeText, contradicting};
use half::{bf16, f16};
use indexmap::IndexMap;
use msq_passes::ir::{DataType, Graph, Model, TensorProto};
use msq_passes::{PassObserver, pipelines};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::Path;
use std::str::FromStr;

/// Elements of a fixed input at most.
const MOST: usize = 1 << 24;

/// An input and the value that it is fixed at, written `NAME=VALUE` or `NAME=A,B,C`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct FixedInput {
    /// The name of the input.
    pub input: String,
    /// One value for all elements, or one for each, row by row, separated by commas.
    pub value: String,
}

impl fmt::Display for FixedInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.input, self.value)
    }
}

impl FromStr for FixedInput {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // Names of inputs may hold an `=` themselves, numbers hold none.
        match text.rsplit_once('=') {
            Some((input, value)) if !input.is_empty() && !value.trim().is_empty() => {
                Ok(Self { input: input.to_owned(), value: value.trim().to_owned() })
            }
            _ => Err(format!("`{text}` is not NAME=VALUE, the name of an input and the value that it is fixed at")),
        }
    }
}

impl TryFrom<String> for FixedInput {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<FixedInput> for String {
    fn from(fixed: FixedInput) -> Self {
        fixed.to_string()
    }
}

impl FixedInput {
    /// Whether a graph has the input.
    pub(crate) fn is_of(&self, graph: &Graph) -> bool {
        graph.find(&self.input).is_some_and(|value| graph.is_input(value))
    }

    /// The value as a tensor of the input's type and shape, or the reason why there is none.
    fn tensor(&self, graph: &Graph) -> Result<TensorProto, String> {
        let Some(value) = graph.find(&self.input).filter(|&value| graph.is_input(value)) else {
            let names = graph.runtime_inputs().map(|value| format!("`{}`", graph.value(value).name()));
            let names: Vec<String> = names.collect();
            return Err(format!("the model has no input `{}`; it has {}", self.input, names.join(", ")));
        };
        if graph.is_output(value) {
            return Err("the input is an output as well".to_owned());
        }
        let declared = graph.value(value);
        let element = declared.element_type().ok_or("the type of the input is not known, or not that of a tensor")?;
        let texts: Vec<&str> = self.value.split(',').map(str::trim).collect();
        let shape = shape_of(declared.shape(), texts.len())?;
        let mut bytes = Vec::new();
        for text in &texts {
            let refused = || format!("`{text}` is no value of `{element}`, the type of the input");
            bytes.extend(encoded(text, element).ok_or_else(refused)?);
        }
        if texts.len() == 1 {
            bytes = bytes.repeat(shape.iter().product());
        }
        Ok(TensorProto::from_raw(&self.input, element, &shape, bytes))
    }
}

/// The shape of an input that is given so many values.
fn shape_of(declared: Option<Vec<Option<usize>>>, values: usize) -> Result<Vec<usize>, String> {
    let declared = declared.ok_or("the shape of the input is not known")?;
    if declared.len() == 1 && declared[0].is_none() && values > 1 {
        return Ok(vec![values]);
    }
    let Some(shape) = declared.iter().copied().collect::<Option<Vec<usize>>>() else {
        let shape = ShapeText::wanted(Some(&declared));
        return Err(format!("the input has the open shape {shape}: how many elements it is to have is not known"));
    };
    let count = shape.iter().try_fold(1_usize, |count, &length| count.checked_mul(length));
    match count.filter(|&count| count <= MOST) {
        None => Err(format!("the input has the shape {}, which is too large for a constant", ShapeText::of(&shape))),
        Some(count) if values == 1 || values == count => Ok(shape),
        Some(count) => {
            let wanted = if count == 1 { String::new() } else { format!(" or {count}") };
            Err(format!("the input has the shape {}: give one value{wanted}, not {values}", ShapeText::of(&shape)))
        }
    }
}

/// The bytes of a number of a type; `None` for what is none, not finite, or out of the type's range.
fn encoded(text: &str, element: DataType) -> Option<Vec<u8>> {
    macro_rules! whole {
        ($number:ty) => {
            text.parse::<$number>().ok()?.to_le_bytes().to_vec()
        };
    }
    let real = || text.parse::<f64>().ok();
    Some(match element {
        DataType::Float => Some(real()? as f32).filter(|value| value.is_finite())?.to_le_bytes().to_vec(),
        DataType::Double => real().filter(|value| value.is_finite())?.to_le_bytes().to_vec(),
        DataType::Float16 => Some(f16::from_f64(real()?)).filter(|value| value.is_finite())?.to_le_bytes().to_vec(),
        DataType::Bfloat16 => Some(bf16::from_f64(real()?)).filter(|value| value.is_finite())?.to_le_bytes().to_vec(),
        DataType::Int8 => whole!(i8),
        DataType::Uint8 => whole!(u8),
        DataType::Int16 => whole!(i16),
        DataType::Uint16 => whole!(u16),
        DataType::Int32 => whole!(i32),
        DataType::Uint32 => whole!(u32),
        DataType::Int64 => whole!(i64),
        DataType::Uint64 => whole!(u64),
        DataType::Bool => match text.to_ascii_lowercase().as_str() {
            "true" | "1" => vec![1],
            "false" | "0" => vec![0],
            _ => return None,
        },
        _ => return None,
    })
}

/// Makes constants of inputs; one that the model does not have, or that cannot have the value, is an error.
pub(crate) fn fix_inputs(
    model: &mut Model,
    fixed: &[FixedInput],
    observer: Option<&dyn PassObserver>,
) -> Result<(), PrepareError> {
    if fixed.is_empty() {
        return Ok(());
    }
    let mut values = IndexMap::new();
    for fixed in fixed {
        let failed = |reason: String| PrepareError::FixedInput { fixed: fixed.to_string(), reason };
        let tensor = fixed.tensor(&model.graph).map_err(failed)?;
        if values.insert(fixed.input.clone(), tensor).is_some() {
            return Err(failed("the input is fixed twice".to_owned()));
        }
    }
    pipelines::fix(values).observed(observer).run(model)?;
    Ok(())
}

/// The fixed inputs for which an `.npz` has an array with other values, which is not used. It does not matter whether the
/// model has them as inputs still or as constants.
pub fn contradicted(model: &Model, fixed: &[FixedInput], data: &Path) -> Vec<String> {
    let graph = &model.graph;
    let tensor = |fixed: &FixedInput| match graph.find(&fixed.input).and_then(|value| graph.initializer(value)) {
        Some(constant) if !fixed.is_of(graph) => Some(constant.clone()),
        _ => fixed.tensor(graph).ok(),
    };
    let array = |fixed: &FixedInput| Some((fixed.input.clone(), Array::try_from(&tensor(fixed)?).ok()?));
    contradicting(data, &fixed.iter().filter_map(array).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use msq_passes::ir::{import, text};

    fn model() -> Model {
        let text = "<ir_version: 8, opset_import: [\"\": 17]>
            g (float[N,2] x, int64 sr, bool[1] cached, uint8[2,2] table, float16[M] gains, string s) => (float[N,2] y)
            { y = Relu (x) }";
        import(text::parse(text).unwrap()).unwrap()
    }

    fn tensor(fixed: &str) -> Result<TensorProto, String> {
        fixed.parse::<FixedInput>()?.tensor(&model().graph)
    }

    #[test]
    fn one_value_fills_a_shape_and_several_are_its_elements() {
        let values = |fixed: &str| {
            let tensor = tensor(fixed).unwrap();
            let elements: Vec<f64> = match tensor.to_i64() {
                Ok(integers) => integers.into_iter().map(|n| n as f64).collect(),
                Err(_) => tensor.to_f32().unwrap().into_iter().map(f64::from).collect(),
            };
            (tensor.shape().unwrap(), elements)
        };
        assert_eq!(values("sr=16000"), (vec![], vec![16000.0]));
        assert_eq!(values("sr = -1".replace(" = ", "=").as_str()), (vec![], vec![-1.0]));
        assert_eq!(values("table=7"), (vec![2, 2], vec![7.0; 4]));
        assert_eq!(values("table=1, 2, 3, 4"), (vec![2, 2], vec![1.0, 2.0, 3.0, 4.0]));
        assert_eq!(values("gains=0.5,2"), (vec![2], vec![0.5, 2.0]));
        for (text, bit) in [("true", 1), ("0", 0), ("False", 0), ("1", 1)] {
            assert_eq!(tensor(&format!("cached={text}")).unwrap().to_i64().unwrap(), [bit]);
        }
    }

    #[test]
    fn what_cannot_be_fixed_is_said() {
        let said = |fixed: &str| tensor(fixed).unwrap_err();
        assert_eq!(said("rate=1"), "the model has no input `rate`; it has `x`, `sr`, `cached`, `table`, `gains`, `s`");
        assert!(said("x=1").contains("open shape [N, 2]"), "{}", said("x=1"));
        assert!(said("gains=1").contains("open shape [N]"), "{}", said("gains=1"));
        assert!(said("table=1,2").contains("give one value or 4, not 2"), "{}", said("table=1,2"));
        for (fixed, text) in [("sr=1.5", "1.5"), ("sr=fast", "fast"), ("table=256", "256"), ("cached=2", "2")] {
            assert!(said(fixed).starts_with(&format!("`{text}` is no value of `")), "{}", said(fixed));
        }
        assert!(said("gains=1e9,1").contains("`1e9`") && said("s=a").contains("`a` is no value of `string`"));
        for text in ["sr", "=1", "sr=", "sr= "] {
            assert!(text.parse::<FixedInput>().is_err(), "{text}");
        }
        let twice = ["sr=1", "sr=2"].map(|text| text.parse().unwrap());
        let error = fix_inputs(&mut model(), &twice, None).unwrap_err().to_string();
        assert_eq!(error, "option `fix-input=sr=2`: the input is fixed twice");
    }

    #[test]
    fn fixed_inputs_are_constants() {
        let mut model = model();
        let fixed = ["sr=8000", "cached=true"].map(|text| text.parse().unwrap());
        fix_inputs(&mut model, &fixed, None).unwrap();
        let graph = &model.graph;
        assert!(fixed.iter().all(|fixed| !fixed.is_of(graph)));
        assert_eq!(graph.initializer(graph.find("sr").unwrap()).unwrap().to_i64().unwrap(), [8000]);
    }
}
