//! `msq-onnx completions` and `msq-onnx man`: what a package carries beside the binary.

use super::output;
use anyhow::Context;
use clap::{Args, Command};
use clap_complete::Shell;
use msq_passes::ir::FileSet;
use std::path::{Path, PathBuf};

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

/// Writes the pages of all commands, all of them or none.
fn write_pages(command: Command, folder: &Path) -> anyhow::Result<()> {
    let pages = tempfile::tempdir()?;
    clap_mangen::generate_to(command, pages.path())?;
    let mut files = FileSet::default();
    for page in std::fs::read_dir(pages.path())? {
        let page = page?;
        files.add(&folder.join(page.file_name()), &std::fs::read(page.path())?)?;
    }
    Ok(files.commit()?)
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
        return write_pages(command, folder).with_context(|| format!("`{}`", folder.display()));
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page)?;
    output::print(&String::from_utf8(page)?)
}
