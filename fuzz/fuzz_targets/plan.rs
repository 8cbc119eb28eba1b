//! Text as a bit plan: what is read can be written, and reads the same again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use msq_onnx::BitPlan;
use msq_passes::Profile;
use std::sync::LazyLock;

static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a folder"));

fuzz_target!(|data: &[u8]| {
    let path = FOLDER.path().join("plan.json");
    std::fs::write(&path, data).expect("a file");
    let Ok(plan) = BitPlan::load(&path) else { return };
    let _ = plan.check(plan.layers.keys().map(String::as_str), &Profile::ORT_CPU);
    std::fs::write(&path, plan.to_json()).expect("a file");
    assert_eq!(BitPlan::load(&path).expect("its own form"), plan);
});
