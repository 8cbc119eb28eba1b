//! What `--version` says, for reports of bugs.

use msq_onnx::engine::standard;
use std::env::consts::{ARCH, OS};
use std::sync::LazyLock;

/// The version, what it was built for and with, and what the processor can do.
pub(crate) static LONG: LazyLock<String> = LazyLock::new(|| {
    let libc =
        [("gnu", cfg!(target_env = "gnu")), ("musl", cfg!(target_env = "musl")), ("msvc", cfg!(target_env = "msvc"))];
    let libc = libc.into_iter().find(|(_, is)| *is).map_or(String::new(), |(name, _)| format!("-{name}"));
    let simd: Vec<String> =
        simd().iter().map(|(name, has)| format!("{name} {}", if *has { "yes" } else { "no" })).collect();
    let engine = standard();
    format!(
        "{}\ntarget   {ARCH}-{OS}{libc}\n{:<9}{}\nsimd     {}\nlicense  {}",
        env!("CARGO_PKG_VERSION"),
        engine.name(),
        engine.version(),
        simd.join(", "),
        env!("CARGO_PKG_LICENSE")
    )
});

/// Instructions that decide how fast the engine and the models it writes run, and whether this processor has them.
#[cfg(target_arch = "x86_64")]
fn simd() -> Vec<(&'static str, bool)> {
    vec![
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("avxvnni", is_x86_feature_detected!("avxvnni")),
        ("avx512vnni", is_x86_feature_detected!("avx512vnni")),
    ]
}

#[cfg(target_arch = "aarch64")]
fn simd() -> Vec<(&'static str, bool)> {
    use std::arch::is_aarch64_feature_detected;
    vec![("dotprod", is_aarch64_feature_detected!("dotprod")), ("i8mm", is_aarch64_feature_detected!("i8mm"))]
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn simd() -> Vec<(&'static str, bool)> {
    Vec::new()
}
