//! Pass `single-precision`: a network that computes in float16, bfloat16 or double computes in float32.
//!
//! Where a layer reads one of these types, every constant, every cast and every declared type of it becomes float32:
//! weights of 16 bits are held exactly, doubles are rounded once, and finite doubles beyond the range of float32 become
//! its ends, so that a mask of −1.8e308 stays finite. Inputs and outputs of the graph keep their types; a `Cast` stands
//! behind an input and before an output. Integer kernels, statistics and solvers are all float32. Between the casts the
//! network is more exact than it was, or less where it computed in double.
//!
//! A type in which no layer computes is left: a few doubles in a float32 network are there for a reason, and weights
//! that are stored in 16 bits and cast are constants to be folded. Declined: a sequence or an optional of such a type
//! among the inputs or outputs, which no cast converts.

use crate::analysis::element_types::element_types;
use crate::ir::{
    AttributeProto, DataType, GraphProto, Model, NodeProto, TensorProto, TypeProto, TypeValue, ValueInfoProto, export,
};
use crate::ops::{Trait, facts};
use crate::pass::{Outcome, Pass, PassError};
use indexmap::IndexSet;
use std::collections::{HashMap, HashSet};

/// Makes networks of other floating-point types compute in float32.
#[derive(Clone, Copy, Debug, Default)]
pub struct SinglePrecision;

/// Attributes that name the element type of a result or of the arithmetic inside.
const TYPE_ATTRIBUTES: [&str; 6] =
    ["to", "dtype", "output_dtype", "output_datatype", "stash_type", "softmax_precision"];

impl SinglePrecision {
    /// The types in which a layer of the model computes and that would become float32, in the order of their numbers.
    pub fn types(model: &Model) -> Vec<DataType> {
        let types = element_types(&model.graph).into_iter();
        let mut known = types.map(|(value, element)| (model.graph.value(value).name().to_owned(), element)).collect();
        let mut found = HashSet::new();
        let nodes: Vec<NodeProto> = export(model).graph.map_or_else(Vec::new, |graph| graph.node);
        computed_in(&nodes, &mut known, &mut found);
        DataType::ALL.into_iter().filter(|element| found.contains(element)).collect()
    }
}

impl Pass for SinglePrecision {
    fn name(&self) -> &'static str {
        "single-precision"
    }

    fn about(&self) -> &'static str {
        "networks of float16, bfloat16 or double compute in float32; inputs and outputs keep their types"
    }

    fn run(&self, model: &mut Model) -> Result<Outcome, PassError> {
        let mut outcome = Outcome::default();
        let from = Self::types(model);
        if from.is_empty() {
            return Ok(outcome);
        }
        let mut message = export(model);
        let Some(graph) = &mut message.graph else { return Ok(outcome) };
        if let Some(name) = uncastable(graph, &from) {
            outcome.decline(name, format!("no cast converts a sequence or an optional of {}", from[0]));
            return Ok(outcome);
        }
        let boundary = Boundary::of(model, &from);
        let mut conversion = Conversion { model, from: &from, fixed: boundary.names(model), changed: 0 };
        conversion.graph(graph, true)?;
        for function in &mut message.functions {
            function.node.iter_mut().try_for_each(|node| conversion.node(node))?;
        }
        outcome.changed = conversion.changed + boundary.sources.len() + boundary.results.len();
        model.replace(message)?;
        boundary.cast(model);
        Ok(outcome)
    }
}

/// Adds the types among float16, bfloat16 and double that layers read. `known` grows by what sub-graphs declare.
fn computed_in(nodes: &[NodeProto], known: &mut HashMap<String, DataType>, found: &mut HashSet<DataType>) {
    for node in nodes {
        for graph in node.subgraphs() {
            let declared = graph.input.iter().chain(&graph.output).chain(&graph.value_info);
            known.extend(declared.filter_map(|value| {
                Some((value.name().to_owned(), value.r#type.as_ref().and_then(TypeProto::element_type)?))
            }));
            let constants = graph.initializer.iter();
            known.extend(constants.filter_map(|tensor| Some((tensor.name().to_owned(), tensor.element_type()?))));
            computed_in(&graph.node, known, found);
        }
        if let ("Constant", [output], [attribute]) = (node.op_type(), &node.output[..], &node.attribute[..]) {
            let element = attribute.t.as_ref().and_then(TensorProto::element_type);
            known.extend(element.map(|element| (output.clone(), element)));
        }
        if is_layer(node.op_type()) {
            let read = node.input.iter().filter_map(|name| known.get(name).copied());
            found.extend(read.filter(|&element| element.is_float() && element != DataType::Float));
        }
    }
}

fn is_layer(op: &str) -> bool {
    let facts = facts(op);
    facts.operands.is_some() || facts.has(Trait::Recurrent) || facts.has(Trait::FusedLayer)
}

/// An input or output of the graph whose type holds such elements, but is no tensor.
fn uncastable<'a>(graph: &'a GraphProto, from: &[DataType]) -> Option<&'a str> {
    let holds = |ty: &TypeProto| {
        let mut copy = ty.clone();
        ty.element_type().is_none() && retype(&mut copy, from)
    };
    let mut values = graph.input.iter().chain(&graph.output);
    values.find(|value| value.r#type.as_ref().is_some_and(holds)).map(ValueInfoProto::name)
}

/// Makes a type one of float32; returns whether it was another.
fn retype(ty: &mut TypeProto, from: &[DataType]) -> bool {
    match &mut ty.value {
        Some(TypeValue::Tensor(tensor) | TypeValue::SparseTensor(tensor)) => {
            let wide = tensor.elem_type.and_then(DataType::from_number).is_some_and(|element| from.contains(&element));
            if wide {
                tensor.elem_type = Some(DataType::Float.number());
            }
            wide
        }
        Some(TypeValue::Sequence(element) | TypeValue::Optional(element)) => {
            element.elem_type.as_mut().is_some_and(|element| retype(element, from))
        }
        Some(TypeValue::Map(map)) => map.value_type.as_mut().is_some_and(|value| retype(value, from)),
        Some(TypeValue::Opaque(_)) | None => false,
    }
}

/// Values of the graph's interface that keep their types, by name.
struct Boundary {
    /// Inputs, and constants that are outputs.
    sources: IndexSet<String>,
    /// Outputs that a node computes, with their types.
    results: Vec<(String, DataType)>,
}

impl Boundary {
    fn of(model: &Model, from: &[DataType]) -> Self {
        let graph = &model.graph;
        let types = element_types(graph);
        let typed = |value| types.get(&value).copied().filter(|element| from.contains(element));
        let name = |value| graph.value(value).name().to_owned();
        let constants = graph.outputs().filter(|&value| graph.initializer(value).is_some());
        let sources: IndexSet<String> =
            graph.inputs().chain(constants).filter(|&v| typed(v).is_some()).map(name).collect();
        let computed = graph.outputs().filter(|&value| graph.value(value).producer().is_some());
        let results = computed.filter_map(|value| Some((name(value), typed(value)?))).collect();
        Self { sources, results }
    }

    /// The names whose declared types stay.
    fn names(&self, model: &Model) -> HashSet<String> {
        let ports = model.graph.inputs().chain(model.graph.outputs());
        let ports = ports.map(|value| model.graph.value(value).name().to_owned());
        self.sources.iter().cloned().chain(ports).collect()
    }

    fn cast(&self, model: &mut Model) {
        let graph = &mut model.graph;
        let to = |element: DataType| vec![AttributeProto::element("to", element)];
        for name in &self.sources {
            let Some(value) = graph.find(name) else { continue };
            let read = !graph.value(value).uses().is_empty() || !graph.value(value).captures().is_empty();
            if read {
                let single = graph.add_value(&format!("{name}_float"));
                graph.replace_uses(value, single);
                let cast = NodeProto::of("Cast", &format!("{name}_to_float"), to(DataType::Float));
                graph.add_node(cast, &[Some(value)], &[Some(single)]);
            }
        }
        for (name, element) in &self.results {
            let Some(value) = graph.find(name) else { continue };
            let Some((node, slot)) = graph.value(value).producer() else { continue };
            let single = graph.add_value(&format!("{name}_float"));
            graph.set_output(node, slot, single);
            graph.replace_uses(value, single);
            let cast = NodeProto::of("Cast", &format!("{name}_to_{element}"), to(*element));
            graph.add_node(cast, &[Some(single)], &[Some(value)]);
        }
    }
}

struct Conversion<'a> {
    model: &'a Model,
    from: &'a [DataType],
    /// Values of the main graph that stay what they are.
    fixed: HashSet<String>,
    changed: usize,
}

impl Conversion<'_> {
    fn graph(&mut self, graph: &mut GraphProto, main: bool) -> Result<(), PassError> {
        let fixed = |name: &str, fixed: &HashSet<String>| main && fixed.contains(name);
        for tensor in &mut graph.initializer {
            if !fixed(tensor.name(), &self.fixed) {
                self.tensor(tensor)?;
            }
        }
        let sparse = graph.sparse_initializer.iter_mut().filter_map(|sparse| sparse.values.as_mut());
        for tensor in sparse {
            self.tensor(tensor)?;
        }
        let values = graph.input.iter_mut().chain(&mut graph.output).chain(&mut graph.value_info);
        for value in values {
            if !fixed(value.name(), &self.fixed)
                && let Some(ty) = &mut value.r#type
            {
                self.changed += usize::from(retype(ty, self.from));
            }
        }
        graph.node.iter_mut().try_for_each(|node| self.node(node))
    }

    fn node(&mut self, node: &mut NodeProto) -> Result<(), PassError> {
        for attribute in &mut node.attribute {
            let sparse = attribute.sparse_tensor.iter_mut().chain(&mut attribute.sparse_tensors);
            let sparse = sparse.filter_map(|sparse| sparse.values.as_mut());
            for tensor in attribute.t.iter_mut().chain(&mut attribute.tensors).chain(sparse) {
                self.tensor(tensor)?;
            }
            for ty in attribute.tp.iter_mut().chain(&mut attribute.type_protos) {
                self.changed += usize::from(retype(ty, self.from));
            }
            let element = attribute.i.and_then(|number| DataType::from_number(i32::try_from(number).ok()?));
            if TYPE_ATTRIBUTES.contains(&attribute.name()) && element.is_some_and(|e| self.from.contains(&e)) {
                attribute.i = Some(i64::from(DataType::Float.number()));
                self.changed += 1;
            }
            for graph in attribute.g.iter_mut().chain(&mut attribute.graphs) {
                self.graph(graph, false)?;
            }
        }
        Ok(())
    }

    fn tensor(&mut self, tensor: &mut TensorProto) -> Result<(), PassError> {
        if !tensor.element_type().is_some_and(|element| self.from.contains(&element)) {
            return Ok(());
        }
        let values = singles(&*self.model.loaded(tensor)?)?;
        *tensor = TensorProto { name: tensor.name.clone(), ..TensorProto::from_f32("", &tensor.shape()?, &values) };
        self.changed += 1;
        Ok(())
    }
}

/// The elements as float32; finite doubles beyond its range become its ends.
fn singles(tensor: &TensorProto) -> Result<Vec<f32>, PassError> {
    let mut values = tensor.to_f32()?;
    if tensor.element_type() == Some(DataType::Double) {
        for (value, double) in values.iter_mut().zip(tensor.to_f64()?) {
            if value.is_infinite() && double.is_finite() {
                *value = f32::MAX.copysign(*value);
            }
        }
    }
    Ok(values)
}
