"""Hash everything that msq-onnx writes for many models and flags, or show what differs from an earlier time.

    python hashes.py --msq path/to/msq-onnx --out HASHES.txt
    python hashes.py --msq path/to/msq-onnx --compare HASHES.txt

Each line is a SHA-256 and the name of a case with what was written: `digits/w4/out.onnx`. A case is one command, or a
few where the second reads what the first wrote. Of a JSON document there are two hashes, `.json` for what it says and
`.words` for the sentences in it (reasons, notes, findings); times and the version are left out, as times are in a page.
A command that fails counts with its exit code and the first line it printed.

`--quick` takes a minute and the models of this repository only. `--shared DIR` adds larger models, see README.md.
Commands run with one thread; where a case says so, they run again with two, which has to give the same.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import hashlib
import json
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx.parser

ROOT = Path(__file__).resolve().parent.parent
WORDS = {"data", "notes", "reason", "message"}
DROPPED = {"tool_version", "arguments", "seconds", "calibrate_seconds"}
BROKEN = "broken"

PROFILES = ["ort-cpu", "ort-arm", "tensorrt", "openvino", "qnn", "tract"]
SOLVERS = ["round", "cosine", "gram", "adaround --solver-steps 20", "lsq --solver-steps 20"]
METHODS = ["auto", "msq", "sensitivity", "ilp", "uniform"]
TARGETS = ["target-ratio 12", "target-bits 3", "target-size 20KB", "max-drop 3%", "target-bit-ops 40%"]
ENCODINGS = ["aimet-0.6.1", "aimet-1.0", "aimet-2", "ort", "tensorrt"]
SMALL_SEARCH = "--ladder 8,4,2,ternary --search-samples 16 --repairs 3"

# Flags of one command that quantizes.
CORE = [
    "",
    "--weight-bits 4",
    "--weight-bits 3",
    "--weight-bits 2",
    "--weight-bits ternary",
    "--weight-bits binary",
    "--weight-bits 4 --act-bits 4",
    "--weight-bits 4 --grid codebook",
    "--weight-bits 4 --solver adaround --solver-steps 20",
    "--weight-bits 4 --solver lsq --solver-steps 20",
    "--batch-norm affine",
    "--weight-bits 4 --batch-norm affine",
    "--weight-bits 4 --functions",
    "--weight-bits 4 --half-scales",
    "--weight-bits 4 --packing int4",
    "--format qlinear",
    "--weight-bits 4 --format qlinear",
    "--format integer",
    "--equalize",
    "--weight-bits 4 --first-last-bits 8",
    *(f"--profile {profile}" for profile in PROFILES),
    *(f"--weight-bits 4 --profile {profile}" for profile in PROFILES),
]
MORE = [
    "--weight-bits 7",
    "--weight-bits 6",
    "--weight-bits 5",
    "--weight-bits 8 --act-bits 4",
    "--act-bits 2",
    "--act-bits float",
    "--weight-bits 4 --act-bits float",
    "--weight-bits 6 --act-bits same",
    "--act-bits 4 --format qlinear",
    *(f"--weight-bits {bits} --grid {grid}" for bits in (8, 4) for grid in ("narrow", "full", "fixed-point", "wage")),
    "--weight-bits binary --grid sign",
    *(f"--weight-bits {bits} --grid power-of-two" for bits in (2, 3, 4)),
    *(f"--weight-bits {bits} --grid binary-bases" for bits in (2, 3, 6)),
    *(f"--weight-bits {bits} --grid codebook" for bits in (2, 3, 7)),
    *(f"--weight-bits 3 --solver {solver}" for solver in SOLVERS),
    *(f"--weight-bits 8 --solver {solver}" for solver in SOLVERS),
    "--weight-bits ternary --solver lsq --solver-steps 20",
    "--weight-bits 4 --position-step 1",
    "--weight-bits 4 --solver round --rounding stochastic --seed 7",
    "--weight-bits 4 --seed 7 --solver adaround --solver-steps 20",
    *(f"--weight-bits {bits} --packing {packing}" for bits in (4, 2) for packing in ("auto", "none", "int4", "int2")),
    "--weight-bits ternary --packing none",
    *(f"--weight-bits {bits} --functions" for bits in (3, "ternary", "binary")),
    "--weight-bits 4 --grid codebook --functions",
    "--half-scales",
    "--weight-bits ternary --half-scales",
    *(f"--batch-norm affine --format {form}" for form in ("qlinear", "integer")),
    *(f"--weight-bits {bits} --format integer" for bits in (4, "ternary")),
    *(f"--profile {profile} --format {form}" for profile in PROFILES for form in ("qlinear", "integer")),
    *(f"--weight-bits ternary --profile {profile}" for profile in PROFILES),
    *(f"--weight-bits 4 --packing int4 --profile {profile}" for profile in PROFILES),
    "--profile tract --no-equalize",
    "--weight-bits 4 --equalize",
    "--no-bias-correction",
    "--weight-bits 3 --no-bias-correction",
    *(
        f"--observer {observer}"
        for observer in ("min-max", "moving-average", "percentile", "percentile:99.9", "entropy", "mse", "cosine")
    ),
    "--act-bits 4 --observer cosine",
    *(f"--weight-bits 3 --act-bits 3 --first-last-bits {bits}" for bits in (8, 6, "same")),
    "--skip stem.conv --skip inv[.].*",
    "--skip nothing",
    "--keep-float Add",
    "--keep-float Conv",
    "--strip-names",
    "--weight-bits 4 --keep-names",
    "--verify 0",
    "--target-bits 3 --weight-bits 4",
]
NETWORKS = [
    "",
    "--weight-bits 4",
    "--weight-bits ternary --strip-names",
    "--weight-bits 3 --functions",
    "--batch-norm affine",
    "--equalize",
    "--format qlinear",
    "--format integer",
    "--profile tensorrt",
    "--profile qnn",
    "--profile tract",
]
LARGE = ["", "--weight-bits 4", "--batch-norm affine", "--format qlinear", "--profile tract"]

# An external file holds the weights of this one, so that `--memory` makes stages.
DEEP = """<ir_version: 8, opset_import: ["": 17]>
    deep (float[N,64] x) => (float[N,64] y)
    <float[64,64] a = {}, float[64,64] b = {}, float[64,64] c = {}, float[64,64] d = {}>
    {
        t0 = MatMul (x, a)  t1 = Relu (t0)
        t2 = MatMul (t1, b)  t3 = Add (t2, t1)
        t4 = MatMul (t3, c)  t5 = Relu (t4)
        y = MatMul (t5, d)
    }"""


@dataclass(frozen=True)
class Case:
    """Commands that run one after the other in a folder of their own; what they write there is hashed."""

    name: str
    commands: tuple[str, ...]
    # How long it takes, about: 0 is part of `--quick`.
    weight: int = 1
    again: bool = False


def label(flags: str) -> str:
    """The name of a case from its flags."""
    short = flags.replace("--weight-bits ", "w").replace("--act-bits ", "a").replace("--", "")
    return re.sub(r"[^\w.:%]+", "-", short).strip("-") or "w8"


def quantize(model: str, data: str, flags: str, output: str = "out.onnx") -> str:
    """The command that quantizes."""
    return f"in/{model} -o {output} -q {data} {flags}"


# Input models.


def seed(name: str) -> int:
    """A number that follows from a name alone."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")


def made_up(tensor: onnx.TensorProto, how: str) -> np.ndarray:
    """Elements for a tensor that the text leaves open, from its name."""
    shape = tuple(tensor.dims)
    random = np.random.default_rng(seed(tensor.name))
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    if dtype == np.bool_ or np.issubdtype(dtype, np.integer):
        return random.integers(0, 2, shape).astype(dtype)
    if how.startswith("positive"):
        return random.uniform(0.5, 1.5, shape).astype(dtype)
    reach = (6 / max(1, int(np.prod(shape[1:])))) ** 0.5
    return random.uniform(-reach, reach, shape).astype(dtype)


def parsed(text: str) -> onnx.ModelProto:
    """A model from the textual syntax, `{}` filled in."""
    model = onnx.parser.parse_model(text)
    fills = dict(re.findall(r"([\w.]+) = \{\},?\s*# fill ([^:\n]+)", text))
    for tensor in model.graph.initializer:
        count = int(np.prod(tensor.dims))
        lists = (tensor.float_data, tensor.int32_data, tensor.int64_data, tensor.double_data, tensor.uint64_data)
        stored = tensor.raw_data or tensor.string_data or tensor.external_data or any(lists)
        if count and not stored and tensor.data_type not in (onnx.TensorProto.STRING, onnx.TensorProto.UNDEFINED):
            packed = tensor.data_type > onnx.TensorProto.BFLOAT16
            elements = b"\x11" * count if packed else made_up(tensor, fills.get(tensor.name, "")).tobytes()
            tensor.raw_data = elements
    return model


def write_texts(source: Path, target: Path) -> None:
    """All text models below a folder as ONNX files; those that are no models to `onnx` are left out."""
    for path in sorted(source.rglob("*.onnxtxt")):
        place = target / path.relative_to(source).with_suffix(".onnx")
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            place.write_bytes(parsed(path.read_text()).SerializeToString())
        except (onnx.parser.ParseError, ValueError, TypeError):
            continue


def write_deep(folder: Path) -> None:
    """The model with its weights in another file, and data for it."""
    model = parsed(DEEP)
    onnx.save_model(
        model, folder / "deep.onnx", save_as_external_data=True, location="deep.bin", size_threshold=0
    )
    np.savez(folder / "deep.npz", x=np.linspace(-1, 1, 8 * 64, dtype=np.float32).reshape(8, 64))


def write_inputs(folder: Path, shared: Path | None) -> None:
    """Everything the commands read, at `in/`."""
    folder.mkdir(parents=True)
    (folder / "digits").symlink_to(ROOT / "testdata/digits")
    write_texts(ROOT / "tests/networks", folder / "networks")
    write_texts(ROOT / "testdata/passes", folder / "passes")
    write_texts(ROOT / "testdata/lint", folder / "lint")
    write_deep(folder)
    for broken in ("lint/function.onnx", "digits/digits.onnx"):
        whole = (folder / broken).read_bytes()
        (folder / f"{BROKEN}-{Path(broken).name}").write_bytes(whole[: len(whole) // 2])
    if shared:
        (folder / "shared").symlink_to(shared.resolve())


# Cases.


def digits_cases() -> Iterator[Case]:
    """The network of the repository with its data."""
    model, data = "digits/digits.onnx", "--calib in/digits/calib.npz --samples 32"
    for index, flags in enumerate([*CORE, *MORE]):
        quick = (index < len(CORE) or index % 2 == 0) and "codebook" not in flags
        yield Case(f"digits/{label(flags)}", (quantize(model, data, flags),), 0 if quick else 1, index % 9 == 0)
    yield Case("digits/made-up", (quantize(model, "--samples 4", "--weight-bits 4"),), 0)
    report = "--json --report page.html --save-plan plan.json"
    for flags in ("", "--weight-bits 4", "--weight-bits ternary --format qlinear", "--profile tract"):
        yield Case(f"digits/documents/{label(flags)}", (f"in/{model} -o out.onnx {data} {flags} {report}",), 0)
    first = quantize(model, data, "--weight-bits 3 --first-last-bits 8 --save-plan plan.json", "first.onnx")
    yield Case("digits/plan", (first, quantize(model, data, "--plan plan.json")), 0)
    yield Case("digits/plan-of-model", (first, quantize(model, data, "--plan first.onnx")), 0)
    yield from exchange_cases(model, data)
    yield from judging_cases(model, data)
    yield from search_cases(model, "--calib in/digits/calib.npz --samples 64")


def exchange_cases(model: str, data: str) -> Iterator[Case]:
    """Encodings out and in."""
    for flags in ("", "--weight-bits 4 --packing none", "--profile tensorrt"):
        first = quantize(model, data, f"{flags} --keep-names", "first.onnx")
        for form in ENCODINGS:
            export = f"export-encodings first.onnx --format {form} --json -o encodings"
            again = quantize(model, data, f"{flags} --observer min-max --encodings encodings")
            yield Case(f"digits/encodings/{label(flags)}/{form}", (first, export, again), 0)


def judging_cases(model: str, data: str) -> Iterator[Case]:
    """What is said of a float and a quantized model."""
    test = "--calib in/digits/test.npz --samples 64 --json"
    for flags in ("", "--weight-bits 4", "--weight-bits ternary --functions", "--format qlinear"):
        first = quantize(model, data, flags, "first.onnx")
        more = (
            f"evaluate first.onnx {test} --save-outputs outputs.npz",
            f"evaluate first.onnx --reference in/{model} {test}",
            f"compare in/{model} first.onnx {test}",
            "inspect first.onnx --json",
            "print first.onnx",
            "print --dot first.onnx",
            *(f"lint first.onnx --profile {profile} --json" for profile in PROFILES),
        )
        yield Case(f"digits/judged/{label(flags)}", (first, *more), 0, not flags)
    yield Case("digits/inspect", (f"inspect in/{model} --json", f"print in/{model}"), 0)


def search_cases(model: str, data: str, prefix: str = "digits") -> Iterator[Case]:
    """Each method with each kind of target; `auto` without a short ladder, too."""
    for method in METHODS:
        for target in TARGETS:
            flags = f"--{target} --search {method} {SMALL_SEARCH}"
            again = prefix == "digits" and (method, target) in zip(METHODS, TARGETS, strict=True)
            quick = again and method in ("msq", "uniform")
            commands = (f"{quantize(model, data, flags)} --save-plan plan.json",)
            yield Case(f"{prefix}/search/{method}-{label(target)}", commands, 0 if quick else 2, again)
    wide = f"search in/{model} {data} {SMALL_SEARCH}"
    yield Case(f"{prefix}/search/front", (f"{wide} -q -o found.json --front front",), 2)
    yield Case(f"{prefix}/search/max-drop", (f"{wide} --search msq --step 2 --tap conv --json",), 2)
    rest = "--search msq --search-first-layer --pyramid 1,2 --imprint-norm none --imprint-weight confidence"
    yield Case(f"{prefix}/search/msq-choices", (f"{wide} --target-bits 3 {rest} --json",), 2)
    long = f"--ladder 8,7,6,5,4,3,2,ternary {data} --target-ratio 14 --search-samples 16 --json"
    yield Case(f"{prefix}/search/long", (f"in/{model} -o out.onnx {long}",), 3)


def memory_cases() -> Iterator[Case]:
    """Weights in another file, the engine having them all, some, or none."""
    for memory in ("10MB", "200KB", "100KB"):
        for flags in ("", "--weight-bits 3", "--weight-bits 4 --solver lsq --solver-steps 20", "--profile tract"):
            command = quantize("deep.onnx", "--calib in/deep.npz", f"--memory {memory} {flags}")
            report = command.replace("-q", "--json --report page.html")
            yield Case(f"deep/{memory}/{label(flags)}", (report,), 0, not flags)
    yield Case("digits/memory", (quantize("digits/digits.onnx", "--samples 8", "--memory 1MB"),), 0)


def text_cases(inputs: Path) -> Iterator[Case]:
    """Small networks, those of the linter, and the fixtures of the passes."""
    for path in sorted((inputs / "networks").glob("*.onnx")):
        model = f"networks/{path.name}"
        for index, flags in enumerate(NETWORKS):
            command = quantize(model, "--samples 4", flags)
            yield Case(f"networks/{path.stem}/{label(flags)}", (command,), 0 if index == 0 else 1)
        yield Case(f"networks/{path.stem}/inspect", (f"inspect in/{model} --json",), 1)
    for path in sorted((inputs / "lint").glob("*.onnx")):
        commands = tuple(f"lint in/lint/{path.name} --profile {profile} --json" for profile in PROFILES)
        yield Case(f"lint/{path.stem}", commands, 1)
    for path in sorted((inputs / "passes").rglob("*.onnx")):
        model = str(path.relative_to(inputs))
        commands = (quantize(model, "--samples 2", ""), f"inspect in/{model} --json", f"lint in/{model} --json")
        yield Case(model.removesuffix(".onnx"), commands, 1)
    for path in sorted(inputs.glob(f"{BROKEN}-*.onnx")):
        yield Case(path.stem, (quantize(path.name, "", ""), f"inspect in/{path.name}", f"lint in/{path.name}"), 0)


def shared_cases(folder: Path) -> Iterator[Case]:
    """The sample models of the benchmarks, on few samples."""
    cifar = "--calib in/shared/cifar10/calib.npz --input-array x"
    rows = [
        ("resnet20", "resnet20_cifar10", f"{cifar} --preset imagenet --samples 16", CORE, 2),
        ("resnet8", "resnet8_cifar10", f"{cifar} --preset raw --samples 16", [*CORE, *MORE], 2),
        ("magika", "magika_standard_v3_3", "--calib in/shared/magika/magika_set.npz --input-array x --samples 8",
         [*LARGE, *(f"--profile {profile}" for profile in PROFILES[1:5])], 3),
        ("ocr", "ch_PP-OCRv4_rec_infer", "--calib in/shared/ocr/ocr_latin.npz --input-array x --scale 0.0039215686 "
         "--mean 0.5,0.5,0.5 --std 0.5,0.5,0.5 --samples 4", LARGE, 3),
        ("efficientnet", "efficientnet_lite0", "--calib in/shared/imagenet/images --preset lite --samples 4",
         [*LARGE, "--weight-bits ternary --functions", "--profile tensorrt"], 3),
        ("minilm", "minilm_l6", "--calib in/shared/minilm/calib.npz --samples 4",
         ["", "--weight-bits 4 --solver round", "--weight-bits 8 --memory 60MB"], 3),
        ("detector", "detector_640", "--calib in/shared/detector/images --preset unit --resize 320x320 --samples 2",
         LARGE, 3),
    ]
    for name, file, data, settings, weight in rows:
        if not (folder / f"models/{file}.onnx").exists():
            continue
        model = f"shared/models/{file}.onnx"
        for index, flags in enumerate(settings):
            yield Case(f"{name}/{label(flags)}", (quantize(model, data, flags),), weight, index == 1)
        first = quantize(model, data, "", "first.onnx")
        judged = f"evaluate first.onnx --reference in/{model} {data} --json"
        compared = f"compare in/{model} first.onnx {data} --json"
        lint = (f"lint first.onnx --profile {profile} --json" for profile in PROFILES)
        yield Case(f"{name}/judged", (first, judged, compared, f"inspect in/{model} --json", *lint), weight)
        if name == "resnet8":
            yield from search_cases(model, data.replace("--samples 16", "--samples 48"), name)
        if name == "resnet20":
            flags = f"--target-ratio 8 --ladder 8,4,2 --search-samples 8 --repairs 2"
            yield Case(f"{name}/search", (quantize(model, data.replace("16", "32"), flags),), weight)


# Running.


def sha(data: bytes) -> str:
    """The hash that stands in the file."""
    return hashlib.sha256(data).hexdigest()


def split_words(value: object, words: list[str]) -> object:
    """A document without times and version, its sentences moved to `words`."""
    if isinstance(value, list):
        return [split_words(entry, words) for entry in value]
    if not isinstance(value, dict):
        return value
    for key in sorted(WORDS & value.keys()):
        words.append(json.dumps(value[key]))
    kept = {key: entry for key, entry in value.items() if key not in WORDS | DROPPED}
    return {key: split_words(entry, words) for key, entry in kept.items()}


def parts(name: str, data: bytes) -> Iterator[tuple[str, bytes]]:
    """What is hashed of one file."""
    if name.endswith(".html"):
        yield name, re.sub(rb"\d[\d.,]*( |&nbsp;|\xc2\xa0)(ms|s|min|h)\b|--threads \d+", b"", data)
        return
    try:
        document = json.loads(data) if data[:1] in (b"{", b"[") else None
    except ValueError:
        document = None
    if document is None:
        yield name, data
        return
    words: list[str] = []
    yield name, json.dumps(split_words(document, words)).encode()
    if words:
        yield f"{name}.words", "\n".join(words).encode()


def run_case(msq: Path, case: Case, inputs: Path, threads: int, keep: Path | None) -> dict[str, str]:
    """Runs the commands; the hashes by name."""
    found: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) if keep is None else keep / case.name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "in").unlink(missing_ok=True)
        (folder / "in").symlink_to(inputs)
        for index, command in enumerate(case.commands):
            step = f"{index}-{command.split()[0]}" if len(case.commands) > 1 and "/" not in command.split()[0] else "run"
            step = step if step != "run" or len(case.commands) == 1 else f"{index}-run"
            takes_threads = command.split()[0] not in ("inspect", "lint", "print", "export-encodings")
            more = ["--threads", str(threads)] if takes_threads else []
            run = subprocess.run([msq, *shlex.split(command), *more], cwd=folder, capture_output=True, check=False)
            if run.stdout:
                hashes = parts(step, run.stdout)
                found |= {f"{case.name}/{part}": sha(data) for part, data in hashes}
                if keep:
                    (folder / f"{step}.stdout").write_bytes(run.stdout)
            if run.returncode:
                found[f"{case.name}/{step}.exit-{run.returncode}"] = sha(run.stderr.split(b"\n")[0])
        for path in sorted(folder.rglob("*")):
            name = str(path.relative_to(folder))
            if path.is_file() and not path.is_symlink() and not name.endswith(".stdout"):
                found |= {f"{case.name}/{part}": sha(data) for part, data in parts(name, path.read_bytes())}
        (folder / "in").unlink()
    return found


def run_all(args: argparse.Namespace, cases: list[Case], inputs: Path) -> tuple[dict[str, str], list[str]]:
    """All hashes, and the names that come out otherwise with two threads."""
    found: dict[str, str] = {}
    unequal: list[str] = []

    def one(case: Case) -> tuple[dict[str, str], dict[str, str], float]:
        start = time.monotonic()
        hashes = run_case(args.msq, case, inputs, 1, args.keep)
        again = run_case(args.msq, case, inputs, 2, None) if case.again else hashes
        return hashes, again, time.monotonic() - start

    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        for case, (hashes, again, seconds) in zip(cases, pool.map(one, cases), strict=True):
            found |= hashes
            names = hashes.keys() | again.keys()
            unequal += sorted(name for name in names if hashes.get(name) != again.get(name))
            if args.times:
                print(f"{seconds:8.2f} {case.name}", file=sys.stderr)
    return found, unequal


def read_hashes(path: Path) -> dict[str, str]:
    """Names with hashes, from a file this script wrote."""
    lines = (line.split("  ", 1) for line in path.read_text().splitlines())
    return {name: digest for digest, name in lines}


def case_of(name: str, cases: list[Case]) -> Case | None:
    """The case that wrote it: the longest name before it."""
    fitting = [case for case in cases if name.startswith(f"{case.name}/")]
    return max(fitting, key=lambda case: len(case.name), default=None)


def differences(before: dict[str, str], now: dict[str, str], cases: list[Case]) -> list[str]:
    """One line each: what is other, gone or new, of the cases that ran."""
    lines = []
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) == now.get(name) or (case := case_of(name, cases)) is None:
            continue
        kind = "new" if name not in before else "gone" if name not in now else "other"
        lines.append(f"{kind:5} {name}\n      {' ; '.join(' '.join(c.split()) for c in case.commands)}")
    return lines


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--msq", type=Path, required=True, help="the msq-onnx binary")
    parser.add_argument("--shared", type=Path, help="folder with models and data, see README.md")
    parser.add_argument("--out", type=Path, help="write the hashes here")
    parser.add_argument("--compare", type=Path, help="list what differs from these hashes")
    parser.add_argument("--quick", action="store_true", help="a part of it, models of this repository only")
    parser.add_argument("--only", help="cases whose name has a match of this regular expression")
    parser.add_argument("--keep", type=Path, help="leave what was written in this folder")
    parser.add_argument("--jobs", type=int, default=1, help="cases that run at once")
    parser.add_argument("--times", action="store_true", help="print the seconds of each case")
    args = parser.parse_args()
    if not args.out and not args.compare:
        parser.error("nothing to do: --out or --compare")
    args.msq = args.msq.resolve()
    args.keep = args.keep and args.keep.resolve()
    return args


def main() -> None:
    """Run, write, compare."""
    args = parse_arguments()
    with tempfile.TemporaryDirectory() as scratch:
        inputs = Path(scratch) / "in"
        write_inputs(inputs, None if args.quick else args.shared)
        cases = [*digits_cases(), *memory_cases(), *text_cases(inputs)]
        if args.shared and not args.quick:
            cases += shared_cases(args.shared)
        cases = [case for case in cases if not args.quick or case.weight == 0]
        cases = [case for case in cases if not args.only or re.search(args.only, case.name)]
        found, unequal = run_all(args, cases, inputs)
    if args.out:
        args.out.write_text("".join(f"{found[name]}  {name}\n" for name in sorted(found)))
    for name in unequal:
        print(f"two threads give another {name}")
    lines = differences(read_hashes(args.compare), found, cases) if args.compare else []
    for line in lines:
        print(line)
    print(f"{len(cases)} cases, {len(found)} hashes, {len(lines)} differ, {len(unequal)} depend on the threads")
    sys.exit(1 if lines or unequal else 0)


if __name__ == "__main__":
    main()
