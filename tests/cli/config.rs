//! Options in a file, and what a package carries.

use crate::common::{Scratch, args, digits, msq};

/// Relative paths are those of the file's folder, not of the run's; the bytes are those of the flags.
#[test]
fn a_file_does_what_its_flags_do() {
    let scratch = Scratch::new();
    std::fs::copy(digits("calib.npz"), scratch.path("calib.npz")).unwrap();
    let file = scratch.write(
        "msq.toml",
        "calib = 'calib.npz'\noutput = 'out/file.onnx'\nsamples = 32\nverify = 0\nweight-bits = 3\nquiet = true\n\
         skip = ['head']\nhalf-scales = true",
    );
    msq(args![digits("digits.onnx"), "--config", file, "--skip", "stem.conv"]).ok();
    let flags = scratch.out("flags.onnx");
    let flags = args![
        digits("digits.onnx"),
        "-o",
        flags,
        "--calib",
        digits("calib.npz"),
        "--samples",
        "32",
        "--verify",
        "0",
        "--weight-bits",
        "3",
        "-q",
        "--skip",
        "stem.conv",
        "--half-scales"
    ];
    msq(flags).ok();
    assert_eq!(scratch.outputs(), ["file.onnx", "flags.onnx"]);
    let bytes = |name| std::fs::read(scratch.out(name)).unwrap();
    assert!(bytes("file.onnx") == bytes("flags.onnx"));
}

#[test]
fn evaluate_takes_a_file() {
    let scratch = Scratch::new();
    let file = scratch.write("msq.toml", "json = true\nsamples = 8");
    let evaluated = msq(args!["evaluate", digits("digits.onnx"), "--config", file, "--calib", digits("test.npz")]).ok();
    assert_eq!(evaluated.json()["samples"], 8);
}

#[test]
fn mistakes_in_a_file_are_one_line() {
    let scratch = Scratch::new();
    let refused = |name: &str| {
        let run = msq(args![digits("digits.onnx"), "-o", scratch.out("o.onnx"), "--config", scratch.path(name)]);
        run.error(2).to_owned()
    };
    scratch.write("msq.toml", "seed = 1\nweight-bit = 4");
    let line = refused("msq.toml");
    assert!(line.contains("msq.toml` line 2: `weight-bit`") && line.contains("mean `weight-bits`?"), "{line}");
    scratch.write("msq.toml", "seed = ");
    assert!(refused("msq.toml").contains("msq.toml` line 1: "));
    scratch.write("msq.toml", b"\xff");
    assert!(refused("msq.toml").contains("msq.toml`"));
    assert!(refused("nosuch.toml").contains("nosuch.toml`: cannot read"));
    assert_eq!(scratch.outputs(), Vec::<String>::new());
}

/// What is printed can be used as it is, for each command.
#[test]
fn printed_defaults_change_nothing() {
    let scratch = Scratch::new();
    for command in ["search", "evaluate"] {
        let printed = msq(args!["config", "--defaults", command]).ok().stdout;
        assert!(printed.contains("\n#calib = \"PATH\"\n"), "{printed}");
        let file = scratch.write("msq.toml", printed);
        assert!(msq(args![command, scratch.path("nosuch.onnx"), "--config", file]).error(3).contains("nosuch.onnx"));
    }
    assert!(msq(args!["config"]).usage().contains("--defaults"));
}

#[test]
fn completions_know_the_flags() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let text = msq(args!["completions", shell]).ok().stdout;
        for name in ["weight-bits", "save-outputs", "search"] {
            assert!(text.contains(name), "no {name} for {shell}");
        }
    }
    assert!(msq(args!["completions", "nosuch"]).usage().contains("fish"));
}

#[test]
fn manual_pages_are_printed_or_written() {
    let scratch = Scratch::new();
    let page = msq(args!["man"]).ok().stdout;
    assert!(
        page.contains(".TH msq-onnx 1")
            && page.contains("weight\\-bits")
            && page.contains("EXIT STATUS")
            && page.contains("EXAMPLES")
    );
    assert!(!page.contains("simd"), "the page tells of this machine");
    msq(args!["man", scratch.path("out")]).ok();
    let names = [
        "-calibrate",
        "-compare",
        "-completions",
        "-config",
        "-evaluate",
        "-export-encodings",
        "-inspect",
        "-lint",
        "-man",
        "-print",
        "-schema",
        "-search",
        "",
    ];
    assert_eq!(scratch.outputs(), names.map(|name| format!("msq-onnx{name}.1")));
    assert!(std::fs::read_to_string(scratch.out("msq-onnx.1")).unwrap() == page);
    assert!(msq(args!["man", scratch.path("missing")]).error(1).contains("missing`"));
}

#[test]
fn the_version_names_the_engine_of_the_lock_file() {
    let lock = std::fs::read_to_string(crate::common::repository("Cargo.lock")).unwrap();
    let (_, tract) = lock.split_once("name = \"tract-core\"\nversion = \"").unwrap();
    let tract = format!("tract    {}", tract.split('"').next().unwrap());
    let long = msq(args!["--version"]).ok().stdout;
    let lines: Vec<&str> = long.lines().collect();
    assert_eq!(lines[0], concat!("msq-onnx ", env!("CARGO_PKG_VERSION")));
    assert!(lines.contains(&&*tract) && lines.contains(&"license  MIT OR Apache-2.0"), "{long}");
    assert!(lines.iter().any(|line| line.starts_with("simd     ")), "{long}");
    assert_eq!(msq(args!["-V"]).ok().stdout, format!("{}\n", lines[0]));
}
