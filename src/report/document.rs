//! The documents that the command line prints with `--json`: the result, and the run that produced it.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};
use serde::Serialize;

/// Version of the format of the documents, raised when a key is removed or changes its meaning.
const SCHEMA_VERSION: u32 = 1;

/// The result of a run, with the arguments that produced it.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Document<T> {
    /// Version of this document's format. It is raised when a key is removed or changes its meaning, not when one is added.
    pub schema_version: u32,
    /// Which run this was.
    #[serde(flatten)]
    pub run: Run,
    /// The result.
    #[serde(flatten)]
    pub found: T,
}

/// Which run this was: what it takes to do it again.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct Run {
    /// Version of msq-onnx.
    pub tool_version: String,
    /// The command line arguments.
    pub arguments: Vec<String>,
    /// The model file that was read.
    pub model: String,
    /// The file that was written; null if none was.
    pub output: Option<String>,
    /// Seed of the random numbers; null if the command draws none.
    pub seed: Option<u64>,
}

impl<T> Document<T> {
    /// What was found in a run.
    pub fn new(run: Run, found: T) -> Self {
        Self { schema_version: SCHEMA_VERSION, run, found }
    }
}

impl<T: JsonSchema> Document<T> {
    /// The schema of the document under this title.
    pub fn schema(title: &str) -> Schema {
        let mut schema = SchemaSettings::draft2020_12().for_serialize().into_generator().into_root_schema_for::<Self>();
        schema.insert("title".to_owned(), title.into());
        schema
    }
}
