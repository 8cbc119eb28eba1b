//! Progress on stderr: bars on a terminal, or lines for programs.

use super::CommonArgs;
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use msq_onnx::progress::{Progress, Silent};
use serde::Serialize;
use std::io::Write;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The flag for how progress is shown.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct ProgressArgs {
    /// How progress is shown on stderr: bars, on a terminal only; or lines, each a JSON object with the phase, the steps
    /// done and their number
    #[arg(long, value_name = "FORM", value_enum, default_value_t = Form::Bars, conflicts_with = "quiet")]
    progress: Form,
}

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    Bars,
    Lines,
}

impl ProgressArgs {
    /// What shows progress of a command with these flags.
    pub(crate) fn shown(self, common: &CommonArgs) -> Box<dyn Progress> {
        match self.progress {
            Form::Lines => Box::new(Lines(Mutex::default())),
            Form::Bars if common.quiet || common.json => Box::new(Silent),
            Form::Bars => Box::new(Bars(Mutex::new(ProgressBar::hidden()))),
        }
    }
}

/// One bar at a time, with the time left.
struct Bars(Mutex<ProgressBar>);

impl Progress for Bars {
    fn begin(&self, phase: &'static str, steps: u64) {
        let mut bar = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        bar.finish_and_clear();
        *bar = ProgressBar::with_draw_target(Some(steps), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{msg:<10} {bar:30} {pos}/{len} · {eta} left") {
            bar.set_style(style);
        }
        bar.set_message(phase);
    }

    fn advance(&self, steps: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).inc(steps);
    }

    fn end(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).finish_and_clear();
    }
}

/// The least time between two lines of a phase, its first and last excepted.
const INTERVAL: Duration = Duration::from_millis(100);

/// Lines of JSON: where each phase begins and ends, and a few between.
struct Lines(Mutex<Option<Line>>);

/// Where a phase is.
#[derive(Serialize)]
struct Line {
    /// Name of the phase.
    phase: &'static str,
    /// Steps that are done.
    done: u64,
    /// Steps of the phase.
    steps: u64,
    #[serde(skip)]
    written: Instant,
}

impl Line {
    /// Writes the line; who has closed stderr gets none.
    fn write(&mut self) {
        self.written = Instant::now();
        if let Ok(line) = serde_json::to_string(self) {
            let _ = writeln!(std::io::stderr(), "{line}");
        }
    }
}

impl Progress for Lines {
    fn begin(&self, phase: &'static str, steps: u64) {
        let mut line = Line { phase, done: 0, steps, written: Instant::now() };
        line.write();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(line);
    }

    fn advance(&self, steps: u64) {
        if let Some(line) = self.0.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            line.done += steps;
            if line.done >= line.steps || line.written.elapsed() >= INTERVAL {
                line.write();
            }
        }
    }
}
