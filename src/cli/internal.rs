//! Bugs of ours: one line instead of what Rust prints of a panic.

use anyhow::anyhow;
use std::panic::{catch_unwind, set_hook};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

/// What the last panic said, and where.
static LAST: Mutex<String> = Mutex::new(String::new());

/// The exit code of `run`, or 1 and a line that says so if it panics. Nothing half-written stays behind then: files get
/// their names when they are complete.
pub(crate) fn guarded(run: fn() -> ExitCode) -> ExitCode {
    // Of panics of the engine, too, which are caught and become errors.
    set_hook(Box::new(|panic| {
        tracing::debug!("{panic}");
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let text = format!("{} ({place})", panic.payload_as_str().unwrap_or("panic"));
        *LAST.lock().unwrap_or_else(PoisonError::into_inner) = text;
    }));
    catch_unwind(run).unwrap_or_else(|_| {
        let text = LAST.lock().unwrap_or_else(PoisonError::into_inner);
        super::fail(&anyhow!("internal error: {text}; please report it"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// In a process of its own, since hooks are the process's.
    #[test]
    fn a_panic_is_one_line() {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["cli::internal::tests::child", "--exact", "--ignored", "--nocapture"]);
        let output = child.env("RUST_BACKTRACE", "1").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        let stderr = String::from_utf8(output.stderr).unwrap();
        let line = stderr.strip_suffix("; please report it\n").unwrap_or_default();
        assert!(line.starts_with("error: internal error: two lines (src/cli/internal.rs:"), "{stderr}");
    }

    #[test]
    #[ignore = "run by a_panic_is_one_line in a process of its own"]
    fn child() {
        let code = guarded(|| panic!("two\nlines"));
        assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::FAILURE));
    }
}
