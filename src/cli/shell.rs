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
        let mut text = std::fs::read(page.path())?;
        if page.file_name() == "msq-onnx.1" {
            text.extend(sections().into_bytes());
        }
        files.add(&folder.join(page.file_name()), &text)?;
    }
    Ok(files.commit()?)
}

/// The sections of a manual page that the help has as one text: examples, and what exit codes mean.
fn sections() -> String {
    let (examples, codes) = super::EXAMPLES.split_once("\n\nExit codes: ").unwrap_or((super::EXAMPLES, ""));
    let examples = examples.trim_start_matches("Examples:\n");
    let text = format!(".SH EXAMPLES\n.nf\n{examples}\n.fi\n.SH EXIT STATUS\n{codes}\n.br\n130 interrupted\n");
    text.replace('-', "\\-")
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
    let command = command.after_help(clap::builder::Resettable::Reset);
    if let Some(folder) = &args.folder {
        return write_pages(command, folder).with_context(|| format!("`{}`", folder.display()));
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page)?;
    page.extend(sections().into_bytes());
    output::print(&String::from_utf8(page)?)
}
