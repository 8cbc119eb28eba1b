"""Quantize every model of a folder with one or more msq-onnx binaries and with onnxruntime, and print one table.

    python any_model.py FOLDER --msq before=PATH --msq after=PATH --out OUT
    python any_model.py FOLDER --data DATA --msq PATH --out OUT

`FOLDER` has `NAME.onnx`, beside it the calibration samples `NAME.npz` (one array per input, the first axis counts the
samples) and, if there are any, samples for judging, `NAME.test.npz`; without these the last quarter of `NAME.npz` is
kept out of calibration and judges. A model without `NAME.npz` is quantized without data and judged on random inputs.
`--data` first writes the sample models of the data folder (see README.md) into `FOLDER` in this form.

Columns: exit code, seconds and peak memory of quantizing, size of the float file over size of the quantized file,
quality on held-out samples, batch-1 latency over that of the float model (one thread, in turns, median of ratios),
and the layers that a real onnxruntime session computes on integers. Quality is the signal-to-noise ratio in decibels of
the worst channel of any output, about the channel's mean, then the share of rows with the same largest entry.
"""

from __future__ import annotations

import argparse
import collections
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from common import TASKS, Feed
from sessions import feeds, prepared, quantize_statically, random_feeds, ratio, session, times

HERE = Path(__file__).resolve().parent
VARIANTS = {"without data": [], "int8": [], "4 bits": ["--weight-bits", "4"]}
INTEGER = {
    "QLinearConv",
    "QLinearMatMul",
    "QGemm",
    "ConvInteger",
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "MatMulNBits",
    "DynamicQuantizeMatMul",
    "DynamicQuantizeLSTM",
    "QLinearConvTranspose",
}
FLOAT = {
    "Conv",
    "FusedConv",
    "NhwcFusedConv",
    "ConvTranspose",
    "Gemm",
    "FusedGemm",
    "MatMul",
    "FusedMatMul",
    "LSTM",
    "GRU",
    "RNN",
}
CONSTANT = 1e-10
LATENCY_SECONDS = 1.5
RANDOM_SAMPLES = 8
OPEN_AXIS = 8

Json = dict[str, Any]


@dataclass(frozen=True)
class Subject:
    """One model with its samples; random inputs judge where there are none."""

    name: str
    model: Path
    calibration: Path | None
    held_out: Feed | None


def subjects(folder: Path, work: Path, only: str | None) -> Iterator[Subject]:
    """The models of a folder, in the order of their names."""
    for model in sorted(folder.glob("*.onnx")):
        if only and only not in model.stem:
            continue
        calibration, test = model.with_suffix(".npz"), model.with_suffix(".test.npz")
        if not calibration.exists():
            yield Subject(model.stem, model, None, None)
            continue
        samples = dict(np.load(calibration))
        if test.exists():
            yield Subject(model.stem, model, calibration, dict(np.load(test)))
            continue
        count = len(next(iter(samples.values())))
        kept = max(1, count - max(1, count // 4))
        trimmed = work / f"{model.stem}.npz"
        np.savez(trimmed, **{name: values[:kept] for name, values in samples.items()})
        yield Subject(model.stem, model, trimmed, {name: values[kept:] for name, values in samples.items()})


def msq_command(binary: Path, subject: Subject, variant: str, output: Path) -> list[str]:
    """The command of one variant."""
    command = [str(binary), str(subject.model), "-o", str(output), "--quiet", *VARIANTS[variant]]
    if variant != "without data" and subject.calibration:
        command += ["--calib", str(subject.calibration)]
    return command


def ort_command(subject: Subject, kind: str, output: Path) -> list[str]:
    """This script again, as onnxruntime's quantizer."""
    data = [str(subject.calibration)] if subject.calibration else []
    return [sys.executable, str(Path(__file__)), f"--ort-{kind}", str(subject.model), str(output), *data]


def quantize_with_ort(kind: str, model: str, output: str, data: str | None) -> None:
    """onnxruntime's own quantizers: static QDQ with uint8 activations and int8 weights per channel, or dynamic."""
    if kind == "static":
        if not data:
            sys.exit("needs data")
        quantize_statically(Path(model), Path(output), feeds(Path(model), dict(np.load(data))))
        return
    from onnxruntime.quantization import quantize_dynamic

    with tempfile.TemporaryDirectory() as folder:
        quantize_dynamic(prepared(Path(model), Path(folder)), output, per_channel=True)


def measured(command: list[str], work: Path, seconds: float) -> Json:
    """Exit code, time and peak memory of a command."""
    usage = work / "usage.json"
    usage.unlink(missing_ok=True)
    launcher = [sys.executable, "-S", str(HERE / "measure.py"), str(usage), *command]
    try:
        process = subprocess.run(launcher, capture_output=True, text=True, check=False, timeout=seconds)
    except subprocess.TimeoutExpired:
        return {"exit": "timeout"}
    result = json.loads(usage.read_text())
    lines = process.stderr.strip().splitlines()
    return result | ({"message": lines[-1][:200]} if result["exit"] and lines else {})


def run(model: Path, inputs: list[Feed]) -> list[list[np.ndarray]]:
    """The outputs of every sample."""
    running = session(model)
    return [running.run(None, feed) for feed in inputs]


def channel_axis(shape: tuple[int, ...]) -> int:
    """Axis 1 of images, the last of rows, the shorter one of sequences."""
    if len(shape) == 3:
        return 1 if shape[1] < shape[2] else 2
    return 1 if len(shape) > 3 else len(shape) - 1


def quality(wanted: list[list[np.ndarray]], got: list[list[np.ndarray]]) -> Json:
    """Worst channel of any float output in decibels, and the share of equal rows."""
    worst, same, rows = float("inf"), 0, 0
    for at in range(len(wanted[0])):
        pairs = [(np.asarray(a[at]), np.asarray(b[at])) for a, b in zip(wanted, got, strict=True)]
        if any(a.shape != b.shape for a, b in pairs):
            return {"error": "other shapes"}
        first = pairs[0][0]
        if first.dtype.kind != "f" or first.ndim == 0:
            continue
        if any(not np.isfinite(b[np.isfinite(a)]).all() for a, b in pairs):
            return {"error": "not finite"}
        axis = channel_axis(first.shape)
        if any(a.shape[axis] != first.shape[axis] for a, _ in pairs):
            return {"error": "channels differ between samples"}
        reference, other = (
            np.concatenate([np.moveaxis(p[side], axis, -1).reshape(-1, first.shape[axis]) for p in pairs]).astype("f8")
            for side in (0, 1)
        )
        error, variance = ((other - reference) ** 2).mean(0), reference.var(0)
        # What is constant but for rounding has no signal.
        moving = variance > CONSTANT * (reference**2).mean(0)
        if moving.any():
            ratio = np.maximum(error[moving] / variance[moving], 1e-12)
            worst = min(worst, float(-10 * np.log10(ratio.max())))
        width = first.shape[-1]
        if width > 1:
            same += sum(int((a.argmax(-1) == b.argmax(-1)).sum()) for a, b in pairs)
            rows += sum(int(a[..., 0].size) for a, _ in pairs)
    return {"db": worst if np.isfinite(worst) else None, "agreement": same / rows if rows else None}


def integer_layers(model: Path, work: Path) -> str:
    """How many layers a session computes on integers, of all."""
    optimized = work / "optimized.onnx"
    session(model, optimized)
    counts = collections.Counter(node.op_type for node in onnx.load(optimized).graph.node)
    integer, floats = (sum(counts[op] for op in kinds) for kinds in (INTEGER, FLOAT))
    return f"{integer}/{integer + floats}"


def rows(subject: Subject, binaries: dict[str, Path], args: argparse.Namespace, work: Path) -> dict[str, Json]:
    """The results of every tool for one model."""
    commands = {
        f"{name} {variant}": (lambda out, b=binary, v=variant: msq_command(b, subject, v, out))
        for name, binary in binaries.items()
        for variant in args.variants
        if variant == "without data" or subject.calibration
    }
    for kind in args.ort:
        commands[f"onnxruntime {kind}"] = lambda out, k=kind: ort_command(subject, k, out)
    if subject.held_out is None:
        inputs = random_feeds(subject.model, RANDOM_SAMPLES, OPEN_AXIS)
    else:
        inputs = feeds(subject.model, subject.held_out)[: args.held_out]
    wanted = run(subject.model, inputs)
    results: dict[str, Json] = {}
    models = {"float": subject.model}
    for tool, command in commands.items():
        output = work / f"{subject.name}.{tool.replace(' ', '-')}.onnx"
        output.unlink(missing_ok=True)
        result = results[tool] = measured(command(output), work, args.timeout)
        if not output.exists():
            continue
        result["ratio"] = subject.model.stat().st_size / output.stat().st_size
        try:
            result |= quality(wanted, run(output, inputs))
            result["layers"] = integer_layers(output, work)
            models[tool] = output
        except Exception as error:  # noqa: BLE001 - a file that does not run is a result
            result["error"] = "does not run: " + str(error).splitlines()[0][:120]
    spent = times(models, inputs[0], seconds=args.latency_seconds)
    for tool in models.keys() - {"float"}:
        results[tool]["latency"] = ratio(spent, tool)
    return results


def cell(value: float | None, digits: int, suffix: str = "") -> str:
    """A number in the table."""
    return "-" if value is None else f"{value:.{digits}f}{suffix}"


def table(results: dict[str, dict[str, Json]]) -> str:
    """All of it as Markdown."""
    lines = [
        "| model | tool | exit | s | MB | size ratio | worst dB | same rows % | latency / float | integer layers |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, tools in results.items():
        for tool, found in tools.items():
            agreement = found.get("agreement")
            cells = [
                name,
                tool,
                str(found["exit"]),
                cell(found.get("wall_s"), 1),
                cell(found.get("peak_mb"), 0),
                cell(found.get("ratio"), 2),
                found.get("error", cell(found.get("db"), 1)).replace("|", "/"),
                cell(None if agreement is None else 100 * agreement, 1),
                cell(found.get("latency"), 2),
                found.get("layers", "-"),
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def write_tasks(data: Path, folder: Path) -> None:
    """The sample models of the data folder, with their samples as arrays."""
    for name, task in TASKS.items():
        model, calibration = folder / f"{name}.onnx", folder / f"{name}.npz"
        if calibration.exists():
            continue
        model.unlink(missing_ok=True)
        model.symlink_to((data / task.model).resolve())
        samples = list(task.samples(data))
        np.savez(calibration, **{key: np.concatenate([s[key] for s in samples]) for key in samples[0]})
        evaluation = task.evaluation(data)
        picked = evaluation.judged[:: max(1, len(evaluation.judged) // 128)]
        np.savez(folder / f"{name}.test.npz", **{evaluation.input_name: evaluation.inputs[picked]})
    for part, suffix in (("calib", ".npz"), ("test", ".test.npz")):
        source = data / "minilm" / f"{part}.npz"
        if source.exists():
            np.savez(folder / f"minilm{suffix}", **dict(np.load(source)))
    source = data / "models" / "minilm_l6.onnx"
    if source.exists() and not (folder / "minilm.onnx").exists():
        (folder / "minilm.onnx").symlink_to(source.resolve())


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="models and samples")
    parser.add_argument("--msq", action="append", default=[], help="a binary, or NAME=binary; may be repeated")
    parser.add_argument("--out", type=Path, required=True, help="folder for results and quantized models")
    parser.add_argument("--data", type=Path, help="data folder whose sample models are added to FOLDER")
    parser.add_argument("--only", help="models whose name contains this")
    parser.add_argument("--variants", nargs="*", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--ort", nargs="*", choices=["static", "dynamic"], default=["static", "dynamic"])
    parser.add_argument("--held-out", type=int, default=64, help="samples that judge, at most")
    parser.add_argument("--timeout", type=float, default=600, help="seconds that quantizing may take")
    parser.add_argument(
        "--latency-seconds", type=float, default=LATENCY_SECONDS, help="seconds of latency runs per file"
    )
    return parser.parse_args()


def main() -> None:
    """Run all, saving after each model."""
    if len(sys.argv) > 1 and sys.argv[1].startswith("--ort-") and "=" not in sys.argv[1]:
        kind, model, output, *data = sys.argv[1:]
        quantize_with_ort(kind.removeprefix("--ort-"), model, output, data[0] if data else None)
        return
    args = parse()
    named = (entry.split("=", 1) if "=" in entry else ["msq-onnx", entry] for entry in args.msq)
    binaries = {name: Path(path).resolve() for name, path in named}
    work = args.out.resolve()
    work.mkdir(parents=True, exist_ok=True)
    args.folder.mkdir(parents=True, exist_ok=True)
    if args.data:
        write_tasks(args.data.resolve(), args.folder)
    results: dict[str, dict[str, Json]] = {}
    for subject in subjects(args.folder, work, args.only):
        print(subject.name, file=sys.stderr)
        try:
            results[subject.name] = rows(subject, binaries, args, work)
        except Exception as error:  # noqa: BLE001 - a float model that does not run is a result
            results[subject.name] = {"float": {"exit": "-", "error": str(error).splitlines()[0][:120]}}
        (work / "any_model.json").write_text(json.dumps(results, indent=1) + "\n")
        (work / "any_model.md").write_text(table(results))
    print(table(results), end="")


if __name__ == "__main__":
    main()
