//! Panics of a back end as errors: what a model file asks of it is not ours to foresee.
//!
//! The panic hook hears of them first; the command line's says nothing. A panic leaves the state it met in disorder:
//! whoever gets such an error lets go of the plan or session. Running out of memory ends the process and is no panic.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The result of `work`; `error` of what it said if it panics.
pub(super) fn contained<T, E>(work: impl FnOnce() -> Result<T, E>, error: impl FnOnce(String) -> E) -> Result<T, E> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(error(stopped(&*panic))))
}

/// What a panic said, in one line.
pub(crate) fn stopped(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or_default();
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let colon = if text.is_empty() { "" } else { ": " };
    format!("the engine stopped unexpectedly{colon}{text}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::EngineError;

    fn said(work: impl FnOnce() -> Result<(), EngineError>) -> String {
        contained(work, |reason| EngineError::Run { reason }).unwrap_err().to_string()
    }

    #[test]
    fn panics_become_errors_of_one_line() {
        let index = std::hint::black_box(7);
        let said_by_index = said(|| Err(EngineError::Load { reason: vec!["a"][index].to_owned() }));
        assert!(said_by_index.ends_with("stopped unexpectedly: index out of bounds: the len is 1 but the index is 7"));
        assert!(said(|| panic!("two\n  lines")).ends_with("stopped unexpectedly: two lines"));
        assert!(said(|| std::panic::panic_any(7)).ends_with("stopped unexpectedly"));
    }

    #[test]
    fn errors_and_results_pass() {
        assert_eq!(contained(|| Ok(7), |reason| EngineError::Run { reason }).unwrap(), 7);
        assert_eq!(said(|| Err(EngineError::Cancelled)), "cancelled");
    }
}
