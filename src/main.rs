//! The command line: parse, call the library, print the error.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
