//! Keys of options in messages of the library, as the flags that they are on the command line.
//!
//! The library writes ``option `solver` `` and ``option `solver=round` ``, which become `--solver` and `--solver round`,
//! and ``command `inspect` ``, which becomes `` `msq-onnx inspect` ``. Other names in backticks, of layers and tensors, are
//! left as they are.

use regex::{Captures, Regex};
use std::borrow::Cow;
use std::collections::HashSet;
use std::io::{Result, Write};
use std::sync::LazyLock;

/// A mention of an option, with or without a value, or of a command.
static MENTION: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new("(option|command) `([a-z][a-z-]*)(?:=([^`]*))?`").ok());

/// The names of all flags and commands.
static KNOWN: LazyLock<HashSet<String>> = LazyLock::new(|| {
    let command = super::command();
    let commands = command.get_subcommands().map(clap::Command::get_name);
    let flags = [&command].into_iter().chain(command.get_subcommands()).flat_map(clap::Command::get_arguments);
    commands.chain(flags.filter_map(clap::Arg::get_long)).map(str::to_owned).collect()
});

/// The text with flags in the place of keys.
pub(crate) fn as_flags(text: &str) -> Cow<'_, str> {
    let Some(mention) = &*MENTION else { return text.into() };
    mention.replace_all(text, |found: &Captures| {
        let name = &found[2];
        match (&found[1], found.get(3)) {
            _ if !KNOWN.contains(name) => found[0].to_owned(),
            ("command", _) => format!("`msq-onnx {name}`"),
            (_, Some(value)) => format!("--{name} {}", value.as_str()),
            (_, None) => format!("--{name}"),
        }
    })
}

/// Standard error, for the lines of a log.
pub(crate) struct Log;

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> Result<usize> {
        std::io::stderr().write_all(as_flags(&String::from_utf8_lossy(line)).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> Result<()> {
        std::io::stderr().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::as_flags;

    #[test]
    fn keys_become_flags() {
        for (text, flags) in [
            ("use option `solver=round`", "use --solver round"),
            ("left float by option `skip=a.*[\\\"b]`", "left float by --skip a.*[\\\"b]"),
            ("another target (option `profile`) or form", "another target (--profile) or form"),
            ("command `inspect` lists them", "`msq-onnx inspect` lists them"),
            ("layer `skip` reads `output`; option `nosuch`", "layer `skip` reads `output`; option `nosuch`"),
        ] {
            assert_eq!(as_flags(text), flags);
        }
    }
}
