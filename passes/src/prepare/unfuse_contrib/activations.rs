//! Activations, alone and behind layers.

use super::writer::Writer;
use crate::ir::AttributeProto;
use crate::pass::{Found, Operand};

/// The first operator set with `Gelu`.
const GELU: i64 = 20;

/// `Gelu` and `BiasGelu`.
pub(super) fn gelu(mut writer: Writer) -> Found {
    let z = biased(&mut writer)?;
    if writer.opset >= GELU {
        writer.result("Gelu", &[z], Vec::new(), (0, ""));
        return Ok(Some(writer.done()));
    }
    let [root, one, half] = [
        writer.number("gelu_root", std::f32::consts::SQRT_2),
        writer.number("gelu_one", 1.0),
        writer.number("gelu_half", 0.5),
    ];
    let scaled = writer.op("Div", &[z, root], Vec::new(), "scaled");
    let error = writer.op("Erf", &[scaled], Vec::new(), "erf");
    let share = writer.op("Add", &[error, one], Vec::new(), "share");
    let product = writer.op("Mul", &[z, share], Vec::new(), "product");
    writer.result("Mul", &[product, half], Vec::new(), (0, ""));
    Ok(Some(writer.done()))
}

/// `FastGelu`, in the order of operators that onnxruntime fuses again.
pub(super) fn fast_gelu(mut writer: Writer) -> Found {
    let z = biased(&mut writer)?;
    if writer.opset >= GELU {
        writer.result("Gelu", &[z], vec![AttributeProto::string("approximate", "tanh")], (0, ""));
        return Ok(Some(writer.done()));
    }
    let cubic = writer.number("gelu_cubic", 0.044_715);
    let root = writer.number("gelu_tanh", 0.797_884_6);
    let [one, half] = [writer.number("gelu_one", 1.0), writer.number("gelu_half", 0.5)];
    let mut mul = |a: Operand, b: Operand, part: &str| writer.op("Mul", &[a, b], Vec::new(), part);
    let scaled = mul(z, root, "scaled");
    let cubic = mul(z, cubic, "cubic");
    let square = mul(cubic, z, "square");
    let factor = writer.op("Add", &[square, one], Vec::new(), "factor");
    let inner = writer.op("Mul", &[scaled, factor], Vec::new(), "inner");
    let tanh = writer.op("Tanh", &[inner], Vec::new(), "tanh");
    let share = writer.op("Add", &[tanh, one], Vec::new(), "share");
    let halved = writer.op("Mul", &[z, half], Vec::new(), "half");
    writer.result("Mul", &[halved, share], Vec::new(), (0, ""));
    Ok(Some(writer.done()))
}

/// The first input with the second, a bias, added where there is one.
fn biased(writer: &mut Writer) -> Result<Operand, String> {
    writer.value(0)?;
    Ok(writer.sum(writer.input(0), &[writer.input(1)], "biased"))
}

/// An activation that a layer was fused with.
#[derive(Debug)]
pub(super) struct Activation {
    op: String,
    attributes: Vec<AttributeProto>,
    /// Bounds of `Clip`, which are operands.
    bounds: Option<[f32; 2]>,
}

impl Activation {
    /// An operator with floats for its attributes `alpha`, `beta` and `gamma`, as far as it has them.
    pub(super) fn of(op: &str, parameters: [Option<f32>; 3]) -> Result<Self, String> {
        let names: &[&str] = match op {
            "Relu" | "Sigmoid" | "Softplus" | "Softsign" | "Tanh" => &[],
            "Elu" | "LeakyRelu" | "ThresholdedRelu" => &["alpha"],
            "HardSigmoid" => &["alpha", "beta"],
            "Selu" => &["alpha", "gamma"],
            "Clip" => {
                let [Some(low), Some(high), _] = parameters else { return Err("its bounds are missing".into()) };
                return Ok(Self { op: op.into(), attributes: Vec::new(), bounds: Some([low, high]) });
            }
            _ => return Err(format!("its activation `{op}` is not known")),
        };
        let [alpha, beta, gamma] = parameters;
        let stated = [("alpha", alpha), ("beta", beta), ("gamma", gamma)];
        let attributes = stated.into_iter().filter(|(name, _)| names.contains(name));
        let attributes = attributes.filter_map(|(name, value)| Some(AttributeProto::float(name, value?))).collect();
        Ok(Self { op: op.into(), attributes, bounds: None })
    }

    /// Writes the result of the fused node from the value of its layer.
    pub(super) fn write(self, writer: &mut Writer, layer: Operand) {
        let mut inputs = vec![layer];
        for (part, bound) in ["low", "high"].into_iter().zip(self.bounds.into_iter().flatten()) {
            inputs.push(writer.own_number(part, bound));
        }
        writer.result(&self.op, &inputs, self.attributes, (0, "activation"));
    }
}
