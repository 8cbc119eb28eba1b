"""Where the time of the float engine goes, beside onnxruntime on one thread, and what whole runs take.

    python bench/engine.py --data DATA --time before=PATH/engine_time --time after=PATH/engine_time \\
        --msq before=PATH/msq-onnx --msq after=PATH/msq-onnx --out OUT

`engine_time` is built by `cargo build --release --workspace --example engine_time`. All numbers are processor time of
one thread, taken in turns, medians of `--rounds`. The first table has the milliseconds of one run of one sample and of
loading, the second the share of each kind of operator, the third the seconds of whole runs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from common import TASKS
from sessions import session

HERE = Path(__file__).resolve().parent
SHAPES = {
    "resnet20_cifar10": {"input": [1, 3, 32, 32]},
    "efficientnet_lite0": {"input": [1, 3, 224, 224]},
    "ch_PP-OCRv4_rec_infer": {"x": [1, 3, 48, 320]},
    "detector_640": {"images": [1, 3, 640, 640]},
    "minilm_l6": {name: [1, 64] for name in ("input_ids", "attention_mask", "token_type_ids")},
    "magika_standard_v3_3": {"bytes": [1, 2048]},
}
LEAST_SECONDS = 0.2


def ours(binary: str, model: Path, seconds: float) -> tuple[float, float, dict[str, float]]:
    """Milliseconds of a run and of loading, and of each kind of operator."""
    shapes = [f"{name}={'x'.join(map(str, shape))}" for name, shape in SHAPES[model.stem].items()]
    output = subprocess.run([binary, model, str(seconds), *shapes], check=True, capture_output=True, text=True).stdout
    first, *rest = output.splitlines()
    median, _, loading = map(float, first.split())
    return median, loading, {name: float(ms) for name, _, ms in (line.split() for line in rest)}


class Onnxruntime:
    """A session with random inputs."""

    def __init__(self, model: Path) -> None:
        """Loads the model and runs it once."""
        self.session = session(model)
        random, self.feed = np.random.default_rng(0), {}
        for entry in self.session.get_inputs():
            shape = SHAPES[model.stem][entry.name]
            if entry.type == "tensor(float)":
                self.feed[entry.name] = random.standard_normal(shape).astype(np.float32)
            else:
                kind = np.int64 if "64" in entry.type else np.int32
                self.feed[entry.name] = random.integers(0, 2, shape).astype(kind)
        self.session.run(None, self.feed)

    def milliseconds(self) -> float:
        """One run, on average over a short while."""
        start, clock, runs = time.perf_counter(), time.process_time(), 0
        while time.perf_counter() - start < LEAST_SECONDS:
            self.session.run(None, self.feed)
            runs += 1
        return (time.process_time() - clock) / runs * 1e3


def forward(model: Path, binaries: dict[str, str], rounds: int) -> dict:
    """Medians of one model, taken in turns."""
    reference = Onnxruntime(model)
    runs: dict[str, list[float]] = {name: [] for name in ["onnxruntime", *binaries]}
    loads: dict[str, list[float]] = {name: [] for name in binaries}
    operators: dict[str, dict[str, float]] = {}
    for _ in range(rounds):
        runs["onnxruntime"].append(reference.milliseconds())
        for name, binary in binaries.items():
            run, loading, operators[name] = ours(binary, model, LEAST_SECONDS)
            runs[name].append(run)
            loads[name].append(loading)
    median = statistics.median
    ratios = {
        name: median(a / b for a, b in zip(runs[name], runs["onnxruntime"], strict=True)) for name in binaries
    }
    return {
        "ms": {name: median(values) for name, values in runs.items()},
        "loading": {name: median(values) for name, values in loads.items()},
        "ratio": ratios,
        "operators": operators,
    }


def whole(task: str, binaries: dict[str, str], data: Path, rounds: int) -> dict[str, dict[str, float]]:
    """Seconds of processor time and peak megabytes of a whole run."""
    found: dict[str, list[dict]] = {name: [] for name in binaries}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        arguments = [data / TASKS[task].model, "-o", work / "out.onnx", "--threads", "1", "--quiet"]
        arguments += TASKS[task].msq_args(data, work)
        for _ in range(rounds):
            for name, binary in binaries.items():
                measured = work / "measured.json"
                command = [sys.executable, HERE / "measure.py", measured, binary, *arguments]
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                found[name].append(json.loads(measured.read_text()))
    median = statistics.median
    return {name: {key: median(r[key] for r in runs) for key in ("cpu_s", "peak_mb")} for name, runs in found.items()}


def named(values: list[str]) -> dict[str, str]:
    """NAME=PATH, or a path that is its own name."""
    pairs = (value.split("=", 1) if "=" in value else [Path(value).name, value] for value in values)
    return {name: str(Path(path).resolve()) for name, path in pairs}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--time", action="append", default=[], help="NAME=engine_time")
    parser.add_argument("--msq", action="append", default=[], help="NAME=msq-onnx")
    parser.add_argument("--models", nargs="*", default=list(SHAPES))
    parser.add_argument("--tasks", nargs="*", default=list(TASKS))
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    binaries, programs = named(options.time), named(options.msq)
    results: dict[str, dict] = {"forward": {}, "whole": {}}
    for name in options.models if binaries else []:
        found = forward(options.data / "models" / f"{name}.onnx", binaries, options.rounds)
        results["forward"][name] = found
        columns = [f"onnxruntime {found['ms']['onnxruntime']:.2f} ms"]
        columns += [
            f"{key} {found['ms'][key]:.2f} ms ({ratio:.2f}x), loading {found['loading'][key]:.0f} ms"
            for key, ratio in found["ratio"].items()
        ]
        print(f"{name}: {'; '.join(columns)}", flush=True)
        for key, operators in found["operators"].items():
            total = sum(operators.values())
            most = sorted(operators.items(), key=lambda entry: -entry[1])[:8]
            print(f"  {key}: " + ", ".join(f"{kind} {ms / total:.0%}" for kind, ms in most), flush=True)
    for task in options.tasks if programs else []:
        results["whole"][task] = found = whole(task, programs, options.data, options.rounds)
        columns = [f"{key} {run['cpu_s']:.2f} s, {run['peak_mb']:.0f} MB" for key, run in found.items()]
        print(f"{task}: {'; '.join(columns)}", flush=True)
    (options.out / "engine.json").write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
