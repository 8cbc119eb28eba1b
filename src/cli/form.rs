//! Flags of the phases: the structs of options of the library, and what takes a file or a second flag to give.

use super::given::{Given, ids};
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, Command, Id};
use msq_onnx::exchange::Encodings;
use msq_onnx::solve::SolverRow;
use msq_onnx::{
    Activations, BitPlan, BitsOptions, CalibrateOptions, EndBits, Error, Options, OutputOptions, PrepareOptions,
    SchemeOptions, SolveOptions, SolverName, WeightGrid,
};
use msq_passes::Profile;
use std::path::{Path, PathBuf};

/// How a model is quantized and written.
#[derive(Args, Debug)]
#[command(next_help_heading = "Quantization")]
pub(crate) struct FormArgs {
    #[command(flatten)]
    bits: Given<BitsArgs>,
    #[command(flatten)]
    scheme: SchemeOptions,
    #[command(flatten)]
    calibrate: CalibrateOptions,
    #[command(flatten)]
    solve: SolveOptions,
    #[command(flatten)]
    prepare: PrepareOptions,
    /// Scale channels between layers to equal ranges; done anyway for targets with one scale per tensor
    #[arg(long, conflicts_with = "no_equalize")]
    equalize: bool,
    /// Leave the channels as they are, whatever the target
    #[arg(long)]
    no_equalize: bool,
    /// Write the bit plan that was carried out
    #[arg(long, value_name = "PATH")]
    pub(crate) save_plan: Option<PathBuf>,
    #[command(flatten)]
    output: OutputOptions,
}

/// What says how many bits layers have.
#[derive(Args, Debug)]
#[command(next_help_heading = "Quantization")]
pub(crate) struct BitsArgs {
    #[command(flatten)]
    options: BitsOptions,
    /// A bit plan: bits layer by layer, as --save-plan writes it, or a model that was quantized with it
    #[arg(long, value_name = "PATH")]
    plan: Option<PathBuf>,
    /// Scales, zero points and bits of tensors in the place of calibrated ones: encodings of AIMET (0.5 to 2), a JSON of
    /// onnxruntime's `TensorQuantOverrides`, or a `TensorRT` calibration cache
    #[arg(long, value_name = "PATH")]
    encodings: Option<PathBuf>,
}

/// The flags of [`BitsArgs`] that searches take as well: bits of activations and grids are not searched for.
const OF_SEARCHES: [(&str, &str); 2] = [("act_bits", "--act-bits"), ("grid", "--grid")];

/// A command with [`FormArgs`] and the flags of a search: which of them exclude each other, and the names of solvers.
/// Arguments are named one by one: of a group clap would name all members in its error.
pub(crate) fn completed(command: Command, searching: &[Id]) -> Command {
    let fixing = ids::<BitsArgs>().filter(|id| OF_SEARCHES.iter().all(|(own, _)| id != own));
    let command = fixing.fold(command, |command, id| command.mut_arg(id, |arg| arg.conflicts_with_all(searching)));
    let bits = ids::<BitsOptions>().chain(["first_last_bits".into()]);
    command
        .mut_arg("plan", |arg| arg.conflicts_with_all(bits))
        .mut_arg("solver", |arg| arg.value_parser(solvers()))
        .mut_arg("profile", |arg| arg.value_parser(profiles()))
}

/// The targets by name, for completions.
fn profiles() -> impl TypedValueParser<Value = Profile> {
    let values = Profile::ALL.iter().map(|profile| PossibleValue::new(profile.name).help(profile.runtime));
    PossibleValuesParser::new(values)
        .try_map(|name| Profile::by_name(&name).ok_or_else(|| format!("the profiles are {}", Profile::names())))
}

/// The solvers by name, with their help.
fn solvers() -> impl TypedValueParser<Value = SolverName> {
    let values = SolverRow::all().map(|row| PossibleValue::new(row.name).help(row.help));
    PossibleValuesParser::new(values).try_map(|name| name.parse())
}

impl FormArgs {
    fn plan(&self, searching: bool) -> Result<BitPlan, Error> {
        match &self.bits.plan {
            Some(path) => Ok(BitPlan::load(path)?),
            // Of a search the grid is that of its rungs.
            None if searching => Ok(BitsOptions { grid: None, ..self.bits.options }.plan()),
            None => Ok(self.bits.options.plan()),
        }
    }

    /// The files it names to be read.
    pub(crate) fn reads(&self) -> impl Iterator<Item = &Path> {
        self.bits.plan.iter().chain(&self.bits.encodings).map(PathBuf::as_path)
    }

    /// A flag that says what weights become, if one is given.
    pub(crate) fn fixes_bits(&self) -> Option<&str> {
        self.bits.flags().find(|flag| OF_SEARCHES.iter().all(|(_, own)| flag != own))
    }

    /// Bits of activations while bits of weights are searched for.
    pub(crate) fn activations(&self) -> Activations {
        self.bits.options.act_bits.unwrap_or_default()
    }

    /// The grid of the rungs of a search, where one is given.
    pub(crate) fn grid(&self) -> Option<WeightGrid> {
        self.bits.options.grid
    }

    /// What the flags here choose, for a run with given bits or for a search.
    pub(crate) fn options(&self, searching: bool) -> Result<Options, Error> {
        let encodings = self.bits.encodings.as_deref().map(Encodings::load).transpose()?;
        // A plan from a file says all there is to say.
        let first_last_bits = if self.bits.plan.is_some() { EndBits::Same } else { self.scheme.first_last_bits };
        Ok(Options {
            prepare: PrepareOptions {
                equalize: (self.equalize || self.no_equalize).then_some(self.equalize),
                ..self.prepare.clone()
            },
            scheme: SchemeOptions {
                plan: self.plan(searching)?,
                first_last_bits,
                encodings: encodings.unwrap_or_default().into(),
                ..self.scheme.clone()
            },
            calibrate: self.calibrate.clone(),
            solve: self.solve.clone(),
            output: self.output.clone(),
            ..Options::default()
        })
    }
}
