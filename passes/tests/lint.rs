//! Every rule of the linter on two small graphs: one that breaks it, one that nearly does.
//!
//! A fixture is `testdata/lint/<rule>.onnxtxt`, its counterpart `<rule>-clean.onnxtxt`; `# with profile: NAME` at the
//! head names the target. A snapshot `<case>.snap` beside each holds all findings.

#![allow(clippy::unwrap_used)]

use msq_passes::Profile;
use msq_passes::ir::{Model, check, import, text};
use msq_passes::lint::{Finding, RULES, Severity, lint};
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/lint")
}

fn model(case: &str, fixture: &str) -> Model {
    let message = text::parse(fixture).unwrap_or_else(|e| panic!("{case}: {e}"));
    let model = import(message).unwrap_or_else(|e| panic!("{case}: {e}"));
    check(&model).unwrap_or_else(|e| panic!("{case}: {e}"));
    model
}

fn findings(case: &str) -> (Profile, Vec<Finding>) {
    let fixture = std::fs::read_to_string(folder().join(format!("{case}.onnxtxt"))).unwrap();
    let name = fixture.lines().next().and_then(|line| line.strip_prefix("# with profile: ")).unwrap();
    let profile = Profile::by_name(name).unwrap_or_else(|| panic!("{case}: no profile `{name}`"));
    (profile, lint(&model(case, &fixture), &profile))
}

fn snapshot(case: &str) -> Vec<Finding> {
    let (profile, found) = findings(case);
    let mut report = format!("for {}\n", profile.name);
    for Finding { rule, severity, site, message } in &found {
        report.extend([format!("{} {rule} `{site}`: {message}\n", severity.name())]);
    }
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(folder());
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(case, report));
    found
}

#[test]
fn every_rule_finds_what_breaks_it() {
    for rule in RULES {
        let broken = snapshot(rule.id);
        assert!(broken.iter().any(|f| f.rule == rule.id), "{} finds nothing", rule.id);
        let clean = snapshot(&format!("{}-clean", rule.id));
        assert_eq!(clean.iter().find(|f| f.rule == rule.id), None, "{} in its clean fixture", rule.id);
    }
}

#[test]
fn every_file_is_of_a_rule() {
    let known = |stem: &str| RULES.iter().any(|rule| rule.id == stem.strip_suffix("-clean").unwrap_or(stem));
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().and_then(|s| s.to_str()).unwrap_or_default();
        assert!(known(stem), "{} is of no rule", path.display());
    }
}

#[test]
fn every_rule_is_documented() {
    let page = std::fs::read_to_string(folder().join("../../docs/lint.md")).unwrap();
    for rule in RULES {
        assert!(page.contains(&format!("| `{}` |", rule.id)), "{} is not in docs/lint.md", rule.id);
        assert!(!rule.doc.is_empty());
    }
}

/// The columns *target* and *severity* of the table.
#[test]
fn the_documentation_says_where_rules_apply() {
    let page = std::fs::read_to_string(folder().join("../../docs/lint.md")).unwrap();
    for rule in RULES {
        let severities: Vec<_> = Profile::ALL.iter().filter_map(|p| Some((p.name, rule.severity(p)?))).collect();
        let of = |wanted| severities.iter().filter(move |(_, s)| *s == wanted).map(|(name, _)| *name);
        let all = severities.len() == Profile::ALL.len();
        let names = severities.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        let targets = if all { "all".to_owned() } else { names.replace("ort-cpu, ort-arm", "ort") };
        let errors: Vec<&str> = of(Severity::Error).collect();
        let severity = match (errors.len(), of(Severity::Warning).count()) {
            (0, _) => "warning".to_owned(),
            (_, 0) => "error".to_owned(),
            _ => format!("error for {}, else warning", errors.join(" and ")),
        };
        let row = format!("| `{}` | {targets} | {severity} |", rule.id);
        assert!(page.contains(&row), "docs/lint.md should say: {row}");
    }
}

#[test]
fn a_rule_applies_somewhere() {
    for rule in RULES {
        assert!(Profile::ALL.iter().any(|p| rule.severity(p).is_some()), "{} applies nowhere", rule.id);
        let kebab = rule.id.chars().all(|c| c.is_ascii_lowercase() || c == '-' || c.is_ascii_digit());
        assert!(kebab, "{} is not in kebab case", rule.id);
    }
}

#[test]
fn integer_operators_are_read_too() {
    const TEXT: &str = "<ir_version: 8, opset_import: [\"\": 17]>
net (uint8[1,4,8,8] x) => (uint8[1,4,8,8] y)
<float s = {0.5}, uint8 z = {3}, uint8[4,4,1,1] w = {}, float ws = {0}, uint8 wz = {128}>
{ [conv] y = QLinearConv (x, s, z, w, ws, wz, s, z) }";
    let found = lint(&model("QLinearConv", TEXT), &Profile::TENSORRT);
    let found: Vec<(&str, &str)> = found.iter().map(|f| (f.rule, f.site.as_str())).collect();
    let expected = [
        ("scale-value", "ws"),
        ("activation-type", "x"),
        ("activation-type", "y"),
        ("activation-zero-point", "x"),
        ("activation-zero-point", "y"),
        ("weight-type", "w"),
        ("weight-zero-point", "w"),
    ];
    assert_eq!(found, expected);
}
