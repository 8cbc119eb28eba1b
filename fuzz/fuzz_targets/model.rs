//! Bytes as a model file: decoded, imported, checked, written back the same, printed, and what was printed parsed.

#![no_main]

use libfuzzer_sys::fuzz_target;
use msq_passes::ir::{check, decode_model, decode_tensor, encode_model, export, import, text};

fuzz_target!(|data: &[u8]| {
    let bytes = data.to_vec();
    if let Ok(tensor) = decode_tensor(bytes.clone().into()) {
        let _ = (tensor.to_f32(), tensor.to_i64(), tensor.byte_count());
    }
    let Ok(proto) = decode_model(bytes.into()) else { return };
    let _ = text::parse(&text::print(&proto));
    let Ok(model) = import(proto.clone()) else { return };
    let _ = check(&model);
    assert!(encode_model(&export(&model)) == encode_model(&proto), "import and export change the model");
});
