//! The caller's own metric: a function of all outputs, or a command that scores them.
//!
//! Outputs of all samples are held in memory for it, which no other measure does.

use super::MeasureError;
use crate::data::{Dataset, write_npz, write_npz_of_labels};
use crate::engine::EngineError;
use crate::execute::segment::Ran;
use std::fmt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

/// What a metric is given: the outputs of a network on some samples.
#[derive(Clone, Debug, Default)]
pub struct ScoredOutputs {
    /// The names of the outputs.
    pub names: Vec<String>,
    /// Of each sample, of each output: its shape and its elements.
    pub samples: Vec<Vec<(Vec<usize>, Vec<f32>)>>,
    /// The labels of all samples in a row; empty where the data has none.
    pub labels: Vec<i64>,
    /// The number of each sample in the data.
    pub indices: Vec<usize>,
    /// The image files of all samples in a row, as paths below the folder of the data; empty where the data are no images.
    pub files: Vec<String>,
}

type Function = dyn Fn(&ScoredOutputs) -> Result<f64, String> + Send + Sync;

/// A way to score a network: more is better.
///
/// It takes the place of accuracy and agreement where a drop is limited: see
/// [`Quantizer::metric`](crate::Quantizer::metric).
#[derive(Clone)]
pub struct CustomMetric {
    name: String,
    function: Arc<Function>,
}

impl CustomMetric {
    /// A function of the outputs of all samples.
    pub fn new(
        name: impl Into<String>,
        function: impl Fn(&ScoredOutputs) -> Result<f64, String> + Send + Sync + 'static,
    ) -> Self {
        Self { name: name.into(), function: Arc::new(function) }
    }

    /// A command for the shell that prints one number. `{outputs}` in it becomes the path of an `.npz` of the outputs,
    /// `{labels}` that of an `.npz` with labels (`y`, `labels`) and the numbers of the samples (`index`).
    pub fn command(command: impl Into<String>) -> Self {
        let command = command.into();
        let line = command.clone();
        Self::new(command, move |outputs| run(&line, outputs))
    }

    /// Scores the outputs of a network.
    pub(crate) fn score(&self, outputs: &ScoredOutputs) -> Result<f64, MeasureError> {
        let failed = |reason: String| MeasureError::Metric { name: self.name.clone(), reason };
        let score = (self.function)(outputs).map_err(failed)?;
        if score.is_finite() { Ok(score) } else { Err(failed(format!("{score} is no score"))) }
    }
}

impl fmt::Debug for CustomMetric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CustomMetric").field(&self.name).finish()
    }
}

impl ScoredOutputs {
    /// Of no sample yet, on some data.
    pub(crate) fn new(names: Vec<String>) -> Self {
        Self { names, ..Self::default() }
    }

    /// Adds a sample that has just been run.
    pub(crate) fn observe(&mut self, index: usize, ran: Ran, data: &Dataset) -> Result<(), EngineError> {
        let of = |at: usize| Ok((ran.shape(at).to_vec(), ran.values(at)?.into_owned()));
        self.samples.push((0..ran.len()).map(of).collect::<Result<_, EngineError>>()?);
        self.labels.extend(data.labels(index).into_iter().flatten());
        self.indices.push(data.number(index).unwrap_or(index));
        self.files.extend(data.files(index));
        Ok(())
    }

    /// Adds a later part.
    pub(crate) fn merge(&mut self, other: Self) {
        self.samples.extend(other.samples);
        self.labels.extend(other.labels);
        self.indices.extend(other.indices);
        self.files.extend(other.files);
    }

    /// Writes the outputs as an `.npz`: stacked along the first axis; where samples differ in shape, as one array per
    /// sample, named `OUTPUT.0`, `OUTPUT.1` and so on.
    fn write(&self, path: &Path) -> Result<(), MeasureError> {
        let mut arrays = Vec::new();
        for (at, name) in self.names.iter().enumerate() {
            match self.stacked(at) {
                Some((shape, values)) => arrays.push((name.clone(), shape, values)),
                None => arrays.extend(self.samples.iter().enumerate().map(|(sample, outputs)| {
                    let (shape, values) = outputs[at].clone();
                    (format!("{name}.{sample}"), shape, values)
                })),
            }
        }
        Ok(write_npz(path, &arrays)?)
    }

    /// Writes the outputs of all samples, stacked along the first axis; samples must not differ in shape.
    pub(crate) fn save(&self, path: &Path) -> Result<(), MeasureError> {
        let mut arrays = Vec::new();
        for (at, name) in self.names.iter().enumerate() {
            let (shape, values) = self.stacked(at).ok_or_else(|| MeasureError::Incomparable {
                reason: format!("output `{name}` changes its shape and cannot be stacked"),
            })?;
            arrays.push((name.clone(), shape, values));
        }
        Ok(write_npz(path, &arrays)?)
    }

    /// An output of all samples as one array; `None` where samples differ in shape.
    fn stacked(&self, at: usize) -> Option<(Vec<usize>, Vec<f32>)> {
        let mut shape = self.samples.first()?[at].0.clone();
        if self.samples.iter().any(|sample| sample[at].0 != shape) {
            return None;
        }
        let rows = shape.first().copied().unwrap_or(1) * self.samples.len();
        if shape.is_empty() {
            shape.push(rows);
        } else {
            shape[0] = rows;
        }
        Some((shape, self.samples.iter().flat_map(|sample| sample[at].1.iter().copied()).collect()))
    }
}

/// Writes the files, runs the command and reads what it prints. The files are removed whatever happens.
fn run(command: &str, outputs: &ScoredOutputs) -> Result<f64, String> {
    let folder = tempfile::Builder::new().prefix("msq-onnx-").tempdir();
    let folder = folder.map_err(|error| format!("no folder for the outputs: {error}"))?;
    let paths = ["outputs.npz", "labels.npz"].map(|name| folder.path().join(name));
    let said = |error: MeasureError| error.to_string();
    outputs.write(&paths[0]).map_err(said)?;
    write_labels(&paths[1], outputs).map_err(said)?;
    let [outputs, labels] = paths.map(|path| quoted(&path.to_string_lossy()));
    let line = command.replace("{outputs}", &outputs).replace("{labels}", &labels);
    let ran = shell(&line).stdin(Stdio::null()).output();
    let ran = ran.map_err(|error| format!("it cannot be run: {error}"))?;
    if !ran.status.success() {
        let last = last_line(&ran.stderr).or_else(|| last_line(&ran.stdout));
        return Err(format!("{}: {}", ran.status, last.unwrap_or_else(|| "it says nothing".to_owned())));
    }
    let printed = last_line(&ran.stdout).unwrap_or_default();
    printed.parse().map_err(|_| format!("it prints `{printed}`, not a number"))
}

fn write_labels(path: &Path, outputs: &ScoredOutputs) -> Result<(), MeasureError> {
    let mut integers = vec![("index", outputs.indices.iter().map(|&index| index as i64).collect())];
    if !outputs.labels.is_empty() {
        integers.extend(["y", "labels"].map(|name| (name, outputs.labels.clone())));
    }
    let texts = if outputs.files.is_empty() { Vec::new() } else { vec![("file", outputs.files.clone())] };
    Ok(write_npz_of_labels(path, &integers, &texts)?)
}

/// The last line that is not empty.
fn last_line(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    text.lines().map(str::trim).rfind(|line| !line.is_empty()).map(str::to_owned)
}

#[cfg(not(windows))]
fn shell(line: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", line]);
    command
}

#[cfg(windows)]
fn shell(line: &str) -> Command {
    let mut command = Command::new("cmd");
    command.args(["/C", line]);
    command
}

/// A path as one word of a shell.
fn quoted(path: &str) -> String {
    if cfg!(windows) { format!("\"{path}\"") } else { format!("'{}'", path.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outputs() -> ScoredOutputs {
        let sample = |n: usize| vec![(vec![1, 2], vec![n as f32, 0.5])];
        ScoredOutputs {
            names: vec!["y".to_owned()],
            samples: (0..3).map(sample).collect(),
            labels: vec![4, 5, 6],
            indices: vec![0, 2, 4],
            files: Vec::new(),
        }
    }

    #[test]
    fn a_function_scores() {
        let metric = CustomMetric::new("sum", |outputs: &ScoredOutputs| {
            Ok(outputs.samples.iter().map(|sample| f64::from(sample[0].1[0])).sum())
        });
        assert_eq!(metric.score(&outputs()).unwrap(), 3.0);
        let nothing = CustomMetric::new("nothing", |_: &ScoredOutputs| Ok(f64::NAN));
        assert_eq!(nothing.score(&outputs()).unwrap_err().to_string(), "metric `nothing`: NaN is no score");
    }

    #[cfg(unix)]
    #[test]
    fn a_command_prints_a_number() {
        let score = |line: &str| CustomMetric::command(line).score(&outputs()).map_err(|error| error.to_string());
        assert_eq!(score("test -s {outputs} && test -s {labels} && echo so && echo ' 0.75 '"), Ok(0.75));
        assert_eq!(
            score("echo many; exit 0").unwrap_err(),
            "metric `echo many; exit 0`: it prints `many`, not a number"
        );
        let failed = score("echo broken >&2; exit 3").unwrap_err();
        assert!(failed.ends_with("exit status: 3: broken"), "{failed}");
    }

    /// The folder with the outputs is gone afterwards, whether the command works or not.
    #[cfg(unix)]
    #[test]
    fn files_are_removed() {
        let kept = tempfile::NamedTempFile::new().unwrap();
        let note = kept.path().display();
        for end in ["echo 1", "exit 1"] {
            let _ = CustomMetric::command(format!("echo {{outputs}} > {note}; {end}")).score(&outputs());
            let path = std::fs::read_to_string(kept.path()).unwrap();
            assert!(path.contains("outputs.npz") && !Path::new(path.trim()).exists(), "{path}");
        }
    }

    #[test]
    fn outputs_of_several_shapes_are_not_stacked() {
        let mut outputs = outputs();
        assert_eq!(outputs.stacked(0).unwrap().0, [3, 2]);
        outputs.samples[1][0] = (vec![1, 3], vec![0.0; 3]);
        assert!(outputs.stacked(0).is_none());
    }
}
