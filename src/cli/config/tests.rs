use super::*;
use crate::cli::Cli;
use proptest::prelude::*;
use proptest::{collection, sample};

/// A folder with a file of options, which the command line names.
struct File(tempfile::TempDir);

impl File {
    fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("msq.toml"), text).unwrap();
        Self(folder)
    }

    /// These arguments and `--config`.
    fn named_by(&self, arguments: &[&str]) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = arguments.iter().map(Into::into).collect();
        arguments.extend(["--config".into(), self.0.path().join("msq.toml").into()]);
        arguments
    }

    /// What the program understands.
    fn with(&self, arguments: &[&str]) -> String {
        understood(&super::arguments(self.named_by(arguments)).unwrap())
    }

    /// What it understands where the file is not read, for comparison.
    fn without(&self, arguments: &[&str]) -> String {
        understood(&self.named_by(arguments))
    }

    fn error(&self, arguments: &[&str]) -> String {
        super::arguments(self.named_by(arguments)).unwrap_err().to_string()
    }
}

#[track_caller]
fn understood(arguments: &[OsString]) -> String {
    let cli = Cli::of(arguments).unwrap_or_else(|error| panic!("{arguments:?}: {error}"));
    format!("{cli:?}")
}

const QUANTIZE: [&str; 4] = ["msq-onnx", "in.onnx", "-o", "out.onnx"];

/// Values, as TOML, that are none of the defaults.
fn another(arg: &Arg) -> &'static str {
    match (arg.get_long().unwrap(), value_name(arg)) {
        _ if matches!(arg.get_action(), ArgAction::SetTrue | ArgAction::SetFalse) => "true",
        ("verbose", _) => "2",
        ("skip" | "keep-float", _) => "['a', 'b,c']",
        ("output-kind", _) => "['a=values', 'b=boxes']",
        ("float16" | "freeze-initializers" | "placement", _) => "'all'",
        ("state", _) => "'h_out=h'",
        ("fix-input", _) => "['sr=16000', 'cached=true']",
        ("progress", _) => "'lines'",
        ("metric-command", _) => "'python score.py {outputs}'",
        ("preset", _) => "'lite'",
        ("filter", _) => "'bicubic'",
        ("letterbox", _) => "'corner'",
        ("gradient-code", _) => "'qsgd:4'",
        ("observer", _) => "'percentile:99.5'",
        ("solver", _) => "'lsq'",
        ("search", _) => "'ilp'",
        ("profile", _) => "'tensorrt'",
        ("rounding", _) => "'stochastic'",
        ("batch-norm", _) => "'affine'",
        ("format", _) => "'integer'",
        ("packing", _) => "'int4'",
        ("granularity", _) => "'block:32'",
        ("target-size" | "memory", _) => "'2MB'",
        ("resize" | "crop", _) => "24",
        ("ladder", _) => "[8, 'ternary']",
        ("pyramid", _) => "[1, 3]",
        (_, "PATH" | "DIR" | "MODEL") => "'folder/file'",
        (_, "N") => "7",
        (_, "F") => "1.5",
        (_, "V") => "9",
        (_, "A,B,C") => "[0.25, 1e-3]",
        (_, "P%") => "'2%'",
        (_, "BITS") => "3",
        (_, "GRID") => "'codebook'",
        (_, "NORM") => "'none'",
        (_, "BY") => "'confidence'",
        (_, "HOW") => "'gradient'",
        (_, "PLACE") => "'conv'",
        (_, "LAYOUT") => "'nhwc'",
        (_, "ORDER") => "'bgr'",
        (_, "NAME") => "'x'",
        (_, "PASS") => "'fuse-affine'",
        (_, "PART") => "'2/3'",
        (key, name) => panic!("a value for `{key}` ({name})?"),
    }
}

/// The flags that say the same, each value an argument of its own.
fn flags(arg: &Arg, value: &Value, folder: &Path) -> Vec<String> {
    let flag = format!("--{}", arg.get_long().unwrap());
    let text = |value: &Value| match value {
        Value::String(path) if ["PATH", "DIR", "MODEL"].contains(&value_name(arg)) => {
            folder.join(path).to_str().unwrap().to_owned()
        }
        Value::String(text) => text.clone(),
        value => value.to_string(),
    };
    match value {
        Value::Boolean(_) => vec![flag],
        Value::Integer(2) if flag == "--verbose" => vec!["-vv".to_owned()],
        Value::Array(values) => values.iter().flat_map(|value| [flag.clone(), text(value)]).collect(),
        value => vec![flag, text(value)],
    }
}

#[test]
fn every_flag_can_stand_in_a_file() {
    let cli = crate::cli::command();
    let commands = [
        (&cli, &QUANTIZE[..]),
        (cli.find_subcommand("search").unwrap(), &["msq-onnx", "search", "in.onnx"]),
        (cli.find_subcommand("evaluate").unwrap(), &["msq-onnx", "evaluate", "in.onnx"]),
    ];
    for (command, own) in commands {
        let mut seen = 0;
        for arg in options(command) {
            let key = arg.get_long().unwrap();
            let file = File::new(&format!("{key} = {}", another(arg)));
            let own = match (key, own.len()) {
                ("input", 4) => &["msq-onnx", "-o", "out.onnx"],
                ("output", 4) => &own[..2],
                _ => own,
            };
            let table: toml::Table = toml::from_str(&format!("{key} = {}", another(arg))).unwrap();
            let flags = flags(arg, &table[key], file.0.path());
            let same: Vec<&str> = own.iter().copied().chain(flags.iter().map(String::as_str)).collect();
            assert_eq!(file.with(own), file.without(&same), "{key}");
            // Without what they require `own` alone is not understood.
            if !["input", "output"].contains(&key) || own.len() == 3 && own[1] == "search" {
                assert_ne!(file.with(own), file.without(own), "{key} does nothing");
            }
            seen += 1;
        }
        assert!(seen > 15, "{} has {seen}", command.get_name());
    }
}

/// Files with many options are the flags together.
#[test]
fn options_add_up_in_any_place_of_the_command_line() {
    let file = File::new("input = 'in.onnx'\noutput = 'out.onnx'\nskip = 'a'\nquiet = true\nequalize = false");
    let (input, output) = (file.0.path().join("in.onnx"), file.0.path().join("out.onnx"));
    let same = ["msq-onnx", "-i", input.to_str().unwrap(), "-o", output.to_str().unwrap(), "--skip", "a", "-q"];
    assert_eq!(file.with(&["msq-onnx"]), file.without(&same));
    // Behind `--` there are no flags.
    let mut own = file.named_by(&["msq-onnx", "-o", "here.onnx"]);
    own.extend(["--".into(), "-odd.onnx".into()]);
    let text = understood(&arguments(own).unwrap());
    assert!(text.contains("-odd.onnx") && text.contains("here.onnx") && text.contains("quiet: true"), "{text}");
    assert!(!text.contains("in.onnx"), "the positional model wins: {text}");
}

#[test]
fn the_command_line_wins() {
    for (text, flags) in [
        ("samples = 7", &["--samples", "9"][..]),
        ("skip = ['a', 'b']", &["--skip", "c"]),
        ("mean = [1, 2, 3]", &["--mean", "4"]),
        ("verbose = 1", &["-vv"]),
        // What excludes what is given goes, whichever of the two says so.
        ("weight-bits = 4\nact-bits = 4", &["--plan", "p.json"]),
        ("plan = 'p.json'", &["--weight-bits", "4"]),
        ("equalize = true", &["--no-equalize"]),
        ("no-equalize = true", &["--equalize"]),
        ("quiet = true", &["-v"]),
        ("target-ratio = 8", &["--target-bits", "4"]),
        ("target-ratio = 8\nsearch = 'msq'\nladder = [8, 4]", &["--weight-bits", "4"]),
        ("weight-bits = 4\npacking = 'int4'", &["--max-drop", "1%"]),
        ("plan = 'p.json'", &["--target-size", "2MB"]),
    ] {
        let file = File::new(text);
        let own = [&QUANTIZE, flags].concat();
        assert_eq!(file.with(&own), file.without(&own), "{text}");
        assert_ne!(file.with(&QUANTIZE), file.without(&QUANTIZE), "{text} does nothing by itself");
    }
}

#[test]
fn errors_name_key_line_and_what_is_expected() {
    for (text, parts) in [
        ("# bits\nweight-bit = 4", "` line 2: `weight-bit` is no option of `msq-onnx`; did you mean `weight-bits`?"),
        ("seed = true\ncalib = 1", "` line 1: `seed` is of type boolean; expected a number"),
        ("# Größe\nseed = ü", "` line 2: string values must be quoted, expected literal string"),
        ("nothing_like_it = 4", "` line 1: `nothing_like_it` is no option of `msq-onnx`"),
        ("config = 'other.toml'", "` line 1: `config` is no option of `msq-onnx`"),
        ("help = true", "` line 1: `help` is no option of `msq-onnx`"),
        ("reference = 'a.onnx'", "` line 1: `reference` is no option of `msq-onnx`"),
        ("[search]\nstep = 2", "` line 1: `search` is of type table; expected a number or a string"),
        ("\n\nsamples = true", "` line 3: `samples` is of type boolean; expected a number"),
        ("equalize = 1", "` line 1: `equalize` is of type integer; expected true or false"),
        ("verbose = true", "` line 1: `verbose` is of type boolean; expected a number from 0 to 9"),
        ("calib = 1", "` line 1: `calib` is of type integer; expected a string"),
        ("samples = [1]", "` line 1: `samples` is of type array; expected a number"),
        ("mean = [1, 'a']", "` line 1: invalid value 'a' for '--mean <A,B,C>': invalid float literal"),
        ("mean = {}", "` line 1: `mean` is of type table; expected a list of numbers"),
        ("skip = [\n'a',\n1]", "` line 1: `skip` is of type array; expected a string or a list of strings"),
        (
            "samples = 'many'",
            "` line 1: invalid value 'many' for '--samples <N>': expected a whole number of 1 or more",
        ),
        (
            "format = 'x'",
            "` line 1: invalid value 'x' for '--format <FORM>' [possible values: qdq, qlinear, integer, nbits]",
        ),
        ("seed = 1\nseed = 2", "` line 2: duplicate key"),
        ("plan = 'p.json'\ngrid = 'full'", "`: the argument '--plan <PATH>' cannot be used with '--grid <GRID>'"),
        ("target-bits = 4\ntarget-ratio = 8", "' cannot be used with"),
    ] {
        let file = File::new(text);
        let error = file.error(&QUANTIZE);
        let name = format!("`{}", file.0.path().join("msq.toml").display());
        assert!(error.starts_with(&name) && error.contains(parts), "{text:?} gives {error}");
        assert!(parts.starts_with('\'') || error == format!("{name}{parts}"), "{error}");
    }
    assert!(File::new("weight-bits = 4").error(&["msq-onnx", "evaluate", "m"]).contains("no option of `evaluate`"));
}

/// Mistakes of the user's own are told as ever.
#[test]
fn what_is_wrong_without_a_file_is_wrong_with_one() {
    let file = File::new("seed = 1");
    for flags in [&["--nosuch"][..], &["-q", "-v"], &["--samples", "0"], &["second.onnx"]] {
        let own = [&QUANTIZE, flags].concat();
        let text = |arguments: Vec<OsString>| Cli::of(arguments).unwrap_err().kind();
        assert_eq!(text(arguments(file.named_by(&own)).unwrap()), text(file.named_by(&own)), "{own:?}");
    }
    let missing = Cli::of(arguments(file.named_by(&["msq-onnx", "in.onnx"])).unwrap()).unwrap_err();
    assert!(missing.kind() == ErrorKind::MissingRequiredArgument && missing.to_string().contains("--output"));
    for help in ["--help", "--version"] {
        assert_eq!(arguments(file.named_by(&["msq-onnx", help])).unwrap(), file.named_by(&["msq-onnx", help]));
    }
}

/// With every default uncommented nothing changes.
#[test]
fn printed_defaults_are_the_defaults() {
    let cli = crate::cli::command();
    let text = defaults(&cli);
    let mut file = String::new();
    for arg in options(&cli) {
        let key = arg.get_long().unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("#{key} = ")));
        let value = line.unwrap_or_else(|| panic!("`{key}` is missing"));
        if !arg.get_action().takes_values() || !arg.get_default_values().is_empty() {
            file.extend([key, " = ", value, "\n"]);
        }
    }
    for part in ["seed = 0", "observer = \"mse\"", "position-step = 8", "verify = 16", "quiet = false", "verbose = 0"] {
        assert!(file.contains(part), "no {part} in\n{file}");
    }
    let file = File::new(&file);
    // Which flags were given is not what they say.
    let said = |cli: &str| regex::Regex::new(r"flags: \[[^\]]*\]").unwrap().replace_all(cli, "flags").into_owned();
    assert_eq!(said(&file.with(&QUANTIZE)), said(&file.without(&QUANTIZE)));
    let headings: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    assert_eq!(headings, ["Options", "Data", "Search", "Quantization", "Output", "Run"]);
    assert!(text.contains("#skip = [\"NAME|REGEX\"]"), "{text}");
}

/// A line as one might write it, or one nobody would.
fn line() -> impl Strategy<Value = String> {
    let known = options(&crate::cli::command()).filter_map(|arg| arg.get_long().map(str::to_owned)).collect::<Vec<_>>();
    let key = prop_oneof![9 => sample::select(known), 1 => "[a-z-]{1,12}", 1 => "\\PC{0,6}"];
    let value = prop_oneof![
        "true|false|inf|-nan|0x[0-9a-f]{1,17}|-?[0-9]{1,20}(\\.[0-9]{1,3})?(e[0-9]{1,3})?",
        "'[ -&(-~]{0,12}'",
        "'[0-9]{1,4}(\\.[0-9]{1,2})?(%|MB|GiB|x|:[0-9]{1,4})?'",
        "\\[('[a-z0-9,:.%/]{0,6}', ){0,3}(1, )?\\]",
        "[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9]{2}:[0-9]{2}:[0-9]{2})?",
        "\\{ ('' = \\[)?[a-z]{0,3} = 1 \\}",
        "\\PC{0,16}",
    ];
    prop_oneof![9 => (key, value).prop_map(|(key, value)| format!("{key} = {value}")), 1 => "\\PC{0,40}"]
}

proptest! {
    #[test]
    fn whatever_a_file_says_is_taken_or_refused_in_one_line(lines in collection::vec(line(), 0..4)) {
        let file = File::new(&lines.join("\n"));
        match super::arguments(file.named_by(&QUANTIZE)) {
            Ok(arguments) => { understood(&arguments); }
            Err(error) => {
                let error = error.to_string();
                prop_assert!(error.contains("msq.toml") && !error.contains('\n'), "{error}");
            }
        }
    }
}
