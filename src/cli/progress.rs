//! Progress bars on a terminal, silence elsewhere.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use msq_onnx::progress::Progress;
use std::sync::{Mutex, PoisonError};

/// One bar at a time, with the time left.
pub(crate) struct Bars {
    bar: Mutex<ProgressBar>,
    visible: bool,
}

impl Bars {
    /// Bars on stderr if it is a terminal and `visible` says so.
    pub(crate) fn new(visible: bool) -> Self {
        Self { bar: Mutex::new(ProgressBar::hidden()), visible }
    }
}

impl Progress for Bars {
    fn begin(&self, phase: &'static str, steps: u64) {
        let mut bar = self.bar.lock().unwrap_or_else(PoisonError::into_inner);
        bar.finish_and_clear();
        if !self.visible {
            return;
        }
        *bar = ProgressBar::with_draw_target(Some(steps), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{msg:<10} {bar:30} {pos}/{len} · {eta} left") {
            bar.set_style(style);
        }
        bar.set_message(phase);
    }

    fn advance(&self, steps: u64) {
        self.bar.lock().unwrap_or_else(PoisonError::into_inner).inc(steps);
    }

    fn end(&self) {
        self.bar.lock().unwrap_or_else(PoisonError::into_inner).finish_and_clear();
    }
}
