//! onnxruntime on ARM CPUs, whose kernels multiply signed with signed.

use super::kernel::{ABSORBED, free};
use super::ort_cpu::KERNELS;
use super::{ActivationGrid, Kernel, Profile};

const SIGNED: &[Kernel] = &[free("DepthToSpace")];

impl Profile {
    /// onnxruntime on ARM CPUs: as on x86 CPUs, with signed activations.
    pub const ORT_ARM: Self = Self {
        name: "ort-arm",
        runtime: "onnxruntime 1.21 or newer on ARM CPUs",
        activations: ActivationGrid::Signed,
        kernels: &[KERNELS, SIGNED, ABSORBED],
        ..Self::ORT_CPU
    };
}
