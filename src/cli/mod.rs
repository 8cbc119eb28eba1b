//! Arguments and sub-commands, one file each.

mod calibrate;
mod compare;
mod config;
mod data;
mod document;
mod evaluate;
mod export_encodings;
mod form;
mod given;
mod inspect;
mod internal;
mod interrupt;
mod keys;
mod lint;
mod measure;
mod output;
mod passes;
mod paths;
mod print;
mod processes;
mod progress;
mod quantize;
mod run;
mod schema;
mod search;
mod shell;
mod summary;
mod version;

use clap::error::{ContextKind, ContextValue};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use output::{Usage, fail};
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  msq-onnx model.onnx -o small.onnx --calib images/ --preset imagenet
  msq-onnx model.onnx -o small.onnx --calib calib.npz --target-ratio 12
  msq-onnx inspect model.onnx
  msq-onnx evaluate small.onnx --reference model.onnx --calib test.npz

Exit codes: 0 done, 1 failed, 2 bad usage, 3 the model is invalid or
unsupported, 4 the calibration data does not fit, 5 the target is out of
reach (the nearest model is written)";

/// Makes float ONNX models small and fast without retraining.
#[derive(Parser, Debug)]
#[command(name = "msq-onnx", version, long_version = version::LONG.as_str(), after_help = EXAMPLES)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    quantize: quantize::QuantizeArgs,
}

#[derive(Subcommand, Debug)]
// One value exists, for the length of a run.
#[allow(clippy::large_enum_variant)]
enum Command {
    /// Search for the bits of every layer, and show size against accuracy without writing a model
    Search(search::SearchCommand),
    /// List layers, shapes, weights, MACs, and what can be quantized and what not, and why
    Inspect(inspect::InspectArgs),
    /// Check a quantized model for a target: what it refuses, runs slowly, or leaves in float
    Lint(lint::LintArgs),
    /// Write the scales and zero points of a quantized model for other tools
    ExportEncodings(export_encodings::ExportEncodingsArgs),
    /// Look at the activations for a part of the data, on one of several machines; --statistics takes all parts
    Calibrate(calibrate::CalibrateArgs),
    /// Write the model in the ONNX textual syntax
    Print(print::PrintArgs),
    /// Accuracy with labels, agreement with a reference, error of each layer
    Evaluate(evaluate::EvaluateArgs),
    /// Two models side by side: sizes, bits, outputs, and the layer at which they part
    Compare(compare::CompareArgs),
    /// Print a file of options for --config
    Config(config::ConfigCommand),
    /// Print completions for a shell
    Completions(shell::CompletionsArgs),
    /// Print the manual page, or write those of all commands
    Man(shell::ManArgs),
    /// Print the JSON schema of what a command prints with --json
    Schema(schema::SchemaArgs),
}

/// The command line: what is declared here and in the library's structs of options, and what follows from its lists.
fn command() -> clap::Command {
    let searching: Vec<clap::Id> = given::ids::<search::SearchArgs>().collect();
    let completed = |command| search::completed(form::completed(command, &searching));
    let command = completed(Cli::command()).mut_subcommand("search", completed);
    let command = command.mut_subcommand("calibrate", |command| form::completed(command, &[]));
    plain(command.mut_subcommands(plain))
}

/// Help is plain text: doc comments have backticks for readers of the library.
fn plain(command: clap::Command) -> clap::Command {
    let text = |text: &clap::builder::StyledStr| text.to_string().replace('`', "");
    command.mut_args(|arg| match (arg.get_help().map(text), arg.get_long_help().map(text)) {
        (Some(help), Some(long)) => arg.help(help).long_help(long),
        (Some(help), None) => arg.help(help),
        _ => arg,
    })
}

impl Cli {
    fn of(arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> Result<Self, clap::Error> {
        let mut command = command();
        let mut matches = command.try_get_matches_from_mut(arguments)?;
        Self::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
    }
}

/// What every command takes.
#[derive(Args, Clone, Debug)]
struct CommonArgs {
    /// Print one JSON document instead of text
    #[arg(long)]
    json: bool,
    /// Print nothing but errors
    #[arg(long, short, conflicts_with = "verbose")]
    quiet: bool,
    /// Log what happens; twice for more
    #[arg(long, short, action = clap::ArgAction::Count)]
    verbose: u8,
}

/// Runs the command line.
pub(crate) fn main() -> ExitCode {
    internal::guarded(run)
}

fn run() -> ExitCode {
    let (arguments, rank) = processes::ranked(std::env::args_os());
    if arguments.len() < 2 {
        return output::explain(&overview());
    }
    let arguments = measure::with_output_kinds(arguments.into_iter());
    let mut cli = match mistyped(&arguments)
        .or_else(|| second(&arguments))
        .map_or_else(|| config::arguments(arguments), |usage| Err(usage.into()))
    {
        Ok(arguments) => Cli::of(arguments).unwrap_or_else(|error| error.exit()),
        Err(error) => return fail(&error),
    };
    if let Some(command) = cli.command {
        return run_command(command);
    }
    cli.quantize.become_process(rank);
    log(&cli.quantize.common);
    quantize::run(&cli.quantize).unwrap_or_else(|e| fail(&e))
}

/// What the tool does and which commands it has, for a call without arguments.
fn overview() -> String {
    const TEMPLATE: &str = "\
{about}

Usage: msq-onnx <MODEL> -o <OUTPUT> [--calib <DATA>] [OPTIONS]
       msq-onnx <COMMAND>

Commands:
{subcommands}

{after-help}

`msq-onnx --help` lists all options.
";
    command().help_template(TEMPLATE).render_help().to_string()
}

/// What to say of a second argument without a flag, where the first is a model.
fn second(arguments: &[OsString]) -> Option<Usage> {
    let [_, first, second, ..] = arguments else { return None };
    let (model, other) = (first.to_str()?, second.to_str()?);
    let is_command = command().find_subcommand(model).is_some();
    (!is_command && !model.starts_with('-') && !other.starts_with('-')).then(|| {
        Usage(format!("`{other}` stands behind a model: data are given by --calib {other}, the output by -o {other}"))
    })
}

/// What to say of a first argument that is meant for a command: no flag, no command, no file, and no name of one.
fn mistyped(arguments: &[OsString]) -> Option<Usage> {
    let first = arguments.get(1)?.to_str()?;
    let cli = command();
    let is_other = first.starts_with('-') || first.contains(['.', '/', '\\']) || Path::new(first).exists();
    if is_other || first == "help" || cli.find_subcommand(first).is_some() {
        return None;
    }
    // Without models to take it for, clap knows which command is alike.
    let commands = clap::Command::new("msq-onnx").subcommands(cli.get_subcommands().cloned());
    let error = commands.try_get_matches_from(["msq-onnx", first]).err()?;
    let alike = match error.get(ContextKind::SuggestedSubcommand) {
        Some(ContextValue::Strings(names)) => names.first().map(|name| format!("; did you mean `{name}`?")),
        _ => None,
    };
    Some(Usage(format!("`{first}` is neither a command nor a file{}", alike.unwrap_or_default())))
}

fn run_command(command: Command) -> ExitCode {
    let result = match command {
        Command::Search(args) => {
            log(&args.common);
            return search::run(&args).unwrap_or_else(|e| fail(&e));
        }
        Command::Inspect(args) => {
            log(&args.common);
            inspect::run(&args)
        }
        Command::Lint(args) => {
            log(&args.common);
            return lint::run(&args).unwrap_or_else(|e| fail(&e));
        }
        Command::ExportEncodings(args) => {
            log(&args.common);
            export_encodings::run(&args)
        }
        Command::Calibrate(args) => {
            log(&args.common);
            calibrate::run(&args)
        }
        Command::Print(args) => print::run(&args),
        Command::Compare(args) => {
            log(&args.measure.common);
            compare::run(&args)
        }
        Command::Config(args) => config::run(&args),
        Command::Completions(args) => shell::completions(&args),
        Command::Man(args) => shell::man(&args),
        Command::Schema(args) => schema::run(&args),
        Command::Evaluate(args) => {
            log(&args.measure.common);
            evaluate::run(&args)
        }
    };
    result.map_or_else(|e| fail(&e), |()| ExitCode::SUCCESS)
}

/// Logs of the library go to stderr: warnings unless asked for more or less; `RUST_LOG` overrides.
fn log(common: &CommonArgs) {
    use tracing_subscriber::EnvFilter;
    // What the engine logs is for its developers; its errors reach ours.
    let filter = match (common.quiet, common.verbose) {
        (true, _) => "error",
        (_, 0) => "error,msq_onnx=warn,msq_passes=warn",
        (_, 1) => "error,msq_onnx=info,msq_passes=info",
        _ => "warn,msq_onnx=debug,msq_passes=debug",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(filter));
    let color = std::io::IsTerminal::is_terminal(&std::io::stderr())
        && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| keys::Log)
        .with_ansi(color)
        .without_time()
        .with_target(false)
        .finish();
    // Fails only if a logger is set already, which nothing does before.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Other tools call it so.
    #[test]
    fn a_target_is_a_profile() {
        let cli = Cli::of(["msq-onnx", "a.onnx", "-o", "b.onnx", "--target", "qnn"]);
        assert!(cli.is_ok(), "{cli:?}");
        assert!(Cli::of(["msq-onnx", "lint", "a.onnx", "--target", "qnn"]).is_ok());
    }
}
