//! Models come out of the in-memory form as they went in, wherever their elements are.

#[cfg(unix)]
mod external;
mod fields;

use crate::common::{files, models, repository};
use msq_passes::ir::{self, DataType, ModelProto, NEWEST_IR_VERSION, TensorProto, TypeProto};
use std::fs;

#[track_caller]
fn survives(proto: &ModelProto, what: &str) {
    let exported = ir::export(&ir::import(proto.clone()).unwrap());
    assert!(exported == *proto, "{what} changed");
    let encoded = ir::encode_model(&exported);
    assert_eq!(encoded.len(), ir::encoded_len(&exported), "{what}");
    assert!(ir::decode_model(encoded.into()).unwrap() == *proto, "{what} changed on the wire");
}

#[test]
fn every_model_of_testdata() {
    let found = files(&repository("testdata"), "onnx");
    assert!(!found.is_empty());
    for path in found {
        let proto = ir::decode_model(fs::read(&path).unwrap().into()).unwrap();
        survives(&proto, &path.display().to_string());
    }
}

/// The passes' fixtures: sub-graphs, functions, odd operators. Those that are broken on purpose are left out.
#[test]
fn every_text_fixture() {
    let mut count = 0;
    for path in files(&repository("testdata"), "onnxtxt") {
        let Ok(proto) = ir::text::parse(&fs::read_to_string(&path).unwrap()) else { continue };
        if ir::import(proto.clone()).is_ok() {
            survives(&proto, &path.display().to_string());
            count += 1;
        }
    }
    assert!(count > 100, "only {count} fixtures could be read");
}

/// Elements stay in the field they came in: raw bytes stay raw, typed fields stay typed.
#[test]
fn storage_stays() {
    let mut proto = models::digits_proto();
    let bias = models::initializer(&mut proto, "head.bias");
    bias.float_data = bias.to_f32().unwrap();
    bias.raw_data = None;
    survives(&proto, "digits with a typed bias");
}

/// A name that is left out is not the empty name.
#[test]
fn names_left_out() {
    let mut proto = models::digits_proto();
    models::graph(&mut proto).output[0].name = None;
    survives(&proto, "digits with a nameless output");
    models::graph(&mut proto).output[0].name = Some(String::new());
    survives(&proto, "digits with an output of the empty name");
}

#[test]
fn every_element_type() {
    let mut proto = models::parse("<ir_version: 14, opset_import: [\"\": 26]> net () => () {}");
    for element in DataType::ALL {
        let name = element.name();
        let elements = 5;
        let tensor = match element.bits() {
            Some(bits) => {
                let raw: Vec<u8> = (1..=(elements * bits).div_ceil(8) as u8).collect();
                TensorProto::from_raw(name, element, &[elements], raw)
            }
            None => TensorProto {
                dims: vec![1],
                data_type: Some(element.number()),
                name: Some(name.to_owned()),
                string_data: vec![b"\xff\x00text".as_slice().into()],
                ..TensorProto::default()
            },
        };
        let info = ir::ValueInfoProto {
            name: Some(format!("{name}_input")),
            r#type: Some(TypeProto::tensor(element, &[Some(2), None])),
            ..ir::ValueInfoProto::default()
        };
        models::graph(&mut proto).initializer.push(tensor);
        models::graph(&mut proto).input.push(info);
    }
    assert_eq!(proto.ir_version(), NEWEST_IR_VERSION);
    survives(&proto, "the model of all element types");
    let model = ir::import(proto).unwrap();
    for element in DataType::ALL {
        let value = model.graph.find(element.name()).unwrap();
        assert_eq!(model.graph.initializer(value).unwrap().element_type(), Some(element));
        let input = model.graph.find(&format!("{}_input", element.name())).unwrap();
        assert_eq!(model.graph.value(input).element_type(), Some(element));
    }
}

#[test]
fn saved_models_load_as_they_were() {
    let scratch = crate::common::Scratch::new();
    let model = models::digits_model();
    let path = scratch.out("copy.onnx");
    let written = ir::save_model(&model, &path).unwrap();
    assert_eq!(written, path.metadata().unwrap().len());
    assert!(ir::export(&msq_onnx::load(&path).unwrap()) == ir::export(&model));
    assert_eq!(scratch.outputs(), ["copy.onnx"]);
}
