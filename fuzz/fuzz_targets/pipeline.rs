//! Edited networks through the whole run, on one thread and two made-up samples; what comes out is read back. A model
//! that a pass leaves invalid is a finding, as a panic is.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use msq_fuzz::{Case, networks};
use msq_onnx::data::{Size, SyntheticOptions};
use msq_onnx::{ActivationBits, BitPlan, Format, LayerPlan, Options, Quantizer, WeightBits};
use msq_passes::ir::{Model, check, encode_model, export, import};
use msq_passes::{PassError, Profile};

/// What is asked for.
#[derive(Arbitrary, Debug)]
struct Wanted {
    weights: u8,
    activations: u8,
    format: u8,
    profile: u8,
    batch_norms_stay: bool,
    equalize: bool,
    half_scales: bool,
    functions: bool,
}

impl Wanted {
    fn options(&self) -> Options {
        let weights = match self.weights % 10 {
            0 => WeightBits::Ternary,
            1 => WeightBits::Binary,
            9 => WeightBits::Float,
            bits => WeightBits::whole(bits),
        };
        let activations = match self.activations % 8 {
            _ if weights == WeightBits::Float => ActivationBits::Float,
            0 => ActivationBits::Float,
            bits => ActivationBits::Bits(bits + 1),
        };
        let formats = [Format::Qdq, Format::Qlinear, Format::Integer];
        let mut options = Options::default();
        if self.batch_norms_stay {
            options.prepare.batch_norm = msq_onnx::BatchNorm::Affine;
        }
        options.prepare.equalize = Some(self.equalize);
        options.scheme.plan = BitPlan::uniform(LayerPlan { weights, activations, ..LayerPlan::default() });
        options.scheme.profile = Profile::ALL[usize::from(self.profile) % Profile::ALL.len()];
        options.output.format = formats[usize::from(self.format) % formats.len()];
        options.output.functions = self.functions;
        options.output.half_scales = self.half_scales;
        options.verify.verify = 1;
        options
    }
}

fuzz_target!(
    init: {
        // The default hook ends the process even where a panic of the engine is caught and becomes an error.
        let abort = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let ours = panic.location().is_none_or(|place| !place.file().contains("/registry/"));
            if ours {
                abort(panic);
            }
        }));
    },
    |case: (Case, Wanted)| {
        let (case, wanted) = case;
        let Ok(model) = import(case.model(networks())) else { return };
        let _ = msq_onnx::inspect::inspect(model.clone());
        if quantize(model, wanted.options()).is_err_and(|error| {
            matches!(&error, msq_onnx::Error::Pass(PassError::Broken { .. }))
        }) {
            panic!("a pass broke the model");
        }
    }
);

fn quantize(model: Model, options: Options) -> Result<(), msq_onnx::Error> {
    let made_up = SyntheticOptions { count: 2, image_size: Size::square(8), length: 4, ..SyntheticOptions::default() };
    let quantized = Quantizer::new(model).made_up(made_up).options(options).threads(1).run()?;
    check(&quantized.model).expect("what is written is valid");
    let bytes = encode_model(&export(&quantized.model));
    let read = msq_passes::ir::decode_model(bytes.into()).expect("what is written is read");
    import(read).expect("what is written is read");
    Ok(())
}
