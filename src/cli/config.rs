//! `--config`: options from a TOML file, and `msq-onnx config`, which prints such a file.
//!
//! Keys are the long names of flags. A key becomes the arguments its flag would be, put before those of the user, and
//! clap parses them all: types, choices and conflicts are those of the flags, and no second list of them exists. A key
//! whose flag is given on the command line, or conflicts with one given, is left out, so that the command line wins.

use super::output::{self, Usage};
use clap::builder::PossibleValue;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, Command};
use std::any::TypeId;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use toml::{Spanned, Value};

/// The flag for a file of options.
#[derive(Args, Debug)]
pub(crate) struct ConfigArgs {
    /// Options from a TOML file, as `msq-onnx config --defaults` prints one; flags given here win
    #[arg(long, value_name = "PATH")]
    config: Option<PathBuf>,
}

impl ConfigArgs {
    /// The file it names.
    pub(crate) fn reads(&self) -> impl Iterator<Item = &Path> {
        self.config.iter().map(PathBuf::as_path)
    }
}

/// Arguments of `config`.
#[derive(Args, Debug)]
pub(crate) struct ConfigCommand {
    /// Print all options with their defaults, commented out
    #[arg(long, required = true)]
    defaults: bool,
    /// The command whose options are meant, if not quantizing
    #[arg(value_parser = ["search", "evaluate", "compare"])]
    command: Option<String>,
}

/// Prints a file of options.
pub(crate) fn run(args: &ConfigCommand) -> anyhow::Result<()> {
    let command = super::command();
    let chosen = args.command.as_ref().and_then(|name| command.find_subcommand(name));
    output::print(&defaults(chosen.unwrap_or(&command)))
}

/// A key of the file.
struct Setting<'a> {
    arg: &'a Arg,
    arguments: Vec<OsString>,
}

/// The arguments, the program's name first, with those from the file that `--config` names.
pub(crate) fn arguments(own: Vec<OsString>) -> anyhow::Result<Vec<OsString>> {
    let cli = super::command();
    let Ok(matches) = cli.clone().ignore_errors(true).try_get_matches_from(&own) else {
        return Ok(own); // Help or the version is asked for.
    };
    // A sub-command stands first: behind a flag its name is that of a model.
    let (command, given, start) = match matches.subcommand() {
        Some((name, given)) => (cli.find_subcommand(name).unwrap_or(&cli), given, 2),
        None => (&cli, &matches, 1),
    };
    let Ok(Some(path)) = given.try_get_one::<PathBuf>("config") else { return Ok(own) };
    let (head, rest) = own.split_at(start);
    let mistake = |arguments: &[&[OsString]]| mistake(&cli, &[&[head], arguments].concat());
    let mut settings = read(path, command, &mistake)?;
    settings.retain(|setting| {
        let conflicts =
            || mistake(&[&setting.arguments, rest]).is_some_and(|e| e.kind() == ErrorKind::ArgumentConflict);
        !(is_given(setting.arg, given) || conflicts())
    });
    let settings: Vec<OsString> = settings.into_iter().flat_map(|setting| setting.arguments).collect();
    if let Some(error) = mistake(&[&settings]) {
        return Err(Usage(format!("`{}`: {}", path.display(), one_line(&error))).into());
    }
    Ok([head, &settings, rest].concat())
}

/// What clap has to say against these arguments, but that some are missing.
fn mistake(cli: &Command, arguments: &[&[OsString]]) -> Option<clap::Error> {
    let error = cli.clone().try_get_matches_from(arguments.concat()).err()?;
    (error.kind() != ErrorKind::MissingRequiredArgument).then_some(error)
}

fn is_given(arg: &Arg, given: &ArgMatches) -> bool {
    given.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine)
}

/// Reads the file; each key is in order by itself.
fn read<'a>(
    path: &Path,
    command: &'a Command,
    mistake: &impl Fn(&[&[OsString]]) -> Option<clap::Error>,
) -> Result<Vec<Setting<'a>>, Usage> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Usage(format!("`{}`: cannot read the options: {error}", path.display())))?;
    let line = |offset: usize| 1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count();
    let at = |line: usize, reason: &str| Usage(format!("`{}` line {line}: {reason}", path.display()));
    let table: BTreeMap<Spanned<String>, Value> =
        toml::from_str(&text).map_err(|error| at(line(error.span().map_or(0, |span| span.start)), error.message()))?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let setting = |(key, value): (Spanned<String>, Value)| {
        let (line, key) = (line(key.span().start), key.as_ref());
        let Some(arg) = options(command).find(|arg| arg.get_long() == Some(key)) else {
            return Err(at(line, &unknown(key, command, mistake)));
        };
        let arguments = translated(arg, &value, folder)
            .map_err(|expected| at(line, &format!("`{key}` is of type {}; expected {expected}", value.type_str())))?;
        match mistake(&[&arguments]) {
            Some(error) => Err(at(line, &one_line(&error))),
            None => Ok(Setting { arg, arguments }),
        }
    };
    let mut keys: Vec<_> = table.into_iter().collect();
    keys.sort_by_key(|(key, _)| key.span().start);
    keys.into_iter().map(setting).collect()
}

/// The options of a command that may stand in a file.
fn options(command: &Command) -> impl Iterator<Item = &Arg> {
    let one_off = ["config", "print-passes"];
    command.get_arguments().filter(move |arg| arg.get_long().is_some_and(|name| !one_off.contains(&name)))
}

fn unknown(key: &str, command: &Command, mistake: &impl Fn(&[&[OsString]]) -> Option<clap::Error>) -> String {
    // Clap knows which flag is alike.
    let error = mistake(&[&[format!("--{key}").into()]]);
    let alike = match error.as_ref().and_then(|error| error.get(ContextKind::SuggestedArg)) {
        Some(ContextValue::String(flag)) => {
            options(command).filter_map(Arg::get_long).find(|name| flag.strip_prefix("--") == Some(name))
        }
        _ => None,
    };
    let alike = alike.map_or_else(String::new, |name| format!("; did you mean `{name}`?"));
    format!("`{key}` is no option of `{}`{alike}", command.get_name())
}

/// The arguments a value stands for, or what the value should be.
fn translated(arg: &Arg, value: &Value, folder: &Path) -> Result<Vec<OsString>, &'static str> {
    let flag = format!("--{}", arg.get_long().unwrap_or_default());
    match (arg.get_action(), value) {
        (ArgAction::SetTrue | ArgAction::SetFalse, Value::Boolean(set)) => Ok(vec![flag.into(); usize::from(*set)]),
        (ArgAction::SetTrue | ArgAction::SetFalse, _) => Err("true or false"),
        (ArgAction::Count, Value::Integer(times @ 0..=9)) => Ok(vec![flag.into(); *times as usize]),
        (ArgAction::Count, _) => Err("a number from 0 to 9"),
        (ArgAction::Append, Value::Array(values)) => {
            values.iter().map(|value| argument(&flag, arg, value, folder)).collect()
        }
        (_, value) => Ok(vec![argument(&flag, arg, value, folder)?]),
    }
}

fn argument(flag: &str, arg: &Arg, value: &Value, folder: &Path) -> Result<OsString, &'static str> {
    let value: OsString = match value {
        Value::String(path) if is_a::<PathBuf>(arg) => folder.join(path).into(),
        Value::String(text) => text.into(),
        Value::Integer(number) if !is_text(arg) => number.to_string().into(),
        Value::Float(number) if !is_text(arg) => number.to_string().into(),
        _ => return Err(expected(arg)),
    };
    let mut argument = OsString::from(format!("{flag}="));
    argument.push(value);
    Ok(argument)
}

fn expected(arg: &Arg) -> &'static str {
    let list = matches!(arg.get_action(), ArgAction::Append);
    match value_name(arg) {
        _ if is_text(arg) && list => "a string or a list of strings",
        _ if is_text(arg) => "a string",
        name if is_number(name) && list => "a list of numbers",
        name if is_number(name) => "a number",
        _ if list => "a list of numbers and strings",
        _ => "a number or a string",
    }
}

fn value_name(arg: &Arg) -> &str {
    arg.get_value_names().and_then(|names| names.first()).map_or("VALUE", |name| name.as_str())
}

/// Whether help has this name for numbers.
fn is_number(name: &str) -> bool {
    matches!(name, "N" | "F" | "A,B,C")
}

fn is_text(arg: &Arg) -> bool {
    is_a::<PathBuf>(arg) || is_a::<String>(arg)
}

fn is_a<T: 'static>(arg: &Arg) -> bool {
    arg.get_value_parser().type_id() == TypeId::of::<T>()
}

/// What clap says, without its hints on usage.
fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let reason = text.split("\n\n").next().unwrap_or_default();
    reason.trim_start_matches("error: ").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A file with every option of a command, each commented out.
fn defaults(command: &Command) -> String {
    let mut text = format!(
        "# Options of `{}`, for `--config`; take the `#` away before those to set.\n\
         # Keys are the long names of flags. Flags on the command line win. Paths are relative to this file.\n",
        command.get_name()
    );
    let mut headings: Vec<Option<&str>> = Vec::new();
    for heading in options(command).map(Arg::get_help_heading) {
        if !headings.contains(&heading) {
            headings.push(heading);
        }
    }
    for heading in headings {
        text.extend(["\n\n## ", heading.unwrap_or("Options"), "\n"]);
        text.extend(options(command).filter(|arg| arg.get_help_heading() == heading).map(entry));
    }
    text
}

/// An option: its help, its choices, and its default, or the name of its value where it has none.
fn entry(arg: &Arg) -> String {
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let choices: Vec<_> = if arg.get_action().takes_values() { arg.get_possible_values() } else { Vec::new() };
    let choices: Vec<&str> = choices.iter().map(PossibleValue::get_name).collect();
    let choices = if choices.is_empty() { String::new() } else { format!(": {}", choices.join(", ")) };
    let value = match arg.get_action() {
        ArgAction::SetTrue | ArgAction::SetFalse => "false".to_owned(),
        ArgAction::Count => "0".to_owned(),
        ArgAction::Append => format!("[{}]", default(arg)),
        _ => default(arg),
    };
    format!("\n# {help}{choices}\n#{} = {value}\n", arg.get_long().unwrap_or_default())
}

fn default(arg: &Arg) -> String {
    let quoted = |text: &str| Value::from(text).to_string();
    match (arg.get_default_values().first().map(|default| default.to_string_lossy()), value_name(arg)) {
        (Some(number), _) if number.parse::<f64>().is_ok() => number.into_owned(),
        (Some(text), _) => quoted(&text),
        (None, name) if is_number(name) => name.to_owned(),
        (None, name) => quoted(name),
    }
}

#[cfg(test)]
mod tests;
