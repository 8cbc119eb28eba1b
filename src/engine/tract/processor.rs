//! Which instructions of the processor tract uses.

use std::sync::Once;
use tract_onnx::tract_core::tract_linalg::knobs::TRACT_CPU_ISA;

/// Leaves out tract's kernel for integers on AMX (`avx512amx_mmm_i32_16x16` of 0.23.9): it loads tiles of 64 rows also where the
/// packed operand ends before, and so reads up to 960 bytes behind it. What it reads there is multiplied with zeros, but where no
/// memory is mapped the process ends. To be called before anything of tract is used, which looks at the processor once.
pub(super) fn leave_out_unsound_kernels() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if cfg!(target_arch = "x86_64") {
            let wanted = TRACT_CPU_ISA.get().map(|features| format!("{features},")).unwrap_or_default();
            TRACT_CPU_ISA.set(Some(format!("{wanted}-amx-int8")));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_user_leaves_out_stays_so() {
        leave_out_unsound_kernels();
        let features = TRACT_CPU_ISA.get().unwrap_or_default();
        assert_eq!(features.ends_with("-amx-int8"), cfg!(target_arch = "x86_64"), "{features}");
    }
}
