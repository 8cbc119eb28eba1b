//! From the QDQ graph to the file: form of operators, packing of weights, names.

use crate::scheme::Scheme;
use crate::scheme::options::Format;
use indexmap::IndexMap;
use msq_passes::ir::Model;
use msq_passes::pipelines::{self, Finish, Form};
use msq_passes::{CleanNames, PassError, PassObserver};

/// Brings the QDQ graph into the form and size that the scheme requests. Returns the shortened names of inner values.
pub(crate) fn finish(
    model: &mut Model,
    scheme: &Scheme,
    observer: Option<&dyn PassObserver>,
) -> Result<IndexMap<String, String>, PassError> {
    let (output, strip) = (&scheme.output, scheme.is_stripped());
    let form = match output.format {
        Format::Qdq => Form::Qdq,
        Format::Qlinear => Form::Qlinear { contrib: scheme.target.contrib },
        Format::Integer => Form::Integer,
    };
    let (packings, functions) = (scheme.packings.clone(), output.functions);
    let wanted = Finish { packings, functions, form, half_scales: output.half_scales, strip };
    pipelines::finish(wanted).observed(observer).run(model)?;
    let names = CleanNames { strip };
    let shortened = names.plan(model);
    pipelines::rename(names).observed(observer).run(model)?;
    Ok(shortened)
}
