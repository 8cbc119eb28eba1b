//! Finds the encodings of a QDQ model from any tool, under the names of its float model.
//!
//! An activation x becomes a pair `q = QuantizeLinear(a); b = DequantizeLinear(q)`. Tools keep the name x either for a,
//! before the pair, or for b, behind it, and derive the other name from x. So x is b where b is a graph output or where
//! a's name begins with b's; else x is a. Where the integers are moved within the pair, they belong to b.
//!
//! A parameter is a `DequantizeLinear` of constants, packed or not, or the product of cast integers and a scale that
//! [`store-weights`](msq_passes::StoreWeights) writes; its name is the written one without the tool's suffix. Biases
//! are left out, since their scales follow from those of input and weight.

use super::ExchangeError;
use super::{Encoding, Encodings};
use crate::prepare::quantized::{self, Qdq};
use crate::quant::weight_grid::WeightGrid;
use crate::scheme::bit_plan::{BitPlan, WeightBits};
use crate::scheme::metadata;
use msq_passes::analysis::LayerOp;
use msq_passes::analysis::quantized::{Source, is_dequantizer};
use msq_passes::ir::{DataType, Model, Node, ValueId};
use msq_passes::narrow_channels;
use std::collections::HashMap;

/// A tensor whose parameters no format can represent.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct LeftOut {
    /// The tensor.
    pub tensor: String,
    /// Why.
    pub reason: String,
}

/// Suffixes that tools add to the names of integers and of dequantized values.
const ENDINGS: [&str; 4] = ["_dequantized", "_DequantizeLinear_Output", "_quantized", "_qdq"];

/// Reads the encodings of a quantized model, and names the tensors that were left out.
pub fn read(model: &Model) -> Result<(Encodings, Vec<LeftOut>), ExchangeError> {
    crate::prepare::check(model)?;
    if metadata::is_stripped(model) {
        let reason = "its inner names were shortened; quantize with option `keep-names` to keep them".to_owned();
        return Err(ExchangeError::NoEncodings { reason });
    }
    let plan = metadata::readable_plan(model)?;
    let mut reader = Reader {
        model,
        qdq: quantized::read(model),
        plan,
        narrow: narrow_channels(model),
        found: Encodings::default(),
        left_out: Vec::new(),
    };
    for (_, node) in model.graph.nodes() {
        reader.read(node);
    }
    if reader.found.tensors.is_empty() {
        let reason = "it has no pair of QuantizeLinear and DequantizeLinear".to_owned();
        return Err(ExchangeError::NoEncodings { reason });
    }
    Ok((reader.found, reader.left_out))
}

struct Reader<'a> {
    model: &'a Model,
    qdq: Qdq<'a>,
    plan: Option<BitPlan>,
    /// Output channels that layers have in the float model, where the file has more.
    narrow: HashMap<&'a str, usize>,
    found: Encodings,
    left_out: Vec<LeftOut>,
}

/// A tensor before its parameters are read.
struct Site<'a> {
    name: String,
    parameter: bool,
    scale: ValueId,
    zero_point: Option<ValueId>,
    element: DataType,
    bits: u8,
    axis: Option<i64>,
    node: &'a Node,
}

impl<'a> Reader<'a> {
    fn read(&mut self, node: &'a Node) {
        let site = if is_dequantizer(node) { self.dequantizer(node) } else { self.stored_weight(node) };
        let Some(site) = site else { return };
        let name = site.name.clone();
        match self.encoding(&site) {
            Ok(encoding) => self.keep(name, encoding, site.parameter),
            Err(reason) => self.left_out.push(LeftOut { tensor: name, reason }),
        }
    }

    fn keep(&mut self, name: String, encoding: Encoding, parameter: bool) {
        match self.found.tensors.get(&name) {
            Some(known) if *known == encoding => {}
            Some(_) => {
                let reason = "it is quantized again with other parameters, for one reader".to_owned();
                self.left_out.push(LeftOut { tensor: name, reason });
            }
            None => {
                self.found.parameters.extend(parameter.then(|| name.clone()));
                self.found.tensors.insert(name, encoding);
            }
        }
    }

    fn name(&self, value: ValueId) -> &'a str {
        self.model.graph.value(value).name()
    }

    /// The tensor that a `DequantizeLinear` writes; `None` for a bias, and for integers that no quantizer writes.
    fn dequantizer(&self, node: &'a Node) -> Option<Site<'a>> {
        let (integers, output) = (node.input(0)?, node.output(0)?);
        let element = self.qdq.element(node, integers).filter(|&element| element != DataType::Int32)?;
        let (name, parameter) = match self.qdq.source(integers) {
            Source::Quantizer { moved: true, .. } => (self.name(output).to_owned(), false),
            Source::Quantizer { node: quantizer, .. } => (self.activation_name(quantizer.input(0)?, output), false),
            Source::Constant => (self.parameter_name(integers, output), true),
            Source::Other { .. } => return None,
        };
        let bits = if parameter { self.weight_bits(output, element) } else { self.qdq.bits(integers)? };
        let axis = Some(node.int_or("axis", 1));
        let (scale, zero_point) = (node.input(1)?, node.input(2));
        Some(Site { name, parameter, scale, zero_point, element, bits, axis, node })
    }

    /// The weight of a layer that computes in float: Mul(Cast(integers), scale).
    fn stored_weight(&self, node: &'a Node) -> Option<Site<'a>> {
        let (factor, scale, output) = (node.input(0)?, node.input(1)?, node.output(0)?);
        let cast = self.qdq.producer(factor).filter(|made| node.is("Mul") && made.is("Cast"))?;
        let integers = cast.input(0).filter(|&value| self.qdq.is_constant(value))?;
        let element = self.qdq.element_of(integers).filter(|element| !element.is_float())?;
        let name = self.parameter_name(integers, output);
        let axis = self.qdq.constant(scale)?.shape().ok()?.iter().position(|&n| n != 1).map(|axis| axis as i64);
        let bits = self.weight_bits(output, element);
        Some(Site { name, parameter: true, scale, zero_point: None, element, bits, axis, node })
    }

    fn activation_name(&self, before: ValueId, behind: ValueId) -> String {
        let (before_name, behind_name) = (self.name(before), self.name(behind));
        let kept = self.model.graph.is_output(behind) || before_name.starts_with(behind_name);
        if kept { behind_name } else { before_name }.to_owned()
    }

    fn parameter_name(&self, integers: ValueId, output: ValueId) -> String {
        // Float weights that the graph quantizes have the original name.
        let float = self.qdq.producer(integers).filter(|node| node.op() == "QuantizeLinear").and_then(|n| n.input(0));
        if let Some(value) = float {
            return self.name(value).to_owned();
        }
        let stem = |name: &str| ENDINGS.iter().find_map(|ending| name.strip_suffix(ending)).map(str::to_owned);
        let (written, read) = (self.name(output), self.name(integers));
        stem(written).or_else(|| stem(read)).unwrap_or_else(|| read.to_owned())
    }

    /// The bits of a weight by the plan, where its integers are of a uniform grid; else those of the type.
    fn weight_bits(&self, weight: ValueId, element: DataType) -> u8 {
        let stored = element.bits().map_or(8, |bits| bits as u8);
        let reader = self.model.graph.value(weight).uses().first().map(|u| self.model.graph.node(u.node));
        let layer = reader.filter(|node| LayerOp::of(node).is_some()).map(|node| node.label(&self.model.graph));
        let plan = self.plan.as_ref().zip(layer).and_then(|(plan, layer)| plan.layer(layer));
        match plan
            .filter(|plan| !plan.weight_grid().is_list() && plan.weight_grid() != WeightGrid::Trellis)
            .map(|plan| plan.weights)
        {
            Some(WeightBits::Bits(rate)) => rate.ceil().min(stored),
            Some(WeightBits::Ternary) => 2,
            _ => stored,
        }
    }

    /// The channels of a weight whose layer has more in the file than in the float model.
    fn channels(&self, site: &Site) -> Option<usize> {
        let weight = site.node.output(0).filter(|_| site.parameter)?;
        let reader = self.model.graph.node(self.model.graph.only_use(weight)?.node);
        self.narrow.get(reader.label(&self.model.graph)).copied()
    }

    fn encoding(&self, site: &Site) -> Result<Encoding, String> {
        if site.node.int_or("block_size", 0) != 0 {
            return Err("it is quantized in blocks".to_owned());
        }
        let signed = match site.element {
            DataType::Int2 | DataType::Int4 | DataType::Int8 | DataType::Int16 => true,
            DataType::Uint2 | DataType::Uint4 | DataType::Uint8 | DataType::Uint16 => false,
            other => return Err(format!("its integers are {other}")),
        };
        let constant = |value| self.qdq.constant(value).ok_or_else(|| format!("`{}` is no constant", self.name(value)));
        let mut scales = constant(site.scale)?.to_f32().map_err(|e| e.to_string())?;
        scales.truncate(self.channels(site).unwrap_or(scales.len()));
        let zero_points = match site.zero_point {
            Some(value) => constant(value)?.to_i64().map_err(|e| e.to_string())?,
            None => vec![0; scales.len()],
        };
        if !site.parameter && scales.len() > 1 {
            return Err("an activation with one scale per channel".to_owned());
        }
        let zero_points = zero_points.into_iter().take(scales.len()).map(|zero_point| zero_point as i32).collect();
        let axis = site.axis.filter(|_| scales.len() > 1);
        let encoding = Encoding { scales, zero_points, signed, bits: site.bits, axis };
        encoding.fault().map_or(Ok(encoding), Err)
    }
}
