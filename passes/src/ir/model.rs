//! A model: the graph and the other fields of the file.

use super::external::{ExternalError, Folder};
use super::node::normal_domain;
use super::{
    DataType, FunctionProto, Graph, ImportError, ModelProto, OperatorSetIdProto, StringStringEntryProto, TensorProto,
    ValueId, encoded_len, export, import,
};
use bytes::Bytes;
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

/// A model in memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// The fields of the file's model message besides the graph.
    pub(super) proto: ModelProto,
    /// The graph.
    pub graph: Graph,
    pub(super) folder: Option<Folder>,
    /// By the names of values.
    pub(super) typical_shapes: Arc<HashMap<String, Vec<usize>>>,
}

impl Model {
    /// Version of the format.
    pub fn ir_version(&self) -> i64 {
        self.proto.ir_version()
    }

    /// Sets the version of the format.
    pub fn set_ir_version(&mut self, version: i64) {
        self.proto.ir_version = Some(version);
    }

    /// Version of the operator set of `domain` (empty for the default one), if the model imports it.
    pub fn opset(&self, domain: &str) -> Option<i64> {
        let entry = self.proto.opset_import.iter().find(|o| normal_domain(o.domain()) == normal_domain(domain))?;
        Some(entry.version())
    }

    /// Sets the operator set version of a domain, adding the domain if it is new.
    pub fn set_opset(&mut self, domain: &str, version: i64) {
        let found = self.proto.opset_import.iter_mut().find(|o| normal_domain(o.domain()) == normal_domain(domain));
        match found {
            Some(entry) => entry.version = Some(version),
            None => self
                .proto
                .opset_import
                .push(OperatorSetIdProto { domain: Some(domain.to_owned()), version: Some(version) }),
        }
    }

    /// Imports a domain no longer.
    pub(crate) fn drop_opset(&mut self, domain: &str) {
        self.proto.opset_import.retain(|entry| normal_domain(entry.domain()) != normal_domain(domain));
    }

    /// The value stored under a metadata key.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.proto.metadata_props.iter().find(|e| e.key() == key).map(StringStringEntryProto::value)
    }

    /// Stores a metadata entry, replacing one of the same key.
    pub fn set_metadata(&mut self, key: &str, value: &str) {
        let entries = &mut self.proto.metadata_props;
        match entries.iter_mut().find(|e| e.key() == key) {
            Some(entry) => entry.value = Some(value.to_owned()),
            None => entries.push(StringStringEntryProto { key: Some(key.to_owned()), value: Some(value.to_owned()) }),
        }
    }

    /// Sets the tool that wrote the model.
    pub fn set_producer(&mut self, name: &str, version: &str) {
        self.proto.producer_name = Some(name.to_owned());
        self.proto.producer_version = Some(version.to_owned());
    }

    /// The tool that wrote the model.
    pub fn producer(&self) -> &str {
        self.proto.producer_name()
    }

    /// The version of the tool that wrote the model.
    pub fn producer_version(&self) -> &str {
        self.proto.producer_version()
    }

    /// Replaces the model by what a message says, the folder of external data excepted.
    pub fn replace(&mut self, message: ModelProto) -> Result<(), ImportError> {
        let folder = self.folder.take();
        *self = Self { folder, ..import(message)? };
        Ok(())
    }

    /// Whether the model defines functions.
    pub fn has_functions(&self) -> bool {
        !self.proto.functions.is_empty()
    }

    /// Adds a model-local function. Functions exist from IR version 8 on.
    pub fn add_function(&mut self, function: FunctionProto) {
        self.proto.functions.push(function);
        self.set_ir_version(self.ir_version().max(8));
    }

    /// Whether `op` of `domain` is a function that the model defines.
    pub fn is_function(&self, domain: &str, op: &str) -> bool {
        self.functions(domain, op).next().is_some()
    }

    /// The functions of this name that the model defines: one, or several overloads.
    pub fn functions<'a>(&'a self, domain: &'a str, op: &'a str) -> impl Iterator<Item = &'a FunctionProto> {
        self.proto
            .functions
            .iter()
            .filter(move |f| f.name() == op && normal_domain(f.domain()) == normal_domain(domain))
    }

    /// The tensor with its elements in memory: itself, or a copy read from its external file.
    pub fn loaded<'a>(&self, tensor: &'a TensorProto) -> Result<Cow<'a, TensorProto>, ExternalError> {
        if !tensor.is_external() {
            return Ok(Cow::Borrowed(tensor));
        }
        let Some(folder) = &self.folder else {
            return Err(ExternalError::NoFolder { tensor: tensor.name().to_owned() });
        };
        folder.load(tensor).map(Cow::Owned)
    }

    /// The value's tensor, loaded, if the value is a constant that no caller can override.
    pub fn constant(&self, value: ValueId) -> Option<Result<Cow<'_, TensorProto>, ExternalError>> {
        self.graph.constant(value).map(|tensor| self.loaded(tensor))
    }

    /// Bytes of the elements of initializers that are in other files, by their shapes.
    pub fn external_bytes(&self) -> u64 {
        let external = self.graph.initializers().filter(|(_, tensor)| tensor.is_external());
        let size = |tensor: &TensorProto| {
            let bits = tensor.element_type().and_then(DataType::bits).unwrap_or_default();
            tensor.element_count().unwrap_or_default() as u64 * bits as u64 / 8
        };
        external.map(|(_, tensor)| size(tensor)).sum()
    }

    /// Bytes of the model's message and of elements in other files.
    pub fn stored_bytes(&self) -> u64 {
        encoded_len(&export(self)) as u64 + self.external_bytes()
    }

    /// Gives the elements of every initializer memory of their own: one that is still a part of the file as it was read
    /// holds all of it.
    pub fn let_go_of_file(&mut self) {
        let values: Vec<ValueId> = self.graph.initializers().map(|(value, _)| value).collect();
        for value in values {
            let Some(tensor) = self.graph.initializer(value) else { continue };
            let Some(elements) = &tensor.raw_data else { continue };
            let raw_data = Some(Bytes::copy_from_slice(elements));
            self.graph.set_initializer(value, TensorProto { raw_data, ..tensor.clone() });
        }
    }

    /// The shape that a value has for typical inputs, where that was stated. No file has it.
    pub fn typical_shape(&self, value: ValueId) -> Option<&[usize]> {
        self.typical_shapes.get(self.graph.value(value).name()).map(Vec::as_slice)
    }

    /// The shape that a value has for one typical sample. Lengths left open are those of [`Model::typical_shape`], and one on
    /// the first axis where nothing was stated.
    pub fn sample_shape(&self, value: ValueId) -> Option<Vec<usize>> {
        let typical = self.typical_shape(value);
        let Some(shape) = self.graph.value(value).shape() else { return typical.map(<[usize]>::to_vec) };
        let typical = typical.filter(|typical| typical.len() == shape.len());
        let one = |at: usize| (at == 0).then_some(1);
        let length = |(at, known): (usize, &Option<usize>)| {
            known.or(typical.map_or_else(|| one(at), |typical| Some(typical[at])))
        };
        shape.iter().enumerate().map(length).collect()
    }

    /// States the shapes that values have for typical inputs, by their names, in the place of what was stated before.
    pub fn set_typical_shapes(&mut self, shapes: HashMap<String, Vec<usize>>) {
        self.typical_shapes = Arc::new(shapes);
    }

    /// The folder external data is read from.
    pub fn folder(&self) -> Option<&Folder> {
        self.folder.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same model, none of whose elements is where it was.
    #[test]
    fn a_model_lets_go_of_its_file() {
        let text = "<ir_version: 8, opset_import: [\"\": 17]> g (float[2] x) => (float[2] y)
            <float[2] w = {1, 2}> { y = Add (x, w) }";
        let mut proto = super::super::text::parse(text).unwrap();
        let file = Bytes::from(vec![0, 0, 128, 63, 0, 0, 0, 64]);
        proto.graph.as_mut().unwrap().initializer[0] = TensorProto::from_raw("w", DataType::Float, &[2], file.clone());
        let model = import(proto).unwrap();
        let elements = |model: &Model| {
            let tensor = model.graph.initializers().map(|(_, tensor)| tensor.clone()).next();
            tensor.and_then(|tensor| tensor.raw_data).unwrap()
        };
        let mut own = model.clone();
        own.let_go_of_file();
        assert_eq!(own, model);
        assert_eq!((elements(&model).as_ptr(), elements(&own)), (file.as_ptr(), file.clone()));
        assert_ne!(elements(&own).as_ptr(), file.as_ptr());
    }
}
