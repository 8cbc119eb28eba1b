//! Peak memory of a test of this binary, measured in a process of its own.

use std::path::{Path, PathBuf};
use std::process::Command;

const ARGUMENT: &str = "MSQ_TEST_CHILD";

/// Runs the ignored test `test` of this binary with `argument` and returns the peak of its resident memory in bytes.
#[track_caller]
pub(crate) fn peak_of(test: &str, argument: &Path) -> u64 {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--ignored", "--nocapture", "--test-threads=1"]).env(ARGUMENT, argument);
    // glibc gives freed memory back at once then: the peak follows what is in use, not how the heap is cut up.
    command.envs([("MALLOC_ARENA_MAX", "1"), ("MALLOC_MMAP_THRESHOLD_", "65536"), ("MALLOC_TRIM_THRESHOLD_", "0")]);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let peak = said.lines().find_map(|line| line.split_once("peak ")).map(|(_, number)| number.trim());
    peak.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("no peak in {said}"))
}

/// In the child: does the work on the argument and reports the peak. Does nothing where no parent asked.
pub(crate) fn report_peak(work: impl FnOnce(&Path)) {
    let Some(argument) = std::env::var_os(ARGUMENT) else { return };
    work(&PathBuf::from(argument));
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    #[allow(clippy::print_stdout)] // read by the parent
    {
        println!("peak {}", kibibytes << 10);
    }
}
