//! The report as an HTML page: what it says, what it refuses, and what it does in a browser.

use crate::common::{Scratch, args, browser, digits, models, msq};
use serde_json::Value;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Quantizes a model with these arguments; returns the page and the JSON document of the same run.
fn reported(scratch: &Scratch, model: &Path, more: &[OsString]) -> (String, Value) {
    let (output, page) = (scratch.out("out.onnx"), scratch.out("report.html"));
    let mut all = args![model, "-o", output, "--calib", digits("calib.npz"), "--report", page, "--json"].to_vec();
    all.extend_from_slice(more);
    let document = msq(&all).ok().json();
    (std::fs::read_to_string(page).unwrap(), document)
}

#[test]
fn the_page_says_what_the_document_says() {
    let scratch = Scratch::new();
    let more = args!["--weight-bits", "4", "--samples", "64", "--keep-float", "Gemm", "--seed", "7"];
    let (page, document) = reported(&scratch, &digits("digits.onnx"), more);
    let layers = document["layers"].as_array().unwrap();
    assert_eq!(layers.len(), 9);
    for layer in layers {
        let row = row(&page, layer["name"].as_str().unwrap());
        let decibels = layer["network_sqnr"].as_f64().unwrap();
        assert!(row.contains(&format!(">{decibels:.1}</td>")), "{decibels}: {row}");
        assert!(row.contains(&format!("data-v=\"{}\"", layer["bytes"])), "{row}");
        assert!(row.contains(">4 / 8</td>"), "{row}");
    }
    assert!(row(&page, "head").contains(">float</td>"));
    let agreement = 100.0 * document["quality"]["agreement"]["same_argmax"].as_f64().unwrap();
    let ratio = document["float_bytes"].as_f64().unwrap() / document["bytes"].as_f64().unwrap();
    for part in [
        format!("<b>{ratio:.1}×</b>"),
        format!("<b>{agreement:.1} %</b>"),
        "<b>9 of 10</b>".to_owned(),
        "<dd>7</dd>".to_owned(),
        "--keep-float Gemm --seed 7".to_owned(),
        "left float by --keep-float Gemm".to_owned(),
        format!("<dd>{}</dd>", document["data"].as_str().unwrap()),
    ] {
        assert!(page.contains(&part), "no {part:?} in the page");
    }
    // Six layers, weights and what they read.
    let shown = layers.iter().filter(|layer| layer.get("weight_distribution").is_some()).count();
    assert_eq!(
        (shown, page.matches("<svg id=\"weights-").count(), page.matches("<svg id=\"reads-").count()),
        (6, 6, 6)
    );
    for outside in ["http://", "https://", "src=", "@import", "url("] {
        assert!(!page.contains(outside), "the page wants {outside:?}");
    }
}

/// The row of a layer.
#[track_caller]
fn row<'a>(page: &'a str, layer: &str) -> &'a str {
    let name = format!("<th scope=\"row\">{layer}</th>");
    page.lines().find(|line| line.contains("<tr id=") && line.contains(&name)).unwrap_or_else(|| panic!("no {layer}"))
}

/// Distributions count every weight, and their grid is that of the bits.
#[test]
fn distributions_are_of_all_weights() {
    let scratch = Scratch::new();
    let more = args!["--weight-bits", "ternary", "--samples", "64"];
    let (_, document) = reported(&scratch, &digits("digits.onnx"), more);
    for layer in document["layers"].as_array().unwrap() {
        let Some(found) = layer.get("weight_distribution") else { continue };
        let counts: u64 = found["counts"].as_array().unwrap().iter().map(|count| count.as_u64().unwrap()).sum();
        assert_eq!(counts, layer["weights"].as_u64().unwrap());
        assert_eq!(found["grid"], serde_json::json!([-1.0, 0.0, 1.0]));
        let read = &layer["input_distribution"];
        let grid: Vec<f64> = read["grid"].as_array().unwrap().iter().map(|n| n.as_f64().unwrap()).collect();
        assert!(grid.len() == 256 && grid.contains(&0.0) && grid.is_sorted());
        assert!(grid[255] <= 1.1 * read["max"].as_f64().unwrap(), "the grid reaches far beyond what is read");
    }
}

#[test]
fn a_search_shows_its_front() {
    let scratch = Scratch::new();
    let more = args!["--target-bits", "4", "--search", "msq", "--samples", "128", "--step", "4"];
    let (page, document) = reported(&scratch, &digits("digits.onnx"), more);
    let front = document["search"]["front"].as_array().unwrap().len();
    assert!(front > 0);
    assert_eq!(page.matches("<circle class=\"point\"").count(), front);
    assert_eq!(page.matches("<circle class=\"chosen\"").count(), 1);
    assert!(page.contains("id=\"accuracy-chart\"") && page.contains("<path class=\"step-4\""));
    assert!(page.contains(document["search"]["target"].as_str().unwrap()));
}

/// But for the seconds.
#[test]
fn the_same_run_gives_the_same_page() {
    let scratch = Scratch::new();
    let once = || {
        let (page, document) = reported(&scratch, &digits("digits.onnx"), args!["--samples", "64"]);
        let took = format!(
            "{:.1} s, calibration {:.1} s of it",
            seconds(&document, "seconds"),
            seconds(&document, "calibrate_seconds")
        );
        assert!(page.contains(&took));
        page.replace(&took, "")
    };
    assert!(once() == once());
}

fn seconds(document: &Value, key: &str) -> f64 {
    document[key].as_f64().unwrap()
}

#[test]
fn it_is_refused_before_the_work() {
    let scratch = Scratch::new();
    let model = scratch.path("model.onnx");
    std::fs::copy(digits("digits.onnx"), &model).unwrap();
    let output = scratch.out("out.onnx");
    let refused = |report: &Path, code, part: &str| {
        let run = msq(args![model, "-o", output, "--calib", digits("calib.npz"), "--report", report]);
        let line = run.error(code);
        assert!(line.contains(part), "{line}");
        assert_eq!(scratch.outputs(), Vec::<String>::new());
    };
    refused(&model, 1, "is an input");
    refused(&output, 2, "named for two outputs");
    refused(&scratch.out("none/report.html"), 1, "none/report.html");
    refused(&scratch.out(""), 1, "cannot write");
    assert!(std::fs::read(&model).unwrap() == std::fs::read(digits("digits.onnx")).unwrap());
}

const HOSTILE: &str = "</title><script>document.title='run'</script><img src=x onerror=document.title='run'>\"'&";

/// A model with a layer of a name that is a script, and its page.
fn hostile(scratch: &Scratch) -> PathBuf {
    let mut model = models::digits_model();
    let node = model.graph.nodes().find(|(_, node)| node.op() == "Gemm").map(|(id, _)| id).unwrap();
    model.graph.set_node_name(node, Some(HOSTILE.to_owned()));
    let path = scratch.path("<b>model.onnx");
    msq_passes::ir::save_model(&model, &path).unwrap();
    let (page, document) = reported(scratch, &path, args!["--samples", "64"]);
    assert_eq!(document["layers"][9]["name"], HOSTILE);
    assert_eq!(
        (page.matches("<script").count(), page.matches("<img").count(), page.matches("<b>model").count()),
        (1, 0, 0)
    );
    scratch.out("report.html")
}

#[test]
fn names_are_escaped() {
    hostile(&Scratch::new());
}

#[test]
fn the_page_works_in_a_browser() {
    let scratch = Scratch::new();
    let page = hostile(&scratch);
    let Some(plain) = browser::dom(&page, "") else { return };
    assert!(plain.contains("<title>&lt;b&gt;model.onnx · msq-onnx</title>"), "a name was run");
    assert_eq!(order(&plain).len(), 10);
    assert_eq!(order(&plain)[..3], ["stem.conv", "res.conv1.conv", "res.conv2.conv"]);
    assert!(plain.contains("<button type=\"button\">Layer</button>"));

    let sorted = browser::dom(&page, "sort=-weights").unwrap();
    assert_eq!(order(&sorted)[..2], ["res.conv1.conv", "res.conv2.conv"]);
    assert_eq!(
        sorted.matches("<th scope=\"col\" data-key=\"weights\" class=\"wide\" aria-sort=\"descending\"").count(),
        1
    );
    let sorted = browser::dom(&page, "sort=sqnr").unwrap();
    let decibels: Vec<f64> = lines(&sorted).map(number).collect();
    assert!(decibels.is_sorted() && decibels[0] < decibels[9], "{decibels:?}");

    let filtered = browser::dom(&page, "filter=conv1").unwrap();
    assert_eq!(lines(&filtered).filter(|line| !line.contains("hidden=\"\"")).count(), 1);
    assert!(filtered.contains(">1 of 10</output>"));

    let shown = browser::dom(&page, "layer=down.expand.conv").unwrap();
    assert!(shown.contains("aria-live=\"polite\">down.expand.conv · Conv 72×24×1×1 · bits 8 / 8"));
    assert_eq!(shown.matches("class=\"place on\"").count(), 1);
}

/// What pointing, typing and pressing keys does, by a script put behind the page's.
#[test]
fn the_page_answers() {
    let scratch = Scratch::new();
    let page = hostile(&scratch);
    let acted = |script: &str| {
        let text = std::fs::read_to_string(&page).unwrap();
        let path = scratch.path("acted.html");
        std::fs::write(&path, text.replace("</body>", &format!("<script>{script}</script></body>"))).unwrap();
        browser::dom(&path, "")
    };
    let pointed =
        "document.querySelector('[data-row=\"2\"]').dispatchEvent(new PointerEvent('pointerover', {bubbles: true}))";
    let Some(found) = acted(pointed) else { return };
    assert!(found.contains("aria-live=\"polite\">res.conv1.conv · Conv 24×24×3×3"));
    let pressed = "document.querySelector('[data-key=name] button').click()";
    let found = acted(pressed).unwrap();
    assert!(
        order(&found)[0].starts_with("&lt;/title&gt;")
            && found.contains("data-key=\"name\" class=\"text\" aria-sort=\"ascending\"")
    );
    let twice = acted(&format!("{pressed};{pressed}")).unwrap();
    assert_eq!(order(&twice)[0], "stem.conv");
    let key = "dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowRight', bubbles: true}))";
    let moved = acted(&format!("const c = document.getElementById('layer-chart'); c.{key}; c.{key}; c.{key}")).unwrap();
    assert!(moved.contains("aria-live=\"polite\">res.conv2.conv"));
    let typed = "const f = document.getElementById('filter'); f.value = 'GEMM'; f.dispatchEvent(new Event('input'))";
    assert!(acted(typed).unwrap().contains(">1 of 10</output>"));
}

fn lines(page: &str) -> impl Iterator<Item = &str> {
    page.split("<tr id=\"layer-").skip(1).map(|row| row.split("</tr>").next().unwrap())
}

/// Names of the layers as the table lists them.
fn order(page: &str) -> Vec<&str> {
    let name = |line: &'_ str| -> (usize, usize) {
        let start = line.find("<th scope=\"row\">").unwrap() + "<th scope=\"row\">".len();
        (start, start + line[start..].find("</th>").unwrap())
    };
    lines(page).map(|line| &line[name(line).0..name(line).1]).collect()
}

/// The number in the last column.
fn number(line: &str) -> f64 {
    let cell = line.rsplit("<td").next().unwrap();
    cell.split(['>', '<']).nth(1).unwrap().parse().unwrap()
}
