use msq_passes::ir;
use std::time::Instant;
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::infer::Factoid;
fn main() -> anyhow::Result<()> {
    let path = std::env::args().nth(1).unwrap();
    let shape: Vec<usize> = std::env::args().nth(2).unwrap().split(',').map(|s| s.parse().unwrap()).collect();
    let mut model = ir::load_model(std::path::Path::new(&path))?;
    let m2 = model.clone();
    println!("roundtrip {}", ir::encode_model(&ir::export(&model)).len());
    let orig = ir::decode_model(std::fs::read(&path)?.into())?;
    println!("equal {}", orig == ir::export(&m2));
    let recs = msq_passes::Manager::new()
        .validating(true)
        .with(msq_passes::LiftConstants)
        .with(msq_passes::EliminateIdentities)
        .with(msq_passes::FuseBatchNorm)
        .with(msq_passes::EliminateDeadNodes)
        .run(&mut model)?;
    for r in recs {
        println!("{} {} {:?}", r.pass, r.outcome, r.time);
    }
    let t = Instant::now();
    model.graph.clear_value_info();
    let bytes = ir::encode_model(&ir::export(&model));
    let onnx = tract_onnx::onnx().with_ignore_value_info(true);
    let proto = onnx.proto_model_for_read(&mut std::io::Cursor::new(bytes))?;
    let parsed = onnx.parse(&proto, None)?;
    println!("unresolved {:?}", parsed.unresolved_inputs);
    let mut m = parsed.model;
    let t0 = Instant::now();
    let mut mm = m.clone();
    let r = mm.analyse(false);
    println!("symbolic analyse {:?} {:?}", r, t0.elapsed());
    let mut nk = 0;
    let mut nsh = 0;
    for (name, outlet) in &parsed.outlets_by_name {
        if let Ok(f) = mm.outlet_fact(*outlet) {
            if f.value.concretize().is_some() {
                nk += 1;
                let op = mm.node(outlet.node).op.name();
                if op != "Const" {
                    println!("  konst {name} {op} {:?}", f);
                }
            } else if f.shape.concretize().is_some() {
                nsh += 1;
            }
        }
    }
    println!("konst {nk} shapes {nsh}");
    let taps: Vec<OutletId> = if std::env::args().nth(3).is_some() {
        let pl = msq_passes::analysis::Placement::new(&model, &msq_passes::Profile::ORT_CPU, |_, _| None);
        println!(
            "layers {} roots {} absorbed {} kept {:#?}",
            pl.layers().count(),
            pl.roots().count(),
            pl.absorbed.len(),
            pl.kept.iter().map(|k| format!("{} {} {}", k.node, k.op, k.reason)).collect::<Vec<_>>()
        );
        let mut v: Vec<OutletId> = m.output_outlets()?.to_vec();
        for root in pl.roots() {
            let n = model.graph.value(root).name();
            v.push(parsed.outlets_by_name[n]);
        }
        v
    } else {
        m.output_outlets()?.to_vec()
    };
    m.select_output_outlets(&taps)?;
    m.set_input_fact(
        0,
        InferenceFact::dt_shape(if shape.len() == 2 { i32::datum_type() } else { f32::datum_type() }, &shape),
    )?;
    let m = m.into_optimized()?;
    println!("build {:?}", t.elapsed());
    let plan = m.into_runnable()?;
    let mut st = plan.spawn()?;
    let input: TValue =
        if shape.len() == 2 { Tensor::zero::<i32>(&shape)? } else { Tensor::zero::<f32>(&shape)? }.into();
    let t = Instant::now();
    let n = 30;
    for _ in 0..n {
        st.run(tvec!(input.clone()))?;
    }
    println!("run {:?}", t.elapsed() / n);
    Ok(())
}
