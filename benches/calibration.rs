//! Speed of the arithmetic that runs for every activation and every weight: `cargo bench`.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use msq_onnx::calibrate::{ObserverKind, Statistics};
use msq_onnx::quant::{GridSpec, ScaleSearch, WeightQuantizer};
use std::hint::black_box;

/// Values between -1 and 3 with the look of an activation, the same in every run.
fn values(count: u32) -> Vec<f32> {
    (0..count).map(|i| i.wrapping_mul(2_654_435_761) as f32 / u32::MAX as f32 * 4.0 - 1.0).collect()
}

fn calibration(criterion: &mut Criterion) {
    let activation = values(1 << 16);
    let mut group = criterion.benchmark_group("calibration");
    group.throughput(Throughput::Elements(activation.len() as u64));
    for step in [1, 17] {
        group.bench_function(format!("observe, every {step} binned"), |b| {
            let mut statistics = Statistics::new();
            b.iter(|| statistics.observe_strided(black_box(&activation), step));
        });
    }
    group.finish();
    let mut statistics = Statistics::new();
    statistics.observe(&activation);
    for observer in [ObserverKind::MinMax, ObserverKind::Entropy, ObserverKind::Mse] {
        criterion.bench_function(&format!("range by {observer}"), |b| {
            b.iter(|| observer.range(black_box(&statistics), GridSpec::ACTIVATION_U8));
        });
    }
}

fn rounding(criterion: &mut Criterion) {
    let weight = values(64 * 576);
    let mut group = criterion.benchmark_group("rounding");
    group.throughput(Throughput::Elements(weight.len() as u64));
    for (name, search) in [("absmax", ScaleSearch::AbsoluteMaximum), ("mse", ScaleSearch::MeanSquaredError)] {
        group.bench_function(name, |b| {
            let Ok(quantizer) = WeightQuantizer::new(GridSpec::WEIGHT_S8, search) else { return };
            b.iter(|| quantizer.quantize(black_box(&weight), &[64, 64, 3, 3], Some(0)));
        });
    }
    group.finish();
}

criterion_group!(benches, calibration, rounding);
criterion_main!(benches);
