//! Text for people: errors, numbers, lines of a summary. Nothing else in the crate prints.

use super::keys::as_flags;
use bytesize::ByteSize;
use msq_onnx::runtime::ErrorKind;
use std::io::Write;
use std::num::NonZero;
use std::process::ExitCode;

/// A mistake in how the command was called.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

/// Prints the error on one line and returns its exit code.
pub(crate) fn fail(error: &anyhow::Error) -> ExitCode {
    let causes: Vec<String> = error.chain().map(ToString::to_string).collect();
    // A transparent error repeats its source's text.
    let mut text = String::new();
    for cause in causes.iter().filter(|c| !c.is_empty()) {
        if !text.contains(cause.as_str()) {
            let separator = if text.is_empty() { "" } else { ": " };
            text = format!("{text}{separator}{cause}");
        }
    }
    let text = text.replace('\n', " ");
    let text = as_flags(&text);
    let _ = writeln!(std::io::stderr(), "error: {text}");
    let kind = if error.is::<Usage>() { ErrorKind::Usage } else { kind(error).unwrap_or(ErrorKind::Other) };
    ExitCode::from(exit_code(kind))
}

/// Prints how the command is called, and returns the exit code of a call that says too little.
pub(crate) fn explain(text: &str) -> ExitCode {
    let _ = std::io::stderr().write_all(text.as_bytes());
    ExitCode::from(exit_code(ErrorKind::Usage))
}

/// Whose fault an error of the library is, whichever of its enums it comes in.
fn kind(error: &anyhow::Error) -> Option<ErrorKind> {
    macro_rules! first_of {
        ($($error:ty),* $(,)?) => {
            None$(.or_else(|| error.downcast_ref::<$error>().map(|error| error.kind())))*
        };
    }
    first_of!(
        msq_onnx::Error,
        msq_onnx::calibrate::CalibrateError,
        msq_onnx::data::DataError,
        msq_onnx::engine::EngineError,
        msq_onnx::exchange::ExchangeError,
        msq_onnx::execute::ExecuteError,
        msq_onnx::measure::MeasureError,
        msq_onnx::prepare::PrepareError,
        msq_onnx::report::ReportError,
        msq_onnx::scheme::SchemeError,
        msq_onnx::search::SearchError,
        msq_onnx::solve::SolveError,
    )
}

/// The exit code of an error.
fn exit_code(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::Other => 1,
        ErrorKind::Usage => 2,
        ErrorKind::Model => 3,
        ErrorKind::Data => 4,
        ErrorKind::Cancelled => 130,
    }
}

/// Writes text to stdout; a reader that closed the pipe is no error.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|error| anyhow::anyhow!("cannot write to standard output: {error}")),
    }
}

/// A line of a summary: a heading and its text. What is longer than a terminal is wide is broken between its parts, or
/// between words where a part alone is longer.
pub(crate) fn line(text: &mut String, heading: &str, rest: &str) {
    const ROOM: usize = 80 - 11;
    let width = |text: &str| text.trim_end().chars().count();
    // A mention of an option is not found any more where it is broken.
    let rest = as_flags(rest);
    let pieces = rest
        .split_inclusive(" · ")
        .flat_map(|part| if width(part) <= ROOM { vec![part] } else { part.split_inclusive(' ').collect() });
    let mut rows = vec![String::new()];
    for piece in pieces {
        match rows.last_mut() {
            Some(row) if row.is_empty() || row.chars().count() + width(piece) <= ROOM => row.push_str(piece),
            _ => rows.push(piece.to_owned()),
        }
    }
    for (at, row) in rows.iter().enumerate() {
        text.extend([format!("{:<10} {row}", if at == 0 { heading } else { "" }).trim_end(), "\n"]);
    }
}

/// A number that is not 0.
pub(crate) fn parse_count(text: &str) -> Result<NonZero<usize>, String> {
    let number: usize = text.parse().map_err(|_| "expected a whole number of 1 or more".to_owned())?;
    NonZero::new(number).ok_or_else(|| "must be 1 or more".to_owned())
}

/// A size such as `500MB`, `4GiB` or `65536`.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let size: ByteSize = text.parse().map_err(|_| format!("`{text}` is no size such as 500MB or 4GiB"))?;
    if size.as_u64() > 0 { Ok(size.as_u64()) } else { Err("must be positive".to_owned()) }
}

/// A table whose columns are as wide as they must be; columns named in `right` are aligned right.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>], right: &[usize]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|r| r[column].chars().count());
        cells.chain([head[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut text = String::new();
    let head: Vec<String> = head.iter().map(|h| (*h).to_owned()).collect();
    for row in std::iter::once(&head).chain(rows) {
        let cells = row.iter().enumerate().map(|(i, cell)| {
            let pad = " ".repeat(widths[i] - cell.chars().count());
            if right.contains(&i) { format!("{pad}{cell}") } else { format!("{cell}{pad}") }
        });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_broken_between_words() {
        let said = |rest: &str| {
            let mut text = String::new();
            line(&mut text, "note", rest);
            text
        };
        assert_eq!(said("short"), "note       short\n");
        assert_eq!(said(""), "note\n");
        let (full, path) = ("x".repeat(69), "/".repeat(90));
        assert_eq!(said(&full), format!("note       {full}\n"));
        let broken = format!("note       a\n           {full}\n           b\n           {path}\n");
        assert_eq!(said(&format!("a {full} b {path}")), broken);
        let (long, next) = ("y".repeat(60), "to be kept");
        assert_eq!(said(&format!("{long} · {next} · z")), format!("note       {long} ·\n           {next} · z\n"));
    }

    #[test]
    fn sizes_are_read() {
        assert_eq!(parse_bytes("4GiB"), Ok(4 << 30));
        assert_eq!(parse_bytes("1.5MB"), Ok(1_500_000));
        assert_eq!(parse_bytes("65536"), Ok(65_536));
        assert!(parse_bytes("-1MB").is_err() && parse_bytes("many").is_err());
    }
}
