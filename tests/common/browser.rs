//! A page in headless Chromium, where there is one.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

const NAMES: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// The page's document after its scripts ran, with this fragment in its address; nothing, and a note on stderr, where no
/// Chromium is on the path.
#[track_caller]
pub(crate) fn dom(page: &Path, fragment: &str) -> Option<String> {
    let present =
        |name: &&&str| Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    let Some(browser) = NAMES.iter().find(present) else {
        // Past the test harness, which shows what a test that passes prints to nobody.
        let _ = writeln!(std::io::stderr(), "NOTE: checks of the report's page in a browser are left out: no Chromium");
        return None;
    };
    let profile = tempfile::Builder::new().prefix("msq-test-").tempdir().unwrap();
    let mut command = Command::new(browser);
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000", "--dump-dom"]);
    command.arg(format!("--user-data-dir={}", profile.path().display()));
    let output = command.arg(format!("file://{}#{fragment}", page.display())).output().unwrap();
    assert!(output.status.success(), "{browser}: {}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}
