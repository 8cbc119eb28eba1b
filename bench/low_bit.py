"""Sizes and speeds of models with weights below 8 bits.

For ResNet20, EfficientNet-Lite0 and a network of ResNet50's shape with random weights: bytes on disk, latency in
onnxruntime and OpenVINO on one thread, and what loading takes. Every packed file has to compute, bit for bit, what
the same integers do stored a byte each; where one does not, the script says so and fails.
Writes `low_bit.json`, `low_bit.md` and the models into `--out`.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import random_resnet50
from common import TASKS, Feed
from compare_ort import environment, measured
from runtimes import OpenVino, Run, integer_share, interleaved, ort_nodes, ort_run

HERE = Path(__file__).resolve().parent
MODELS = ["resnet20", "efficientnet", "resnet50"]
PARTS = ["ort", "load", "openvino"]
OPENVINO_MODELS = ["resnet20", "resnet50"]
LOAD_MODELS = ["resnet50"]
SAMPLES_CHECKED = 4
# Calibration that is short: sizes and speeds do not depend on it.
SAMPLES = {"efficientnet": 16, "resnet50": 4}
# Five trits a byte.
TERNARY_BITS = 1.6

Json = dict[str, Any]
Flags = tuple[str, ...]


def flags(text: str) -> Flags:
    """Arguments of one form."""
    return tuple(text.split())


WIDTHS = ["8", "7", "6", "5", "4", "3", "2", "ternary"]
FORMS = {"qdq": (), "qlinear": flags("--format qlinear"), "functions": flags("--functions")}
PLAIN = flags("--weight-bits 8")
OTHERS = [
    flags(f"--weight-bits {text}")
    for text in [
        "4 --packing int4",
        "4 --packing int4 --format qlinear",
        "4 --half-scales",
        "2 --half-scales",
        "4 --grid codebook",
        "2 --grid codebook",
        "8 --batch-norm affine",
        "4 --batch-norm affine",
        "8 --act-bits 4",
        "4 --act-bits 4",
        "8 --act-bits float",
        "4 --act-bits float",
        "8 --format integer",
        "4 --format integer",
    ]
]
SIZES_ONLY = [flags("--weight-bits 2 --packing none"), flags("--weight-bits 2 --keep-names")]
SIZED = [
    *(flags(f"--weight-bits {width}") for width in WIDTHS),
    *OTHERS[:2],
    *(flags(f"--weight-bits {width} --format qlinear") for width in ("8", "4", "2")),
    *OTHERS[2:8],
    *SIZES_ONLY,
]
LOADED = [
    *(flags(f"--weight-bits {width}") for width in WIDTHS),
    OTHERS[0],
    flags("--weight-bits 4 --format qlinear"),
    flags("--weight-bits 4 --functions"),
    flags("--weight-bits 3 --functions"),
    flags("--weight-bits 4 --grid codebook"),
    flags("--weight-bits 4 --act-bits float"),
]
OPENVINO_FORMS = [
    *(flags(f"--weight-bits {width}") for width in WIDTHS),
    OTHERS[0],
    flags("--weight-bits 4 --half-scales"),
    flags("--weight-bits 4 --grid codebook"),
    flags("--weight-bits 8 --profile openvino"),
    flags("--weight-bits 4 --profile openvino"),
    flags("--weight-bits 4 --packing int4 --profile openvino"),
]


@dataclass
class Bench:
    """One model: where its files are, what runs it, and what has been found out."""

    name: str
    model: Path
    data_args: list[str]
    feeds: list[Feed]
    out: Path
    msq: Path
    digest: str
    faults: list[str]
    made: dict[Flags, Json] = field(default_factory=dict)
    checks: dict[Flags, str] = field(default_factory=dict)

    def path(self, form: Flags) -> Path:
        """The file of one form."""
        return self.out / f"{self.name}{''.join(form).replace('--', '.')}.onnx"

    def make(self, form: Flags) -> Path | None:
        """Quantizes unless the same program did so before; None where it fails."""
        path, note = self.path(form), self.path(form).with_suffix(".json")
        command = [str(self.msq), str(self.model), "-o", str(path), "--json", "--verify", "0", *self.data_args, *form]
        if form not in self.made:
            earlier = json.loads(note.read_text()) if note.exists() else {}
            if earlier.get("command") != command or earlier.get("digest") != self.digest or not path.exists():
                print(f"{self.name}: {' '.join(form)}", file=sys.stderr)
                path.unlink(missing_ok=True)
                earlier = {"command": command, "digest": self.digest} | quantize(command)
                note.write_text(json.dumps(earlier) + "\n")
            self.made[form] = earlier
            if "error" in earlier:
                self.fault(form, earlier["error"])
        return None if "error" in self.made[form] else path

    def fault(self, form: Flags, what: str) -> None:
        """Remembers what is not as it should be."""
        text = f"{self.name} `{' '.join(form)}`: {what}"
        print(f"FAULT {text}", file=sys.stderr)
        self.faults.append(text)

    def check(self, form: Flags) -> str:
        """Whether onnxruntime computes the same as from weights of a byte each, and how many layers on integers."""
        if form not in self.checks:
            self.checks[form] = self.checked(form)
        return self.checks[form]

    def checked(self, form: Flags) -> str:
        """The work of `check`."""
        packed, plain = self.make(form), self.make(unpacked(form))
        if packed is None or plain is None:
            return "not made"
        try:
            nodes, expected = ort_nodes(packed), ort_nodes(plain)
            verdict = self.compare(form, ort_run(packed), ort_run)
        except Exception as error:  # noqa: BLE001 - a file that does not run is a result
            self.fault(form, f"does not run: {str(error).splitlines()[0]}")
            return "does not run"
        if nodes - expected:
            self.fault(form, f"nodes remain that `--packing none` does not have: {nodes - expected}")
        integer, layers = integer_share(nodes)
        return f"{verdict}, {integer}/{layers}"

    def compare(self, form: Flags, run: Run, load: Callable[[Path], Run]) -> str:
        """Whether outputs are those of weights of a byte each: `same`, `bias` where biases are not, or `DIFFERS`.

        Packed files keep the biases of convolutions in float where the runtime rounds them itself, files of
        `--packing none` only with `--strip-names`.
        """
        for verdict, other in (("same", unpacked(form)), ("bias", (*unpacked(form), "--strip-names"))):
            path = self.make(other)
            if path is not None and same_outputs(run, load(path), self.feeds):
                return verdict
        self.fault(form, "outputs differ from those with `--packing none`")
        return "DIFFERS"


def quantize(command: list[str]) -> Json:
    """Runs msq-onnx; the number of weights, or the error."""
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode != 0:
        lines = process.stderr.strip().splitlines()
        return {"error": f"exit {process.returncode}: {lines[-1] if lines else 'no message'}"}
    return {"weights": sum(layer["weights"] for layer in json.loads(process.stdout)["layers"])}


def unpacked(form: Flags) -> Flags:
    """The flags that store the same integers a byte each."""
    kept = list(form)
    for flag, values in (("--packing", 1), ("--functions", 0), ("--keep-names", 0)):
        if flag in kept:
            at = kept.index(flag)
            del kept[at : at + 1 + values]
    return tuple(kept) if kept[:2] == list(PLAIN) else (*kept, "--packing", "none")


def same_outputs(one: Run, other: Run, feeds: list[Feed]) -> bool:
    """Whether all bits are equal."""
    pairs = (zip(one(feed), other(feed), strict=True) for feed in feeds)
    return all(a.dtype == b.dtype and a.tobytes() == b.tobytes() for pair in pairs for a, b in pair)


def in_onnxruntime(bench: Bench, rounds: int) -> dict[str, Json]:
    """Every width in every form, and the other forms, by their flags."""
    matrix = [(*flags(f"--weight-bits {width}"), *form) for form in FORMS.values() for width in WIDTHS]
    forms = [form for form in [*matrix, *OTHERS] if form != (*PLAIN, "--functions")]
    runs = {"float": ort_run(bench.model)}
    for form in forms:
        if bench.check(form) not in ("not made", "does not run"):
            runs[" ".join(form)] = ort_run(bench.path(form))
    runs["int8 once more"] = ort_run(bench.path(PLAIN))
    print(f"{bench.name}: onnxruntime", file=sys.stderr)
    return interleaved(runs, runs[" ".join(PLAIN)], bench.feeds[0], rounds)


def in_openvino(bench: Bench, openvino: OpenVino, rounds: int) -> dict[str, Json]:
    """Latencies, the check, and the layers in int8."""
    run, share = openvino.load(bench.model, bench.feeds[0])
    runs, notes = {"float": run}, {"float": ("-", share)}
    for form in OPENVINO_FORMS:
        packed = bench.make(form)
        if packed is None:
            continue
        try:
            run, share = openvino.load(packed, bench.feeds[0])
            verdict = bench.compare(form, run, lambda path: openvino.load(path, bench.feeds[0])[0])
        except Exception as error:  # noqa: BLE001 - a file that does not run is a result
            bench.fault(form, f"does not run in OpenVINO: {str(error).strip().splitlines()[-1]}")
            continue
        runs[" ".join(form)], notes[" ".join(form)] = run, (verdict, share)
    runs["int8 once more"] = openvino.load(bench.path(PLAIN), bench.feeds[0])[0]
    print(f"{bench.name}: OpenVINO", file=sys.stderr)
    results = interleaved(runs, runs[" ".join(PLAIN)], bench.feeds[0], rounds)
    for name, (verdict, (integer, layers)) in notes.items():
        results[name] |= {"check": f"{verdict}, {integer}/{layers}"}
    return results


def loading(bench: Bench, repeats: int) -> dict[str, Json]:
    """Medians of the time and memory that loading takes, each in a fresh process, in turns."""
    forms = [form for form in LOADED if bench.check(form) not in ("not made", "does not run")]
    files = {"float": bench.model} | {" ".join(form): bench.path(form) for form in forms}
    costs: dict[str, list[Json]] = {name: [] for name in files}
    print(f"{bench.name}: loading", file=sys.stderr)
    for _ in range(repeats):
        for name, path in files.items():
            run = measured([sys.executable, str(HERE / "load_cost.py"), str(path)], bench.out)
            if run["exit"] != 0:
                raise SystemExit(f"load_cost.py failed on {path.name}: {run['stderr']}")
            costs[name].append(json.loads(run["stdout"]))
    return {
        name: {key: statistics.median(cost[key] for cost in spent) for key in ("load_s", "load_mb")}
        for name, spent in costs.items()
    }


def sizes(bench: Bench) -> dict[str, Json]:
    """Bytes on disk and of the bare weights, by flags."""
    results: dict[str, Json] = {"float": {"bytes": bench.model.stat().st_size}}
    for form in SIZED:
        check = bench.check(form)
        path = bench.make(form)
        if path is not None:
            bits = TERNARY_BITS if form[1] == "ternary" else int(form[1])
            ideal = bench.made[form]["weights"] * bits / 8
            results[" ".join(form)] = {"bytes": path.stat().st_size, "ideal": ideal, "check": check}
    weights = bench.made[PLAIN]["weights"]
    results["float"] |= {"ideal": 4 * weights, "check": "-"}
    return results


def size_table(results: dict[str, Json]) -> str:
    """Sizes as a Markdown table."""
    lines = ["| flags | KB | ideal KB | over ideal | of float | check |", "|---|---|---|---|---|---|"]
    whole = results["float"]["bytes"]
    for name, size in results.items():
        kilobytes, ideal = size["bytes"] / 1000, size["ideal"] / 1000
        over, part = size["bytes"] / size["ideal"], size["bytes"] / whole
        lines.append(f"| {cell(name)} | {kilobytes:,.1f} | {ideal:,.1f} | {over:.2f} | {part:.3f} | {size['check']} |")
    return "\n".join(lines)


def cell(name: str) -> str:
    """Flags in code, words as they are."""
    return f"`{name}`" if name.startswith("--") else name


def ratio(result: Json | None) -> str:
    """Median and quartiles of the ratios."""
    if result is None:
        return "-"
    lower, upper = result["quartiles"]
    return f"{result['ratio']:.3f} ({lower:.2f}-{upper:.2f})"


def width_table(results: dict[str, Json], checks: dict[str, str]) -> str:
    """Ratios of every width in every form."""
    lines = [
        "| bits | " + " | ".join(FORMS) + " | check |",
        "|---" * (len(FORMS) + 2) + "|",
    ]
    for width in WIDTHS:
        names = [" ".join(("--weight-bits", width, *form)) for form in FORMS.values()]
        verdicts = sorted({checks[name] for name in names if name in checks})
        row = [width, *(ratio(results.get(name)) for name in names), "; ".join(verdicts)]
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


def latency_table(results: dict[str, Json], names: list[str], checks: dict[str, str]) -> str:
    """Milliseconds and ratios."""
    lines = ["| flags | ms | over int8 | check |", "|---|---|---|---|"]
    for name in names:
        if name in results:
            check = results[name].get("check", checks.get(name, "-"))
            lines.append(f"| {cell(name)} | {results[name]['ms']:.3f} | {ratio(results[name])} | {check} |")
    return "\n".join(lines)


def load_table(results: dict[str, Json], checks: dict[str, str]) -> str:
    """Seconds and megabytes."""
    lines = ["| flags | load s | over int8 | peak MB | check |", "|---|---|---|---|---|"]
    plain = results[" ".join(PLAIN)]["load_s"]
    for name, cost in results.items():
        over = cost["load_s"] / plain
        row = f"{cost['load_s']:.3f} | {over:.2f} | {cost['load_mb']:.0f} | {checks.get(name, '-')}"
        lines.append(f"| {cell(name)} | {row} |")
    return "\n".join(lines)


def markdown(report: Json) -> str:
    """The whole report."""
    env = report["environment"]
    parts = [
        f"onnxruntime {env['onnxruntime']}, OpenVINO {env.get('openvino', '-')}, {env['cpu']}, {env['cores']} cores, "
        f"VNNI {'yes' if env['vnni'] else 'no'}, {report['rounds']} rounds, {report['repeats']} loads."
    ]
    for name, results in report["models"].items():
        checks = results["checks"]
        parts.append(f"## {name}\n\n### Size\n\n{size_table(results['sizes'])}")
        if "ort" in results:
            rest = ["float", " ".join(PLAIN), "int8 once more", *(" ".join(form) for form in OTHERS)]
            parts.append(f"### Latency in onnxruntime, over int8\n\n{width_table(results['ort'], checks)}")
            parts.append(latency_table(results["ort"], rest, checks))
        if "load" in results:
            parts.append(f"### Loading in onnxruntime\n\n{load_table(results['load'], checks)}")
        if "openvino" in results:
            rows = latency_table(results["openvino"], list(results["openvino"]), {})
            parts.append(f"### Latency in OpenVINO\n\n{rows}")
    if report["faults"]:
        parts.append("## Faults\n\n" + "\n".join(f"* {fault}" for fault in report["faults"]))
    return "\n\n".join(parts) + "\n"


def made_up(count: int) -> list[Feed]:
    """Inputs of the ResNet50-shaped network."""
    random = np.random.default_rng(0)
    return [{"input": random.normal(size=(1, 3, 224, 224)).astype(np.float32)} for _ in range(count)]


def bench_of(name: str, args: argparse.Namespace, digest: str, faults: list[str]) -> Bench:
    """Model, calibration arguments and inputs."""
    if name == "resnet50":
        model = args.out / "resnet50.onnx"
        if not model.exists():
            onnx.save(random_resnet50.build(), model)
        data_args, feeds = [], made_up(SAMPLES_CHECKED)
    else:
        task = TASKS[name]
        model = args.data / task.model
        data_args = task.msq_args(args.data, args.out)
        feeds = list(itertools.islice(task.samples(args.data), SAMPLES_CHECKED))
    if name in SAMPLES:
        data_args += ["--samples", str(SAMPLES[name])]
    return Bench(name, model, data_args, feeds, args.out, args.msq, digest, faults)


def run_model(bench: Bench, args: argparse.Namespace, openvino: OpenVino | None) -> Iterator[Json]:
    """Everything about one model, growing part by part."""
    parts: dict[str, Callable[[], dict[str, Json]]] = {"sizes": lambda: sizes(bench)}
    if "ort" in args.parts:
        parts["ort"] = lambda: in_onnxruntime(bench, args.rounds)
    if "load" in args.parts and bench.name in LOAD_MODELS:
        parts["load"] = lambda: loading(bench, args.repeats)
    if openvino is not None and bench.name in OPENVINO_MODELS:
        parts["openvino"] = lambda: in_openvino(bench, openvino, args.rounds)
    results: Json = {}
    for name, part in parts.items():
        results[name] = part()
        yield results | {"checks": {" ".join(form): check for form, check in bench.checks.items()}}


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with models and data, see README.md")
    parser.add_argument("--out", type=Path, required=True, help="folder for results and quantized models")
    parser.add_argument("--msq", type=Path, required=True, help="the msq-onnx binary")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=PARTS, help="what to measure besides sizes")
    parser.add_argument("--rounds", type=int, default=60, help="latency rounds")
    parser.add_argument("--repeats", type=int, default=5, help="loads of each model")
    args = parser.parse_args()
    if min(args.rounds, args.repeats) < 1:
        parser.error("--rounds and --repeats must be at least 1")
    args.data, args.out, args.msq = args.data.resolve(), args.out.resolve(), args.msq.resolve()
    return args


def main() -> None:
    """Run the chosen parts, saving after each; fail where a check did."""
    args = parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    openvino = OpenVino() if "openvino" in args.parts else None
    digest = hashlib.sha256(args.msq.read_bytes()).hexdigest()
    faults: list[str] = []
    report: Json = {
        "environment": environment() | {"openvino": openvino.version if openvino else "-"},
        "platform": platform.platform(),
        "rounds": args.rounds,
        "repeats": args.repeats,
        "models": {},
        "faults": faults,
    }
    for name in args.models:
        for results in run_model(bench_of(name, args, digest, faults), args, openvino):
            report["models"][name] = results
            (args.out / "low_bit.json").write_text(json.dumps(report, indent=1) + "\n")
            (args.out / "low_bit.md").write_text(markdown(report))
    print(markdown(report), end="")
    if faults:
        raise SystemExit("\n".join(["checks failed:", *faults]))


if __name__ == "__main__":
    main()
