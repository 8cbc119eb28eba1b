//! Text as a model: what is parsed can be printed, and the print parsed again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use msq_passes::ir::{check, import, text};

fuzz_target!(|data: &str| {
    let Ok(proto) = text::parse(data) else { return };
    let printed = text::print(&proto);
    if let Err(error) = text::parse(&printed) {
        panic!("{error} in the print:\n{printed}");
    }
    if let Ok(model) = import(proto) {
        let _ = check(&model);
    }
});
