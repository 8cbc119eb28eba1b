//! Helpers of the integration tests.
pub(crate) mod arrays;
pub(crate) mod browser;
pub(crate) mod child;
pub(crate) mod models;
pub(crate) mod python;
pub(crate) mod random_network;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The command line under test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_msq-onnx");

/// A path inside the repository.
pub(crate) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A file of the digits sample: `digits.onnx`, `calib.npz` or `test.npz`.
pub(crate) fn digits(file: &str) -> PathBuf {
    repository("testdata/digits").join(file)
}

/// Files below a folder with this ending, sorted.
pub(crate) fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if path.extension().is_some_and(|e| e == ending) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Arguments of any type a path or text can come in.
macro_rules! args {
    ($($arg:expr),* $(,)?) => { &[$(std::ffi::OsString::from(&$arg)),*] };
}
pub(crate) use args;

/// What a run of the binary left.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    command: String,
}

/// Runs the binary with these arguments, nothing on its stdin, pipes for the rest.
pub(crate) fn msq(args: &[OsString]) -> Run {
    let mut command = Command::new(BINARY);
    command.args(args).env_remove("RUST_LOG").stdin(std::process::Stdio::null());
    let output = command.output().unwrap();
    Run {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
        command: format!("msq-onnx {}", args.join(std::ffi::OsStr::new(" ")).display()),
    }
}

impl Run {
    /// Asserts success.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{} failed: {}", self.command, self.stderr);
        self
    }

    /// Asserts the exit code and that all the run said is one line that starts with `error: `; returns the line.
    #[track_caller]
    pub(crate) fn error(&self, code: i32) -> &str {
        assert_eq!(self.code, Some(code), "{}: {}", self.command, self.stderr);
        assert_eq!(self.stdout, "", "{}", self.command);
        let line = self.stderr.strip_suffix('\n').unwrap_or_default();
        assert!(line.starts_with("error: ") && !line.contains('\n'), "{} said:\n{}", self.command, self.stderr);
        assert!(!line.contains(".tmp"), "{} speaks of its own temporary file:\n{line}", self.command);
        line
    }

    /// Asserts a usage error, as clap words it: exit code 2, on stderr, `error: ` first.
    #[track_caller]
    pub(crate) fn usage(&self) -> &str {
        assert_eq!(self.code, Some(2), "{}: {}", self.command, self.stderr);
        assert_eq!(self.stdout, "", "{}", self.command);
        assert!(self.stderr.starts_with("error: "), "{} said:\n{}", self.command, self.stderr);
        &self.stderr
    }

    /// The one JSON document that stdout must be.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        let parsed = serde_json::from_str(&self.stdout);
        parsed.unwrap_or_else(|e| panic!("{}: stdout is no JSON document: {e}\n{}", self.command, self.stdout))
    }
}

/// Folders of one test, gone when it ends.
pub(crate) struct Scratch {
    folder: tempfile::TempDir,
}

impl Scratch {
    /// A folder with an empty `out` inside.
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("msq-test-").tempdir().unwrap();
        fs::create_dir(folder.path().join("out")).unwrap();
        Self { folder }
    }

    /// A path in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file and returns its path.
    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    /// A path in `out`.
    pub(crate) fn out(&self, name: &str) -> PathBuf {
        self.path("out").join(name)
    }

    /// Names of what is in `out`, sorted.
    pub(crate) fn outputs(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("out")).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// Quantizes digits into `out` of the scratch folder with more arguments; returns the output's path.
#[track_caller]
pub(crate) fn quantize_digits(scratch: &Scratch, name: &str, more: &[OsString]) -> PathBuf {
    let output = scratch.out(name);
    let mut args = args![digits("digits.onnx"), "-o", output, "--quiet"].to_vec();
    args.extend_from_slice(more);
    msq(&args).ok();
    output
}
