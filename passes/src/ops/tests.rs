use super::generated::{IR_OF_OPSET, SCHEMAS};
use super::table::FACTS;
use super::*;
use crate::ir::NEWEST_OPSET;

#[test]
fn rows_are_in_order_of_names() {
    assert!(SCHEMAS.is_sorted_by(|a, b| a.name < b.name));
    assert!(FACTS.is_sorted_by(|a, b| a.name < b.name));
    assert!(IR_OF_OPSET.is_sorted());
}

#[test]
fn every_row_of_facts_is_of_an_operator_that_there_is() {
    for row in FACTS {
        assert_eq!(schema(row.name).is_some(), row.domain.is_empty(), "{}", row.name);
        let said = row.layer.is_some() || row.operands.is_some() || row.integer.is_some() || !row.traits.is_empty();
        assert!(said, "{} has a row and no facts", row.name);
        assert!(row.traits.is_sorted_by_key(|property| format!("{property:?}")), "{}: traits in order", row.name);
    }
    assert!(facts("NoSuchOperator").traits.is_empty());
}

#[test]
fn schemas_cover_the_operator_sets() {
    for row in SCHEMAS {
        assert!(!row.versions.is_empty() && row.versions.is_sorted_by(|a, b| a < b), "{}", row.name);
        assert!(row.versions.iter().all(|since| (1..=NEWEST_OPSET).contains(since)), "{}", row.name);
        assert!(row.defaults.is_sorted_by(|a, b| (a.0, a.1) < (b.0, b.1)), "{}: one default at a time", row.name);
        for &(attribute, since, _) in row.defaults {
            assert!((row.first_opset().max(7)..=NEWEST_OPSET).contains(&since), "{} {attribute}", row.name);
        }
        for &(since, attribute, _) in row.moved {
            assert!(row.versions.contains(&since), "{} {attribute}", row.name);
        }
    }
    assert_eq!(SCHEMAS.iter().map(Schema::first_opset).max(), Some(NEWEST_OPSET));
}

#[test]
fn a_layer_says_where_its_operands_stand() {
    for row in FACTS.iter().filter(|row| row.layer.is_some()) {
        assert!(row.operands.is_some_and(|operands| !operands.weight.is_empty()), "{}", row.name);
    }
    for layer in [LayerOp::Conv, LayerOp::ConvTranspose, LayerOp::Gemm, LayerOp::MatMul] {
        assert_eq!(facts(layer.name()).float_layer(), Some(layer));
    }
    assert_eq!(facts("QLinearConv").float_layer(), None);
    assert_eq!(facts("QLinearConv").integer_layer(), Some((LayerOp::Conv, 3)));
}

/// What is moved keeps its type, and 8 bits are among the types.
#[test]
fn movements_are_movements_by_their_schemas() {
    for row in FACTS.iter().filter(|row| row.is_movement()) {
        let schema = schema(row.name).unwrap();
        assert_eq!(schema.like_output.first(), Some(&0), "{}", row.name);
        assert!(schema.bytes_since.is_some(), "{}", row.name);
    }
}

#[test]
fn traits_agree_with_the_schemas() {
    for row in FACTS {
        let Some(schema) = schema(row.name) else { continue };
        let like = |slot| schema.like_output.contains(&slot);
        if row.has(Trait::Arithmetic) {
            assert!(like(0) && like(1), "{}", row.name);
        }
        if [Trait::Clamp, Trait::Homogeneous, Trait::IdentityOfOne, Trait::Rectifier].iter().any(|&t| row.has(t)) {
            assert!(like(0), "{}", row.name);
        }
    }
}

#[test]
fn weights_lie_as_their_operators_store_them() {
    let layout = |op: &str| facts(op).operands.unwrap().layout;
    let plain = |_: &str| false;
    assert_eq!(layout("Conv").output_axis(1, 4, plain), Some(0));
    assert_eq!(layout("Conv").output_axis(1, 2, plain), None);
    assert_eq!(layout("ConvTranspose").output_axis(1, 3, plain), Some(1));
    assert_eq!(layout("Gemm").output_axis(1, 2, plain), Some(1));
    assert_eq!(layout("Gemm").output_axis(1, 2, |name| name == "transB"), Some(0));
    assert_eq!(layout("Gemm").output_axis(0, 2, plain), Some(0));
    assert_eq!(layout("Gemm").output_axis(0, 2, |name| name == "transA"), Some(1));
    assert_eq!(layout("MatMul").output_axis(1, 3, plain), Some(2));
    assert_eq!(layout("MatMul").output_axis(0, 3, plain), Some(1));
    assert_eq!(layout("MatMul").output_axis(1, 1, plain), None);
}

#[test]
fn a_default_that_moved_goes_by_the_operator_set() {
    let axis = |opset| schema("Softmax").unwrap().default_of("axis", opset);
    assert_eq!(axis(12), Some(Absent::Int(1)));
    assert_eq!(axis(13), Some(Absent::Int(-1)));
    assert_eq!(schema("MaxPool").unwrap().default_of("ceil_mode", 9), None);
}
