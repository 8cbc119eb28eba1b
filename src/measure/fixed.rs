//! The same inputs for models that are measured together: what one was quantized with a fixed value of is fixed in the others.

use super::MeasureError;
use crate::prepare::{FixedInput, fix_inputs};
use crate::scheme::metadata;
use msq_passes::ir::Model;

/// Makes constants of the inputs that are `asked` for, and of those that the metadata of one of the models says are constants
/// there, in all models that have them. Returns what is fixed. Two values for one input are an error, and so is an input
/// asked for that no model has or had.
pub fn fix_alike(models: &mut [&mut Model], asked: &[FixedInput]) -> Result<Vec<FixedInput>, MeasureError> {
    let mut fixed = asked.to_vec();
    let known: Vec<FixedInput> = models.iter().flat_map(|model| metadata::fixed_inputs(model)).collect();
    for own in &known {
        match fixed.iter().find(|other| other.input == own.input) {
            Some(other) if other.value != own.value => {
                let (input, value, other) = (&own.input, &own.value, &other.value);
                let reason = format!("input `{input}` is fixed at {value} in one and at {other} in the other");
                return Err(MeasureError::Incomparable { reason });
            }
            Some(_) => {}
            None => fixed.push(own.clone()),
        }
    }
    let is_nowhere =
        |fixed: &&FixedInput| !known.contains(fixed) && !models.iter().any(|model| fixed.is_of(&model.graph));
    if let (Some(nowhere), Some(first)) = (asked.iter().find(is_nowhere), models.first_mut()) {
        // Fails, and says which inputs there are.
        fix_inputs(first, std::slice::from_ref(nowhere), None)?;
    }
    for model in models.iter_mut() {
        let own: Vec<FixedInput> = fixed.iter().filter(|fixed| fixed.is_of(&model.graph)).cloned().collect();
        fix_inputs(model, &own, None)?;
    }
    Ok(fixed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use msq_passes::ir::{import, text};

    fn model(inputs: &str, metadata: &str) -> Model {
        let text = format!(
            "<ir_version: 8, opset_import: [\"\": 17]{metadata}> g ({inputs}) => (float[N] y) {{ y = Relu(x) }}"
        );
        import(text::parse(&text).unwrap()).unwrap()
    }

    fn inputs(model: &Model) -> usize {
        model.graph.inputs().len()
    }

    fn fixed(text: &str) -> [FixedInput; 1] {
        [text.parse().unwrap()]
    }

    #[test]
    fn what_one_has_fixed_is_fixed_in_the_other() {
        let mut float = model("float[N] x, int64 sr", "");
        let mut small = model("float[N] x", "");
        metadata::write_fixed_inputs(&mut small, &fixed("sr=8000"));
        let found = fix_alike(&mut [&mut small, &mut float], &[]).unwrap();
        assert_eq!((inputs(&float), inputs(&small)), (1, 1));
        assert_eq!(found, fixed("sr=8000"));
        let sr = float.graph.find("sr").unwrap();
        assert_eq!(float.graph.initializer(sr).unwrap().to_i64().unwrap(), [8000]);
    }

    #[test]
    fn what_is_asked_for_is_fixed_in_both() {
        let [mut a, mut b] = [(), ()].map(|()| model("float[N] x, int64 sr", ""));
        fix_alike(&mut [&mut a, &mut b], &fixed("sr=1")).unwrap();
        assert_eq!((inputs(&a), inputs(&b)), (1, 1));
        let [mut a, mut b] = [model("float[N] x", ""), model("float[N] x, int64 sr", "")];
        fix_alike(&mut [&mut a, &mut b], &fixed("sr=1")).unwrap();
        assert_eq!((inputs(&a), inputs(&b)), (1, 1));
    }

    #[test]
    fn two_values_and_inputs_that_are_nowhere_are_errors() {
        let mut float = model("float[N] x, int64 sr", "");
        let mut small = model("float[N] x", "");
        metadata::write_fixed_inputs(&mut small, &fixed("sr=8000"));
        let error = fix_alike(&mut [&mut small, &mut float], &fixed("sr=1")).unwrap_err().to_string();
        assert_eq!(error, "the two models differ: input `sr` is fixed at 8000 in one and at 1 in the other");
        let error = fix_alike(&mut [&mut float], &fixed("rate=1")).unwrap_err().to_string();
        assert!(error.contains("the model has no input `rate`; it has `x`, `sr`"), "{error}");
    }
}
