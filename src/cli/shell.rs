//! `msq-onnx completions` and `msq-onnx man`: what a package carries beside the binary.

use super::output;
use anyhow::Context;
use clap::Args;
use clap_complete::Shell;
use std::path::PathBuf;

/// Arguments of `completions`.
#[derive(Args, Debug)]
pub(crate) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// Prints the completions of a shell.
pub(crate) fn completions(args: &CompletionsArgs) -> anyhow::Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut super::command(), "msq-onnx", &mut text);
    output::print(&String::from_utf8(text)?)
}

/// Arguments of `man`.
#[derive(Args, Debug)]
pub(crate) struct ManArgs {
    /// Write the pages of all commands into this folder instead of printing the first
    #[arg(value_name = "DIR")]
    folder: Option<PathBuf>,
}

/// Prints or writes manual pages.
pub(crate) fn man(args: &ManArgs) -> anyhow::Result<()> {
    // The long version tells of this machine; `help` has no page.
    let command = super::command().long_version(None::<&str>).disable_help_subcommand(true);
    if let Some(folder) = &args.folder {
        return clap_mangen::generate_to(command, folder).with_context(|| format!("`{}`", folder.display()));
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page)?;
    output::print(&String::from_utf8(page)?)
}
