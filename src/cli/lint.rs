//! `msq-onnx lint`: whether a quantized model is one its target runs as meant.

use super::CommonArgs;
use super::document::{self, this_run};
use super::output::{self, Usage, line};
use clap::Args;
use indexmap::IndexMap;
use msq_onnx::report::Document;
use msq_onnx::report::numbers::counted;
use msq_passes::Profile;
use msq_passes::lint::{Finding, Severity, lint};
use schemars::JsonSchema;
use std::path::PathBuf;
use std::process::ExitCode;

/// The most findings that are printed one by one, and the sites named of each kind where there are more.
const LISTED: usize = 20;
const NAMED: usize = 3;

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
        let all = args.common.verbose > 0;
        output::print(&text(&findings, (errors, warnings), profile.name, all))?;
    }
    Ok(if errors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A line for each finding; where there are many, a line for each kind, unless `all` are wanted.
fn text(findings: &[Finding], (errors, warnings): (usize, usize), profile: &str, all: bool) -> String {
    let mut text = String::new();
    let is_grouped = findings.len() > LISTED && !all;
    if is_grouped {
        for ((severity, rule, message), found) in grouped(findings) {
            let sites: Vec<String> = found.iter().take(NAMED).map(|finding| format!("`{}`", finding.site)).collect();
            let more = if found.len() > NAMED { ", …" } else { "" };
            let count = if found.len() > 1 { format!("{} × ", found.len()) } else { String::new() };
            // Of one finding all is said.
            let message = if let [one] = &found[..] { &one.message } else { &message };
            text.extend([format!("{severity} {rule} {count}{}{more}: {message}\n", sites.join(", "))]);
        }
    } else {
        for finding in findings {
            let Finding { rule, severity, site, message } = finding;
            text.extend([format!("{} {rule} `{site}`: {message}\n", severity.name())]);
        }
    }
    let summary = match (errors, warnings) {
        (0, 0) => "nothing to say".to_owned(),
        (n, 0) => counted(n, "error"),
        (0, n) => counted(n, "warning"),
        (e, w) => format!("{}, {}", counted(e, "error"), counted(w, "warning")),
    };
    let hint = if is_grouped { " · -v lists each" } else { "" };
    line(&mut text, "lint", &format!("{summary} for {profile}{hint}"));
    text
}

/// Severity, rule and message of findings that differ in names alone.
type Kind = (&'static str, &'static str, String);

/// Findings by kind, in the order of the first of each.
fn grouped(findings: &[Finding]) -> IndexMap<Kind, Vec<&Finding>> {
    let mut groups: IndexMap<Kind, Vec<&Finding>> = IndexMap::new();
    for finding in findings {
        let kind = (finding.severity.name(), finding.rule, nameless(&finding.message));
        groups.entry(kind).or_default().push(finding);
    }
    groups
}

/// A message with dots in the place of every name in backticks.
fn nameless(message: &str) -> String {
    let parts = message.split('`').enumerate();
    parts.map(|(at, part)| if at % 2 == 1 { "`…`" } else { part }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(site: usize, message: String) -> Finding {
        Finding { rule: "stays-float", severity: Severity::Warning, site: format!("n{site}"), message }
    }

    #[test]
    fn many_findings_are_grouped_by_kind() {
        let adds = (0..LISTED).map(|at| finding(at, format!("Add stays float: operand `v{at}` is float")));
        let mut findings: Vec<Finding> = adds.collect();
        let few = text(&findings, (0, LISTED), "ort-cpu", false);
        assert_eq!(few.lines().count(), LISTED + 1);
        findings.push(finding(99, "Sub stays float: `ort-cpu` has no kernel".to_owned()));
        let many = text(&findings, (0, findings.len()), "ort-cpu", false);
        let expected = "warning stays-float 20 × `n0`, `n1`, `n2`, …: Add stays float: operand `…` is float\n\
                        warning stays-float `n99`: Sub stays float: `ort-cpu` has no kernel\n\
                        lint       21 warnings for ort-cpu · -v lists each\n";
        assert_eq!(many, expected);
        assert_eq!(text(&findings, (0, findings.len()), "ort-cpu", true).lines().count(), findings.len() + 1);
    }
}
