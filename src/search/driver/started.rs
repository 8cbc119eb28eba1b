//! The key under which a journal holds the measurements of a search: a hash of all that they follow from, besides the plan
//! measured. The target and the way to it have no part in it, nor threads and memory.

use super::Parts;
use crate::scheme::bit_plan::BitPlan;
use crate::scheme::options::Options;
use crate::search::SearchError;
use crate::search::driver::options::SearchOptions;
use indexmap::IndexMap;
use msq_passes::analysis::content_hash;
use msq_passes::ir::Model;
use std::hash::{Hash, Hasher};

/// The key of a search.
pub(super) fn key(
    model: &Model,
    parts: Parts,
    options: &Options,
    search: &SearchOptions,
) -> Result<String, SearchError> {
    let mut hasher = twox_hash::XxHash3_64::new();
    content_hash(&model.graph).hash(&mut hasher);
    for data in [parts.calibration, parts.validation] {
        data.len().hash(&mut hasher);
        for index in 0..data.len() {
            data.sample(index)?.hash(&mut hasher);
            data.labels(index).hash(&mut hasher);
        }
    }
    let mut options = options.with_plan(&BitPlan::of_layers(IndexMap::new()));
    // What is done with the plan once it is found.
    (options.verify, options.repair) = Default::default();
    format!("{options:?} {:?} {} {} {:?}", search.imprinting, search.samples, parts.margin, parts.metric)
        .hash(&mut hasher);
    Ok(format!("{} {:016x}", env!("CARGO_PKG_VERSION"), hasher.finish()))
}
