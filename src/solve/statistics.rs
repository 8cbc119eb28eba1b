//! Statistics of the input of a layer that solvers minimise by: what they can ask for, and how it is collected.
//!
//! x is a column of the layer's input in the float network, x̂ the same column in the network quantized so far. Either
//! the second moments Σ x̂·x̂ᵀ and Σ x·x̂ᵀ are summed ([`Moments`]) or a limited number of columns is stored
//! ([`Columns`]). A [`StatisticsCollector`] is filled sample by sample; collectors of consecutive parts of the data merge
//! in order, so the result does not depend on the number of threads.

use crate::kernels::{ColumnSampler, Columns, Geometry, Gram, KernelError, Moments, Sampling};
use msq_passes::analysis::Layer;
use msq_passes::ir::Model;

/// The statistics that a solver needs of the input of each layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatisticsKind {
    /// None: the weights are enough.
    Nothing,
    /// Second moments: [`Statistics::Moments`], or [`Statistics::Blocks`] where columns are long.
    Moments {
        /// Stride between the positions of an activation that are summed; 1 for all. At least 32 positions of each
        /// sample are taken.
        stride: usize,
    },
    /// A limited number of columns: [`Statistics::Columns`].
    Columns,
}

/// Statistics of the input of one group of a layer.
#[derive(Clone, Copy, Debug)]
pub enum Statistics<'a> {
    /// None were collected.
    Nothing,
    /// Second moments of whole columns.
    Moments(&'a Moments),
    /// Second moments of equal parts of the columns, in order. Moments between different parts are not known.
    Blocks(&'a [Moments]),
    /// A sample of the columns.
    Columns(&'a Columns),
}

/// Statistics of the input of a layer, all groups of the layer one after another.
#[derive(Clone, Debug)]
pub struct LayerStatistics {
    geometry: Geometry,
    values: Values,
}

#[derive(Clone, Debug)]
enum Values {
    Nothing,
    Moments(Vec<Moments>),
    Columns(Vec<Columns>),
}

impl LayerStatistics {
    /// How the layer reads its input as columns.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Adds the statistics of another layer's input, of columns as long and groups as many: H and C are sums over
    /// columns, whichever layer reads them.
    pub(crate) fn add(&mut self, other: &Self) -> Result<(), KernelError> {
        let shape = |of: &Self| (of.geometry.groups(), of.geometry.inputs(), of.geometry.outputs());
        if shape(self) != shape(other) {
            return Err(KernelError::Merge);
        }
        match (&mut self.values, &other.values) {
            (Values::Nothing, Values::Nothing) => Ok(()),
            (Values::Moments(to), Values::Moments(from)) if to.len() == from.len() => {
                to.iter_mut().zip(from).for_each(|(to, from)| to.add(from));
                Ok(())
            }
            (Values::Columns(to), Values::Columns(from)) if to.len() == from.len() => {
                to.iter_mut().zip(from).for_each(|(to, from)| to.add(from));
                Ok(())
            }
            _ => Err(KernelError::Merge),
        }
    }

    /// The statistics of one group.
    pub fn group(&self, group: usize) -> Statistics<'_> {
        match &self.values {
            Values::Nothing => Statistics::Nothing,
            Values::Moments(moments) => {
                let blocks = moments.len() / self.geometry.groups().max(1);
                match moments.get(group * blocks..(group + 1) * blocks) {
                    None | Some([]) => Statistics::Nothing,
                    Some([moments]) => Statistics::Moments(moments),
                    Some(blocks) => Statistics::Blocks(blocks),
                }
            }
            Values::Columns(columns) => columns.get(group).map_or(Statistics::Nothing, Statistics::Columns),
        }
    }
}

/// Collects the statistics of one layer.
#[derive(Clone, Debug)]
pub(crate) struct StatisticsCollector {
    geometry: Geometry,
    sums: Sums,
}

#[derive(Clone, Debug)]
enum Sums {
    Nothing,
    Moments(Gram),
    Columns(ColumnSampler),
}

impl StatisticsCollector {
    /// An empty collector for a layer, for data of so many samples. Layers whose form the kernels do not know, and
    /// moments that would be too large, are errors.
    pub(crate) fn new(kind: StatisticsKind, model: &Model, layer: &Layer, samples: usize) -> Result<Self, KernelError> {
        let geometry = Geometry::new(layer, model.graph.node(layer.node))?;
        let sums = match kind {
            StatisticsKind::Nothing => Sums::Nothing,
            StatisticsKind::Columns => Sums::Columns(ColumnSampler::new(geometry.clone(), samples)),
            StatisticsKind::Moments { stride } => {
                Sums::Moments(Gram::new(geometry.clone(), Sampling { stride, ..Sampling::default() })?)
            }
        };
        Ok(Self { geometry, sums })
    }

    /// Parts that columns are cut into because the moments of whole columns would be too large; else 1.
    pub(crate) fn blocks(&self) -> usize {
        if let Sums::Moments(gram) = &self.sums { gram.blocks() } else { 1 }
    }

    /// Bytes of the moments that whole columns would have.
    pub(crate) fn bytes(&self) -> usize {
        4 * self.geometry.groups() * self.geometry.inputs() * self.geometry.inputs()
    }

    /// Adds the layer's input for one sample: `float` from the float network and `quantized` from the quantized one, the
    /// same slice where there is no difference.
    pub(crate) fn observe(
        &mut self,
        sample: usize,
        float: &[f32],
        quantized: &[f32],
        shape: &[usize],
    ) -> Result<(), KernelError> {
        match &mut self.sums {
            Sums::Nothing => Ok(()),
            Sums::Moments(gram) => gram.observe(sample, float, quantized, shape),
            Sums::Columns(columns) => columns.observe(sample, float, quantized, shape),
        }
    }

    /// Adds what a collector has of the samples after those of this one.
    pub(crate) fn merge(&mut self, later: Self) -> Result<(), KernelError> {
        match (&mut self.sums, later.sums) {
            (Sums::Nothing, Sums::Nothing) => Ok(()),
            (Sums::Moments(gram), Sums::Moments(later)) => gram.merge(later),
            (Sums::Columns(columns), Sums::Columns(later)) => columns.merge(later),
            _ => Err(KernelError::Merge),
        }
    }

    /// The statistics.
    pub(crate) fn finish(self) -> LayerStatistics {
        let values = match self.sums {
            Sums::Nothing => Values::Nothing,
            Sums::Moments(gram) => Values::Moments(gram.finish()),
            Sums::Columns(columns) => Values::Columns(columns.finish()),
        };
        LayerStatistics { geometry: self.geometry, values }
    }
}
