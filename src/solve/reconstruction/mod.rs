//! Layers that learn by gradients with their activations quantized, then `gram`: the solvers `block`, `distill` and `pd-quant`.
//!
//! Rounding activations to few bits costs more than rounding weights, and no closed form makes up for it. BRECQ (Li et al.,
//! arXiv 2102.05426) learns what minimises the error behind each block of a network, with all layers of the block
//! together; `QDrop` (Wei et al., arXiv 2203.05740) shows that activations have to be quantized meanwhile, and not all
//! of them. Both do so while weights are rounded, by gradients. Here each block learns with its activations quantized and
//! its weights in float; then `gram` rounds the weights, so that every grid of weights gains, trellis codes too.
//!
//! 1. **Blocks** ([`cuts`]): cuts where one value is live, so that a residual block is one block.
//! 2. **Learning**: float weights W', biases and the steps s of activation quantizers come near to the float network by
//!    Adam, on mini-batches whose targets the float network computes ([`teacher`]). With `block`, block after block, by
//!    `E‖B(x̃; W', s) − B_float(x)‖² / E‖B_float(x)‖²`; with `distill` all blocks that are not rounded yet at once, by the
//!    sum of that over the outputs of the network and, as their mean, the ends of those blocks. Each element of x̃ is that
//!    of x̂, what the solved blocks in front make of the sample, or that of x, what the float network does, with
//!    probability ½ each. With `pd-quant`, block after block, the errors of the outputs count too, with all behind the block
//!    in float ([`loss`]).
//! 3. **Rounding**: the layers of the first block are solved as by `gram`, in turn, by statistics of what they read in the
//!    block that has learned and in the same block with the layers so far on integers. Then those behind go on learning.
//! 4. **Choice**: with `block`, a block stays as plain `gram` has it unless its error on samples that were held out is
//!    smaller; with `pd-quant`, together with that of the outputs. In the end the same holds for the whole network, by the
//!    distance of its outputs as searches measure it, for class scores their divergence: on these samples the result is
//!    never worse than `gram`.
//!
//! Mini-batches may be [shared](shares) among processes, which exchange gradients.
//!
//! **Declines** layers whose form the kernels do not know, shared weights, weights on scales that are given, and blocks
//! with an operator that has no gradient rule: they stay as they are, and a log line (`-v`) names them.

mod cuts;
mod learning;
mod loss;
mod measure;
mod network;
mod parameters;
mod part;
mod reference;
mod relaxed;
mod samples;
mod shares;
#[cfg(test)]
mod shares_tests;
mod teacher;
#[cfg(test)]
mod tests;

pub(crate) use learning::learn;
