//! The reference runtimes: a Python virtual environment with pinned onnx, onnxruntime and `OpenVINO`, made once a target
//! folder.

use super::arrays::read_npz;
use super::repository;
use serde_json::Value;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

/// Set to 1, this leaves out what needs Python and the package index.
const SKIP: &str = "MSQ_SKIP_RUNTIME";
/// A lock older than this was left by a process that was killed.
const STALE: Duration = Duration::from_mins(15);

/// The environment's interpreter; nothing, and a note on stderr, where the caller asked to skip.
pub(crate) fn python() -> Option<&'static Path> {
    static PYTHON: OnceLock<Option<PathBuf>> = OnceLock::new();
    PYTHON.get_or_init(|| (!skipped()).then(environment)).as_deref()
}

fn skipped() -> bool {
    let skip = std::env::var(SKIP).is_ok_and(|v| v == "1");
    if skip {
        // Past the test harness, which shows what a test that passes prints to nobody.
        let _ = writeln!(std::io::stderr(), "NOTE: checks in onnxruntime are left out: {SKIP}=1");
    }
    skip
}

/// Runs `tests/runtime/<script>` and returns the JSON document it prints, whatever its exit status.
#[track_caller]
pub(crate) fn script(script: &str, args: &[OsString]) -> Option<Value> {
    let python = python()?;
    let output = Command::new(python).arg(repository("tests/runtime").join(script)).args(args).output().unwrap();
    match serde_json::from_slice(&output.stdout) {
        Ok(document) => Some(document),
        Err(error) => panic!("{script} printed no JSON document: {error}\n{}", said(&output)),
    }
}

/// Runs a command of `check_model.py`.
#[track_caller]
pub(crate) fn check_model(args: &[OsString]) -> Option<Value> {
    script("check_model.py", args)
}

/// What onnxruntime, or another runtime, made of a model.
pub(crate) struct Ran {
    /// What `check_model.py` reports of it.
    pub(crate) report: Value,
    /// Its outputs by name, row after row.
    pub(crate) outputs: BTreeMap<String, Vec<f32>>,
}

/// Checks models, runs them in onnxruntime (`survey`) or `OpenVINO` (`openvino`), all in one process, and reads
/// their outputs. Fails if a model is not valid or does not run.
#[track_caller]
pub(crate) fn ran(command: &str, models: &[(&Path, &Path)]) -> Option<Vec<Ran>> {
    python()?;
    let folder = tempfile::Builder::new().prefix("msq-test-").tempdir().unwrap();
    let results = |index: usize| folder.path().join(format!("{index}.npz"));
    let paths = models.iter().enumerate().flat_map(|(i, (model, data))| [model.into(), data.into(), results(i).into()]);
    let args: Vec<OsString> = std::iter::once(command.into()).chain(paths).collect();
    let report = check_model(&args)?;
    assert_eq!(report["ok"], true, "{report}");
    let reports = report["results"].as_array().unwrap();
    assert_eq!(reports.len(), models.len());
    let read = |(i, report): (usize, &Value)| Ran { report: report.clone(), outputs: read_npz(&results(i)) };
    Some(reports.iter().enumerate().map(read).collect())
}

/// The interpreter of an environment that holds what the requirements name, made if it is not there. Other test
/// processes may want it at the same time: one makes it under another name and renames it, the rest wait.
fn environment() -> PathBuf {
    let requirements = repository("tests/runtime/requirements.txt");
    let mut hasher = DefaultHasher::new();
    fs::read(&requirements).unwrap().hash(&mut hasher);
    let key = format!("python-{:016x}", hasher.finish());
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (target, lock) = (folder.join(&key), folder.join(format!("{key}.lock")));
    let interpreter = target.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" });
    while !interpreter.exists() {
        if fs::create_dir(&lock).is_ok() {
            // The lock goes even if this panics.
            let _unlock = Unlock(&lock);
            if !interpreter.exists() {
                let making = folder.join(format!("{key}.making"));
                let _ = fs::remove_dir_all(&making);
                make(&making, &requirements);
                fs::rename(&making, &target).unwrap();
            }
        } else if is_stale(&lock) {
            let _ = fs::remove_dir(&lock);
        } else {
            std::thread::sleep(Duration::from_millis(200));
        }
    }
    interpreter
}

struct Unlock<'a>(&'a Path);

impl Drop for Unlock<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_dir(self.0);
    }
}

fn is_stale(lock: &Path) -> bool {
    let made = fs::metadata(lock).and_then(|m| m.modified());
    made.is_ok_and(|made| SystemTime::now().duration_since(made).is_ok_and(|age| age > STALE))
}

/// A virtual environment's own scripts know where it was made; its interpreter does not, so it can be renamed.
fn make(folder: &Path, requirements: &Path) {
    run(Command::new("python3").args(["-m", "venv"]).arg(folder), "python3 with the venv module is needed");
    let python = folder.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" });
    let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", "-r"];
    run(
        Command::new(python).args(install).arg(requirements),
        "the packages of tests/runtime/requirements.txt are needed",
    );
}

fn run(command: &mut Command, need: &str) {
    let help = format!("{need} to check written models in onnxruntime; set {SKIP}=1 to leave these checks out");
    match command.output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => panic!("{help}\n{command:?} failed:\n{}", said(&output)),
        Err(error) => panic!("{help}\n{command:?} cannot be started: {error}"),
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
