//! What the commands that run models, and write none, have in common.

use super::CommonArgs;
use super::config::ConfigArgs;
use super::data::DataArgs;
use super::output::{self, Usage, line};
use super::progress::ProgressArgs;
use clap::Args;
use msq_onnx::data::Dataset;
use msq_onnx::data::InputSpec;
use msq_onnx::metrics::OutputMetrics;
use msq_onnx::progress::Progress;
use msq_onnx::report::numbers;
use msq_onnx::report::outputs::{reading, text_note, warnings, words};
use msq_onnx::runtime::Runtime;
use msq_onnx::{Error, FixedInput, MeasureOptions, OutputChoice, contradicted, fix_alike};
use msq_passes::ir::Model;
use std::ffi::OsString;
use std::num::NonZero;
use std::path::Path;

/// The arguments, where `--output NAME=KIND` says what an output holds: `--output` is the name of a file otherwise.
pub(crate) fn with_output_kinds(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let is_kind = |text: &str| text.parse::<OutputChoice>().is_ok();
    let mut arguments: Vec<OsString> = arguments.collect();
    for at in 1..arguments.len() {
        let next = arguments.get(at + 1).and_then(|next| next.to_str()).is_some_and(is_kind);
        match arguments[at].to_str() {
            Some("--") => break,
            Some("--output") if next => arguments[at] = "--output-kind".into(),
            Some(own) => {
                if let Some(choice) = own.strip_prefix("--output=").filter(|choice| is_kind(choice)) {
                    arguments[at] = format!("--output-kind={choice}").into();
                }
            }
            None => {}
        }
    }
    arguments
}

/// Outputs that are listed at most.
const OUTPUTS: usize = 6;

/// Data, threads, and what every command takes.
#[derive(Args, Debug)]
pub(crate) struct MeasureArgs {
    #[command(flatten)]
    data: DataArgs,
    /// Make a constant of an input, with one value for all its elements or one for each, separated by commas, in every model
    /// that has it; so anyway where a model was quantized with it; may be given again
    #[arg(long, value_name = "NAME=VALUE", help_heading = "Data")]
    fix_input: Vec<FixedInput>,
    /// Threads [default: all cores]
    #[arg(long, value_name = "N", value_parser = output::parse_count)]
    threads: Option<NonZero<usize>>,
    /// Memory the engine may take, about: 500MB, 4GiB; models that take more run in stages
    #[arg(long, value_name = "SIZE", value_parser = output::parse_bytes)]
    memory: Option<u64>,
    #[command(flatten)]
    progress: ProgressArgs,
    #[command(flatten)]
    pub(crate) options: MeasureOptions,
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

impl MeasureArgs {
    /// Makes constants of inputs: of those that are asked for, and of those that one of the models was quantized with. Returns
    /// them.
    pub(crate) fn fix(&self, models: &mut [&mut Model]) -> anyhow::Result<Vec<FixedInput>> {
        let fixed = fix_alike(models, &self.fix_input).map_err(Error::from)?;
        if let (Some(path), Some(model)) = (self.data.path(), models.first()) {
            self.data.warn_of(&contradicted(model, &fixed, path));
        }
        Ok(fixed)
    }

    /// The data for a model; it has to be named.
    pub(crate) fn open(&self, model: &Model, command: &str) -> anyhow::Result<Dataset> {
        let data = self.data.open(&InputSpec::of(model))?;
        data.ok_or_else(|| Usage(format!("{command} needs data: add --calib PATH")).into())
    }

    /// What shows the progress of the run.
    pub(crate) fn progress(&self) -> Box<dyn Progress> {
        self.progress.shown(&self.common)
    }

    /// What the run may use, with this progress.
    pub(crate) fn runtime<'a>(&self, progress: &'a dyn Progress) -> Runtime<'a> {
        let runtime = self.threads.map_or_else(Runtime::default, |threads| Runtime::with_threads(threads.get()));
        runtime.memory(self.memory).progress(progress)
    }

    /// The files that are read besides models.
    pub(crate) fn reads(&self) -> impl Iterator<Item = &Path> {
        self.data.reads().chain(self.config.reads())
    }
}

/// Lines on the outputs: what each holds and how far it is from float, where there are several; the worst first. States have
/// one line.
pub(crate) fn output_lines(text: &mut String, outputs: &[OutputMetrics]) {
    if let [one] = outputs {
        line(text, "", &reading(one));
        return;
    }
    let mut sorted: Vec<&OutputMetrics> = outputs.iter().collect();
    sorted.sort_by(|a, b| a.state.cmp(&b.state).then(b.lost.total_cmp(&a.lost)));
    let states = sorted.iter().filter(|output| output.state).count();
    // States alone, or one of them, are outputs like any other.
    let folded =
        if states == sorted.len() || states == 1 { Vec::new() } else { sorted.split_off(sorted.len() - states) };
    for output in sorted.iter().take(OUTPUTS) {
        line(text, "", &format!("{} · {}", reading(output), words(output)));
    }
    if sorted.len() > OUTPUTS {
        line(text, "", &format!("and {} more (--json lists all)", sorted.len() - OUTPUTS));
    }
    if let Some(worst) = folded.first() {
        let count = folded.len();
        line(text, "", &format!("{count} states and caches, the worst of them `{}` · {}", worst.name, words(worst)));
    }
}

/// A line on the inputs that are constants.
pub(crate) fn fixed_line(text: &mut String, fixed: &[FixedInput]) {
    if !fixed.is_empty() {
        let said: Vec<String> = fixed.iter().map(|fixed| format!("`{}` at {}", fixed.input, fixed.value)).collect();
        line(text, "fixed", &said.join(" · "));
    }
}

/// A line on the outputs that are text.
pub(crate) fn text_line(text: &mut String, outputs: &[String]) {
    if let Some(note) = text_note(outputs) {
        line(text, "note", &note);
    }
}

/// Lines on how far a model is from another.
pub(crate) fn agreement(text: &mut String, outputs: &[OutputMetrics], lost: f64) {
    if let [one] = outputs {
        line(text, "output", &words(one));
    }
    output_lines(text, outputs);
    for warning in warnings(outputs) {
        line(text, "warning", &warning);
    }
    line(text, "lost", &format!("{} as --max-drop counts it", numbers::loss(lost, 2)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_hide_no_output() {
        let output = |name: &str, lost: f64, sqnr: f64, state: bool| -> OutputMetrics {
            let read = format!(
                r#"{{"name": "{name}", "kind": "values", "because": "as asked", "state": {state}, "lost": {lost},
                    "distance": {lost}, "sqnr": {sqnr}, "worst_sqnr": {sqnr}, "channels": 1}}"#
            );
            serde_json::from_str(&read).unwrap_or_else(|error| panic!("{error}"))
        };
        let states = (0..8).map(|at| output(&format!("present.{at}"), 0.01 + 0.01 * f64::from(at), 20.0, true));
        let mut outputs: Vec<OutputMetrics> = states.collect();
        outputs.push(output("logits", 0.0001, 40.0, false));
        let said = |outputs: &[OutputMetrics]| {
            let mut text = String::new();
            output_lines(&mut text, outputs);
            text
        };
        let text = said(&outputs);
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(
            text.starts_with("`logits`") && !text.contains("read as values: as asked · signal to noise 20.0"),
            "{text}"
        );
        assert!(
            text.contains("8 states and caches, the worst of them `present.7` · signal to noise 20.0 dB"),
            "{text}"
        );
        let text = said(&outputs[..8]);
        assert!(text.contains("`present.7` read as") && text.contains("and 2 more"), "{text}");
        let text = said(&outputs[7..]);
        assert!(text.contains("`present.7` read as") && !text.contains("states"), "{text}");
    }

    #[test]
    fn an_output_with_a_kind_is_no_file() {
        let rewritten = |line: &str| {
            let words = line.split(' ').map(OsString::from);
            with_output_kinds(words).iter().map(|word| word.to_str().unwrap_or_default()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            rewritten("msq m.onnx --output out.onnx --output a=values --output=b=boxes"),
            "msq m.onnx --output out.onnx --output-kind a=values --output-kind=b=boxes"
        );
        assert_eq!(rewritten("msq m.onnx --output a=b.onnx -o c=values"), "msq m.onnx --output a=b.onnx -o c=values");
    }
}
