//! The order of folders: each imports only from those below it, and no two files of a folder import each other.
//!
//! `docs/architecture.md` tells this order as a story; its tables are compared with the lists here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The folders of `msq-passes`, bottom to top, with what each is for.
const PASSES: [(&str, &str); 14] = [
    ("ops", "What the ONNX operator set says of each operator, as data."),
    ("ir", "The model in memory, lossless: graph, nodes, tensors, the file and text forms, the validator."),
    ("pass", "What a pass is, and how a list of passes is run."),
    ("target", "One file per runtime: its kernels, flags, notes and lint rules, as data."),
    ("analysis", "What a graph contains: layers, placement, quantizers, data flow."),
    ("prepare", "Passes that keep what a model computes and bring it into few forms."),
    ("partition", "Passes that cut a part out of a model, or add outputs to it."),
    ("gradient", "The pass that writes the gradient of a graph into the graph, one rule per operator."),
    ("quantize", "Passes that write integers and quantizers into the graph."),
    ("form", "Passes that choose the operators and types of a QDQ graph: on integers, in float16."),
    ("tidy", "Passes that make a finished file smaller without changing what it computes."),
    ("lint", "The engine that applies a target's rules to a quantized model."),
    ("pipelines", "Every ordered list of passes of the program, with the reason for each position."),
    ("lib", "What the crate exports."),
];

/// The folders of `msq-onnx`, bottom to top, with what each is for.
const PROGRAM: [(&str, &str); 20] = [
    ("runtime", "What a run may use and whom it tells: threads, memory, progress, cancellation."),
    ("quant", "Number grids, scales and rounding: arithmetic on slices."),
    ("data", "Samples that feed a model: files, images, synthetic inputs."),
    ("kernels", "Layers as matrix products: convolutions, and columns and moments of their inputs."),
    ("engine", "The seam to whatever runs models, and the tract back end behind it."),
    ("execute", "Runs a network, or a part of one, over samples: partition, fold, float beside quantized."),
    ("prepare", "The canonical form of a model, and the reader of quantized ones."),
    ("scheme", "What is to be done: options, bit plan, selection, resolved once."),
    ("lower", "From the QDQ graph to the file: form, packing, names."),
    ("exchange", "Encodings of other tools, read and written."),
    ("measure", "How good a network is, beside another or by labels."),
    ("report", "What a run says of itself: the data of reports, and the pages."),
    ("calibrate", "Statistics of activations, and the ranges that observers choose from them."),
    ("solve", "Weights to integers, layer by layer."),
    ("search", "The bits of every layer, sought for a target."),
    ("error", "Every error of the library, with its kind."),
    ("pipeline", "The story of a run, phase by phase."),
    ("quantizer", "The front door of the library."),
    ("lib", "What the library exports."),
    ("cli", "The command line: flags, text, exit codes."),
];

/// Source files of a crate with the module each is, tests left out.
fn modules(root: &Path) -> BTreeMap<Vec<String>, String> {
    let mut found = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            if name == "tests" || name.ends_with("_tests") {
                continue;
            }
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") && name != "main" {
                let folder = path.parent().unwrap().strip_prefix(root).unwrap();
                let mut module: Vec<String> = folder.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
                if name != "mod" {
                    module.push(name);
                }
                found.insert(module, code(&std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found
}

/// The text without comments, string contents and what is compiled for tests alone.
fn code(text: &str) -> String {
    let mut kept = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let line = line.split("//").next().unwrap();
        if line.trim() == "#[cfg(test)]" {
            // The item behind it: one line, or a block up to its brace at the same depth.
            let first = lines.next().unwrap_or_default();
            if first.ends_with('{') {
                let end = format!("{}}}", &first[..first.len() - first.trim_start().len()]);
                for line in lines.by_ref() {
                    if line == end {
                        break;
                    }
                }
            }
            continue;
        }
        kept.push_str(line);
        kept.push('\n');
    }
    let quoted = kept.split('"').enumerate();
    quoted.filter(|(at, _)| at % 2 == 0).map(|(_, part)| part).collect()
}

/// Every path of a text that starts at `crate`, `super` or `self`, use trees taken apart.
fn paths(text: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for start in ["crate::", "super::", "self::"] {
        for (at, _) in text.match_indices(start) {
            let before = text[..at].chars().next_back().unwrap_or(' ');
            // `super::super::` is met at its first `super`; `$crate` and longer words are none of these.
            if !(before.is_alphanumeric() || "_:$".contains(before)) {
                tree(&text[at..], &mut Vec::new(), &mut found);
            }
        }
    }
    found
}

/// Reads a path or a tree of paths; returns the length of what was read.
fn tree(text: &str, prefix: &mut Vec<String>, found: &mut Vec<Vec<String>>) -> usize {
    let (mut at, depth) = (0, prefix.len());
    loop {
        at += text[at..].len() - text[at..].trim_start().len();
        let rest = &text[at..];
        if rest.starts_with('{') {
            at += 1;
            while !text[at..].trim_start().starts_with('}') && at < text.len() {
                at += tree(&text[at..], prefix, found).max(1);
                at += text[at..].len() - text[at..].trim_start().len();
                at += usize::from(text[at..].starts_with(','));
            }
            at += text[at..].find('}').map_or(0, |brace| brace + 1);
            break;
        }
        let word: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        at += word.len();
        prefix.push(word);
        if text[at..].starts_with("::") {
            at += 2;
        } else {
            found.push(prefix.clone());
            // A renamed import.
            if let Some(rest) = text[at..].strip_prefix(" as ") {
                at += 4 + rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').count();
            }
            break;
        }
    }
    prefix.truncate(depth);
    at
}

/// The module that a path of another module leads to: the longest part of it that is one.
fn resolve(from: &[String], path: &[String], modules: &BTreeMap<Vec<String>, String>) -> Vec<String> {
    let mut at = from.to_vec();
    let mut rest = path.iter().peekable();
    match path[0].as_str() {
        "crate" => {
            at.clear();
            rest.next();
        }
        "self" => drop(rest.next()),
        _ => {
            while rest.next_if(|word| *word == "super").is_some() {
                at.pop();
            }
        }
    }
    for word in rest {
        at.push(word.clone());
        if !modules.contains_key(&at) {
            at.pop();
            break;
        }
    }
    at
}

/// From each module, the modules it imports from.
fn imports(root: &Path) -> BTreeMap<Vec<String>, BTreeSet<Vec<String>>> {
    let modules = modules(root);
    let one = |(module, text): (&Vec<String>, &String)| {
        let found = paths(text).iter().map(|path| resolve(module, path, &modules)).collect();
        (module.clone(), found)
    };
    modules.iter().map(one).collect()
}

/// A cycle among the nodes, if there is one.
fn cycle(edges: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    fn visit<'e>(
        node: &'e str,
        edges: &'e BTreeMap<String, BTreeSet<String>>,
        trail: &mut Vec<&'e str>,
        done: &mut BTreeSet<&'e str>,
    ) -> Option<Vec<String>> {
        if let Some(at) = trail.iter().position(|known| *known == node) {
            return Some(trail[at..].iter().map(|&name| name.to_owned()).collect());
        }
        if !done.insert(node) {
            return None;
        }
        trail.push(node);
        let found = edges.get(node).into_iter().flatten().find_map(|next| visit(next, edges, trail, done));
        trail.pop();
        found
    }
    let mut done = BTreeSet::new();
    edges.keys().find_map(|node| visit(node, edges, &mut Vec::new(), &mut done))
}

fn root(crate_folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(crate_folder)
}

/// Imports that go up, or to a folder that has no place in the order.
fn upward(root: &Path, order: &[(&str, &str)]) -> Vec<String> {
    let place = |name: &str| order.iter().position(|(folder, _)| *folder == name);
    let mut found = BTreeSet::new();
    for (module, imported) in imports(root) {
        let own = module.first().map_or("lib", String::as_str);
        let Some(own_place) = place(own) else {
            found.insert(format!("`{own}` has no place in the order"));
            continue;
        };
        for other in imported {
            // An item of the root is an export of the library.
            let name = other.first().map_or("lib", String::as_str);
            if place(name).is_none_or(|place| place > own_place) {
                found.insert(format!("`{}` imports from `{name}`", module.join("::")));
            }
        }
    }
    found.into_iter().collect()
}

/// Cycles among the files of each folder. Children and the folder's own `mod.rs` belong together.
fn cycles(root: &Path) -> Vec<String> {
    let mut folders: BTreeMap<Vec<String>, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    for (module, imported) in imports(root) {
        for other in imported {
            let shared = module.iter().zip(&other).take_while(|(a, b)| a == b).count();
            if let (Some(a), Some(b)) = (module.get(shared), other.get(shared)) {
                let siblings = folders.entry(module[..shared].to_vec()).or_default();
                siblings.entry(a.clone()).or_default().insert(b.clone());
            }
        }
    }
    let found = folders.iter().filter_map(|(folder, edges)| Some((folder, cycle(edges)?)));
    found.map(|(folder, cycle)| format!("in `{}`: {}", folder.join("::"), cycle.join(" -> "))).collect()
}

#[test]
fn folders_import_only_from_below() {
    let none: Vec<String> = Vec::new();

    assert_eq!(upward(&root("src"), &PROGRAM), none);
}

#[test]
fn no_two_modules_import_each_other() {
    let none: Vec<String> = Vec::new();
    assert_eq!(cycles(&root("passes/src")), none);
    assert_eq!(cycles(&root("src")), none);
}

#[test]
fn no_loose_files() {
    for (folder, allowed) in
        [("src", &["main", "lib", "quantizer", "error"][..]), ("passes/src", &["lib", "pipelines"][..])]
    {
        let files = std::fs::read_dir(root(folder)).unwrap().map(|entry| entry.unwrap().path());
        let loose =
            files.filter(|path| path.is_file() && !allowed.contains(&path.file_stem().unwrap().to_str().unwrap()));
        assert_eq!(loose.collect::<Vec<_>>(), Vec::<PathBuf>::new());
    }
}

/// The rows of the tables in the story, which must be the lists here, top to bottom.
#[test]
fn the_story_tells_this_order() {
    let text = std::fs::read_to_string(root("docs/architecture.md")).unwrap();
    for order in [&PROGRAM[..], &PASSES[..]] {
        let rows: Vec<String> = order.iter().rev().map(|(name, what)| format!("| `{name}` | {what} |")).collect();
        assert!(text.contains(&rows.join("\n")), "docs/architecture.md has to hold:\n{}", rows.join("\n"));
    }
}

#[test]
fn the_reader_of_imports_sees_what_rust_sees() {
    let text = code(
        "use crate::{a::{b, c::D as E}, f};\nuse super::g::{self, H};\n// crate::no\n#[cfg(test)]\nmod tests {\n    use crate::no;\n}\n\
         fn i() { crate::j::k(\"crate::no\"); }",
    );
    let mut found: Vec<String> = paths(&text).iter().map(|path| path.join("::")).collect();
    found.sort();
    let wanted = ["crate::a::b", "crate::a::c::D", "crate::f", "crate::j::k", "super::g::H", "super::g::self"];
    assert_eq!(found, wanted);
    let edges = [("a", "b"), ("b", "c"), ("c", "b")];
    let edges = edges.into_iter().fold(BTreeMap::new(), |mut all: BTreeMap<String, BTreeSet<String>>, (from, to)| {
        all.entry(from.to_owned()).or_default().insert(to.to_owned());
        all
    });
    assert_eq!(cycle(&edges), Some(vec!["b".to_owned(), "c".to_owned()]));
}
