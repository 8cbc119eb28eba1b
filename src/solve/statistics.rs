//! Statistics of the input of a layer that solvers minimise by: what they can ask for, and how it is collected.
//!
//! x is a column of the layer's input in the float network, x̂ the same column in the network quantized so far. Either
//! the second moments Σ x̂·x̂ᵀ and Σ x·x̂ᵀ are summed ([`Moments`]) or a limited number of columns is stored
//! ([`Columns`]). A [`StatisticsCollector`] is filled sample by sample; collectors of consecutive parts of the data merge
//! in order, so the result does not depend on the number of threads.
//!
//! Of four samples or more some are not shown to the solver: a few of their columns tell whether what it found is better
//! than rounding to nearest where it was not fitted.

use crate::kernels::{ColumnSampler, Columns, Geometry, Gram, Keep, KernelError, Moments, Sampling};
use msq_passes::analysis::Layer;
use msq_passes::ir::Model;

/// Fewer samples than this are all shown to the solver.
const LEAST_TO_HOLD_OUT: usize = 4;
/// One sample in this many is held out.
const HELD_OUT: usize = 8;
/// The most columns of held-out samples, and the most values.
const CHECKED_COLUMNS: usize = 1024;
const CHECKED_VALUES: usize = 1 << 21;

/// Enough columns for moments, and enough samples: neighbours in a picture see nearly the same.
const LEAST_COLUMNS: usize = 16_384;
const COLUMNS_PER_VALUE: usize = 32;
const LEAST_SAMPLES: usize = 96;

/// How many columns are enough.
fn columns_wanted(geometry: &Geometry) -> usize {
    LEAST_COLUMNS.max(COLUMNS_PER_VALUE * geometry.inputs())
}

/// The statistics that a solver needs of the input of each layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatisticsKind {
    /// None: the weights are enough.
    Nothing,
    /// Second moments: [`Statistics::Moments`], [`Statistics::Blocks`] where columns are long, or
    /// [`Statistics::Columns`] where less than half as many were seen as they have values.
    Moments {
        /// Stride between the positions of an activation that are summed; 1 for all. At least 32 positions of each
        /// sample are taken, and of few samples more.
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
    /// Columns of samples that are not in the values, of each group.
    held_out: Vec<Columns>,
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
            (Values::Moments(to), Values::Moments(from)) if to.len() == from.len() => {
                to.iter_mut().zip(from).for_each(|(to, from)| to.add(from));
            }
            (Values::Columns(to), Values::Columns(from)) if to.len() == from.len() => {
                to.iter_mut().zip(from).for_each(|(to, from)| to.add(from));
            }
            // Columns stand for moments where few were seen: moments, of many, say more.
            (Values::Columns(_), Values::Moments(_)) => self.values = other.values.clone(),
            (Values::Nothing, Values::Nothing) | (Values::Moments(_), Values::Columns(_)) => {}
            _ => return Err(KernelError::Merge),
        }
        if self.held_out.len() == other.held_out.len() {
            self.held_out.iter_mut().zip(&other.held_out).for_each(|(to, from)| to.add(from));
        }
        Ok(())
    }

    /// The statistics as those of another layer that reads the same input in the same network, where its columns are the
    /// same.
    pub(crate) fn of_reader(self, geometry: Geometry) -> Option<Self> {
        self.geometry.same_columns(&geometry).then_some(Self { geometry, ..self })
    }

    /// Columns of samples that none of the statistics know, of each group; empty where there are none.
    pub(crate) fn held_out(&self) -> &[Columns] {
        &self.held_out
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
    /// Columns of one sample in so many.
    held_out: Option<(usize, ColumnSampler)>,
    /// Whether the input in the float network counts for both.
    float_only: bool,
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
                let default = Sampling::default();
                // Of few samples each tells more.
                let least = default.least.max(columns_wanted(&geometry).div_ceil(samples.max(1)));
                Sums::Moments(Gram::new(geometry.clone(), Sampling { stride, least })?)
            }
        };
        let period = HELD_OUT.min(samples);
        let holds_out = samples >= LEAST_TO_HOLD_OUT && kind != StatisticsKind::Nothing;
        let columns =
            ColumnSampler::limited(geometry.clone(), samples / period.max(1), CHECKED_COLUMNS, CHECKED_VALUES);
        Ok(Self { geometry, sums, held_out: holds_out.then_some((period, columns)), float_only: false })
    }

    /// The same for a weight that several layers read: x in the place of x̂. The errors of the layers before, in whose stead
    /// a solver would change the weight, are in part errors of the same weight, as it was before it was solved.
    #[must_use]
    pub(crate) fn of_float(self) -> Self {
        Self { float_only: true, ..self }
    }

    /// How the layer reads its input as columns.
    pub(crate) fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Parts that columns are cut into because the moments of whole columns would be too large; else 1.
    pub(crate) fn blocks(&self) -> usize {
        if let Sums::Moments(gram) = &self.sums { gram.blocks() } else { 1 }
    }

    /// Bytes of the moments that whole columns would have.
    pub(crate) fn bytes(&self) -> usize {
        4 * self.geometry.groups() * self.geometry.inputs() * self.geometry.inputs()
    }

    /// How many samples give enough columns, where all would only cost time: many times as many as a column has values.
    pub(crate) fn enough(&self, shape: &[usize]) -> usize {
        let Sums::Moments(gram) = &self.sums else { return usize::MAX };
        let columns = columns_wanted(&self.geometry);
        gram.positions(shape).map_or(usize::MAX, |each| columns.div_ceil(each.max(1)).max(LEAST_SAMPLES))
    }

    /// Adds the layer's input for one sample: `float` from the float network and `quantized` from the quantized one, the
    /// same slice where there is no difference. Only positions count of whose elements `keep` says so.
    pub(crate) fn observe(
        &mut self,
        sample: usize,
        float: &[f32],
        quantized: &[f32],
        shape: &[usize],
        keep: Option<Keep>,
    ) -> Result<(), KernelError> {
        let quantized = if self.float_only { float } else { quantized };
        // The last one of each period: what is read in order need not begin with the usual.
        if let Some((period, columns)) = self.held_out.as_mut().filter(|(period, _)| sample % period == period - 1) {
            return columns.observe(sample / *period, float, quantized, shape, keep);
        }
        match &mut self.sums {
            Sums::Nothing => Ok(()),
            Sums::Moments(gram) => gram.observe(sample, float, quantized, shape, keep),
            Sums::Columns(columns) => columns.observe(sample, float, quantized, shape, keep),
        }
    }

    /// Adds what a collector has of the samples after those of this one.
    pub(crate) fn merge(&mut self, later: Self) -> Result<(), KernelError> {
        if let (Some((_, columns)), Some((_, later))) = (&mut self.held_out, later.held_out) {
            columns.merge(later)?;
        }
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
            Sums::Moments(gram) => gram.finish_few().map_or_else(|| Values::Moments(gram.finish()), Values::Columns),
            Sums::Columns(columns) => Values::Columns(columns.finish()),
        };
        let held_out = self.held_out.map(|(_, columns)| columns.finish()).unwrap_or_default();
        LayerStatistics { geometry: self.geometry, values, held_out }
    }
}
