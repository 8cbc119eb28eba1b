//! `msq-onnx lint`: whether a quantized model is one its target runs as meant.

use super::CommonArgs;
use super::document::{self, this_run};
use super::output::{self, Usage, line};
use clap::Args;
use msq_onnx::report::Document;
use msq_onnx::report::numbers::counted;
use msq_passes::Profile;
use msq_passes::lint::{Finding, Severity, lint};
use schemars::JsonSchema;
use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments of `lint`.
#[derive(Args, Debug)]
pub(crate) struct LintArgs {
    /// The quantized model, of this tool or another
    model: PathBuf,
    #[arg(long, alias = "target", value_name = "NAME", default_value = Profile::ORT_CPU.name, help = format!("The target: one of {}", Profile::names()))]
    profile: String,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
}

/// What `--json` prints.
#[derive(JsonSchema, serde::Serialize)]
pub(crate) struct Linted {
    /// The target.
    profile: String,
    /// Number of findings that are errors.
    errors: usize,
    /// Number of findings that are warnings.
    warnings: usize,
    /// The findings.
    findings: Vec<Finding>,
}

/// Shows what the rules find; fails where one of them is an error.
pub(crate) fn run(args: &LintArgs) -> anyhow::Result<ExitCode> {
    let Some(profile) = Profile::by_name(&args.profile) else {
        return Err(Usage(format!("there is no profile `{}`; there are {}", args.profile, Profile::names())).into());
    };
    let model = msq_onnx::load(&args.model)?;
    msq_passes::ir::check(&model).map_err(msq_onnx::prepare::PrepareError::from).map_err(msq_onnx::Error::from)?;
    let findings = lint(&model, &profile);
    let count = |severity| findings.iter().filter(|f| f.severity == severity).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    if args.common.json {
        let found = Linted { profile: profile.name.to_owned(), errors, warnings, findings };
        output::print(&document::text(&Document::new(this_run(&args.model, None, None), found))?)?;
    } else if !args.common.quiet {
        output::print(&text(&findings, errors, warnings, profile.name))?;
    }
    Ok(if errors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn text(findings: &[Finding], errors: usize, warnings: usize, profile: &str) -> String {
    let mut text = String::new();
    for finding in findings {
        let Finding { rule, severity, site, message } = finding;
        text.extend([format!("{} {rule} `{site}`: {message}\n", severity.name())]);
    }
    let summary = match (errors, warnings) {
        (0, 0) => "nothing to say".to_owned(),
        (n, 0) => counted(n, "error"),
        (0, n) => counted(n, "warning"),
        (e, w) => format!("{}, {}", counted(e, "error"), counted(w, "warning")),
    };
    line(&mut text, "lint", &format!("{summary} for {profile}"));
    text
}
