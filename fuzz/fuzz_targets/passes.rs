//! Edited models through every pass that needs no numbers from a run, and the linter. A pass that leaves an invalid
//! model is a finding, as a panic is.

#![no_main]

use libfuzzer_sys::fuzz_target;
use msq_fuzz::{Case, fixtures};
use msq_passes::analysis::layers;
use msq_passes::ir::{Model, check, export, import, text};
use msq_passes::lint::lint;
use msq_passes::{
    CleanNames, CompactIntegers, DropDefaults, EliminateDeadNodes, EliminateIdentities, EqualizeChannels,
    FoldConstants, FuseAffine, FuseBatchNorm, FuseQlinear, HalfConstants, LiftConstants, LowerInteger, NormalizeGemm,
    NormalizePooling, PackWeights, Packing, Pass, PassError, Profile, RewriteActivations, ShareConstants, UpgradeOpset,
    run_pass,
};

fuzz_target!(|case: Case| {
    let Ok(mut model) = import(case.model(fixtures())) else { return };
    if check(&model).is_err() {
        return;
    }
    let _ = text::parse(&text::print(&export(&model)));
    lint(&model, &Profile::ORT_CPU);
    let constants = FoldConstants { constants: Default::default() };
    run(&[&LiftConstants, &CleanNames { strip: false }, &constants, &EliminateDeadNodes], &mut model);
    run(&[&UpgradeOpset::default(), &EliminateIdentities, &NormalizeGemm, &FuseBatchNorm], &mut model);
    run(&[&FuseAffine::default(), &RewriteActivations, &NormalizePooling, &EqualizeChannels], &mut model);
    let packed = |layer: &msq_passes::analysis::Layer| (layer.name.clone(), Packing::Bits(4));
    let pack = PackWeights { layers: layers(&model).iter().map(packed).collect(), functions: false };
    run(&[&pack, &FuseQlinear { contrib: true }, &LowerInteger, &HalfConstants], &mut model);
    run(&[&ShareConstants, &DropDefaults, &CompactIntegers, &CleanNames { strip: true }], &mut model);
    lint(&model, &Profile::TENSORRT);
    import(export(&model)).expect("what was written is read");
});

fn run(passes: &[&dyn Pass], model: &mut Model) {
    for pass in passes {
        // A pass may refuse half-way: what it leaves then is thrown away, in the pipeline as here.
        let before = model.clone();
        match run_pass(*pass, model, true) {
            Err(error @ PassError::Broken { .. }) => panic!("{error}"),
            Err(_) => *model = before,
            Ok(_) => {}
        }
    }
}
