//! Mini-batches in shares, one per process, and the gradients that processes exchange.
//!
//! A mini-batch of B samples is cut into N shares, N being the option `solver-processes`. Of share r, with `B_r` samples, the
//! gradient `g_r` of the mean loss is encoded as the option `gradient-code` says ([`super::super::gradient_code`]), and every
//! process steps by
//!
//! `Σ_r (B_r / B) · decode(encode(g_r))`
//!
//! summed in order of r, so that all of them hold the same parameters. Each message begins with a digest of the
//! parameters that its gradient belongs to: a process that has others is found out at the next step. Where there are no
//! other processes, this one computes all shares in turn, with the same result.
//!
//! Tensors of less than a [bucket](BUCKET) of values, and the steps of quantizers, are sent as floats.

use super::parameters::{Gradients, Parameters};
use crate::data::random::Random;
use crate::runtime::{PeerError, Peers, Runtime};
use crate::scheme::options::SolveOptions;
use crate::solve::SolveError;
use crate::solve::gradient_code::{BUCKET, Encoder, GradientCode, decode};
use std::ops::{AddAssign, Range};

/// The stream of random numbers of codes.
const STREAM: u64 = 0x0067_7261_6473;
/// Bytes of a message in front of the gradients: the digest and the loss.
const HEAD: usize = 16;

/// What was exchanged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Traffic {
    /// Mini-batches.
    pub(super) steps: u64,
    /// Bytes that processes have received from each other, all processes together.
    pub(super) bytes: u64,
    /// Bytes that processes would have received with gradients as floats.
    pub(super) float_bytes: u64,
}

impl AddAssign for Traffic {
    fn add_assign(&mut self, other: Self) {
        self.steps += other.steps;
        self.bytes += other.bytes;
        self.float_bytes += other.float_bytes;
    }
}

/// The shares of the mini-batches that some parameters learn from.
pub(super) struct Shares<'a> {
    code: GradientCode,
    /// What encodes each share. Where there are other processes, only that of the own share is used.
    workers: Vec<Worker>,
    peers: Option<&'a dyn Peers>,
    runtime: &'a Runtime<'a>,
    pub(super) traffic: Traffic,
}

/// Encodes the gradients of a share.
struct Worker {
    encoders: Vec<Encoder>,
    random: Random,
}

impl<'a> Shares<'a> {
    /// Of the learning number `at` of a run.
    pub(super) fn new(
        options: &SolveOptions,
        parameters: &Parameters,
        [seed, at]: [u64; 2],
        runtime: &'a Runtime<'a>,
    ) -> Result<Self, SolveError> {
        let (code, count) = (options.gradient_code, options.solver_processes.max(1));
        let peers = runtime.shared_with();
        if let Some(found) = peers.map(Peers::count).filter(|found| *found != count) {
            return Err(PeerError::Count { found, wanted: count }.into());
        }
        let mut none = Gradients::of(parameters);
        let lens: Vec<usize> = none.tensors(parameters).map(|tensor| tensor.len()).collect();
        let worker = |share: usize| Worker {
            encoders: lens.iter().map(|&len| Encoder::new(of_tensor(code, len), len)).collect(),
            random: Random::new(seed, STREAM, (at << 16) | share as u64),
        };
        Ok(Self { code, workers: (0..count).map(worker).collect(), peers, runtime, traffic: Traffic::default() })
    }

    /// Gradients of the mean loss over a mini-batch of so many samples; the loss is summed. `own` computes those of some
    /// of the samples.
    pub(super) fn gradients(
        &mut self,
        parameters: &Parameters,
        samples: usize,
        mut own: impl FnMut(Range<usize>) -> Result<Gradients, SolveError>,
    ) -> Result<Gradients, SolveError> {
        self.traffic.steps += 1;
        let count = self.workers.len();
        if count == 1 && self.code == GradientCode::Float {
            return own(0..samples);
        }
        let range = |share: usize| share * samples / count..(share + 1) * samples / count;
        let digest = parameters.digest();
        let workers = &mut self.workers;
        let mut message = |share: usize| -> Result<Vec<u8>, SolveError> {
            let range = range(share);
            let mut gradients = if range.is_empty() { Gradients::of(parameters) } else { own(range)? };
            Ok(workers[share].message(digest, parameters, &mut gradients))
        };
        let (rank, messages) = match self.peers {
            Some(peers) => {
                let found = peers.exchange(message(peers.rank())?);
                if found.is_err() {
                    // A run that was cancelled loses its peers, which is not what is wrong.
                    self.runtime.step(0)?;
                }
                (peers.rank(), found?)
            }
            None => (0, (0..count).map(message).collect::<Result<_, _>>()?),
        };
        let disagrees = |rank_of: usize| PeerError::Disagrees { rank: rank_of, own: rank };
        if messages.len() != count {
            return Err(disagrees(messages.len().min(count)).into());
        }
        let mut total = Gradients::of(parameters);
        for (share, message) in messages.iter().enumerate() {
            let weight = range(share).len() as f32 / samples.max(1) as f32;
            add(&mut total, parameters, (self.code, digest), weight, message).ok_or_else(|| disagrees(share))?;
        }
        let received = count as u64 - 1;
        self.traffic.bytes += received * messages.iter().map(|message| message.len() as u64).sum::<u64>();
        self.traffic.float_bytes += received * count as u64 * as_floats(&mut total, parameters);
        Ok(total)
    }
}

impl Worker {
    /// The gradients of a share with what belongs to them.
    fn message(&mut self, digest: u64, parameters: &Parameters, gradients: &mut Gradients) -> Vec<u8> {
        let mut bytes = [digest.to_le_bytes(), gradients.loss.to_le_bytes()].concat();
        for (encoder, tensor) in self.encoders.iter_mut().zip(gradients.tensors(parameters)) {
            encoder.encode(tensor, &mut self.random, &mut bytes);
        }
        bytes.extend(gradients.steps.iter().flat_map(|&step| (step as f32).to_le_bytes()));
        bytes
    }
}

/// Adds the gradients of a message, which count `weight`; `None` where it is not about these parameters.
fn add(
    total: &mut Gradients,
    parameters: &Parameters,
    (code, digest): (GradientCode, u64),
    weight: f32,
    message: &[u8],
) -> Option<()> {
    let (head, mut rest) = message.split_at_checked(HEAD)?;
    let (found, loss) = head.split_at(HEAD / 2);
    if found != digest.to_le_bytes() {
        return None;
    }
    total.loss += f64::from_le_bytes(loss.try_into().ok()?);
    for tensor in total.tensors(parameters) {
        let values = decode(of_tensor(code, tensor.len()), tensor.len(), &mut rest)?;
        tensor.iter_mut().zip(values).for_each(|(sum, value)| *sum += weight * value);
    }
    let steps = decode(GradientCode::Float, total.steps.len(), &mut rest)?;
    total.steps.iter_mut().zip(steps).for_each(|(sum, step)| *sum += f64::from(weight * step));
    rest.is_empty().then_some(())
}

/// The code of a tensor of so many values.
fn of_tensor(code: GradientCode, len: usize) -> GradientCode {
    if len < BUCKET { GradientCode::Float } else { code }
}

/// The length of a message of floats.
fn as_floats(gradients: &mut Gradients, parameters: &Parameters) -> u64 {
    let values = gradients.steps.len() + gradients.tensors(parameters).map(|tensor| tensor.len()).sum::<usize>();
    (HEAD + 4 * values) as u64
}
