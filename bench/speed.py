"""Time what msq-onnx writes beside the float model and onnxruntime's own static quantizer.

    python speed.py MODELS... --msq path/to/msq-onnx --out OUT
    python speed.py --data DATA --msq path/to/msq-onnx --out OUT

MODELS are ONNX files or folders of them. A model is calibrated on the arrays of `NAME.npz` (or `NAME-*.npz`) beside it,
or on those named with `MODEL=DATA.npz`; without any, on synthetic inputs. `--data` adds the tasks of `common.py`.

Everything runs on one thread, batch 1, the models taking turns: a round runs each for about `--slice` milliseconds, and
a ratio is that of two times of the same round, in processor time of the thread. The tables show medians over rounds.
The float model is loaded twice: how far the second is from the first is the noise. The exit code is 1 where a file of
ours is slower than float by more than `--margin` and twice that noise, and where one cannot be written or does not run.
"""

from __future__ import annotations

import argparse
import json
import logging
import shlex
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from common import TASKS, Feed
from sessions import feeds, quantize_statically, random_feeds, ratio, session, times

OPEN_AXIS = 16

Json = dict[str, Any]


@dataclass
class Case:
    """A model, the arguments that calibrate it, and one sample per entry of `samples`."""

    name: str
    model: Path
    msq_args: list[str] = field(default_factory=list)
    samples: list[Feed] = field(default_factory=list)


@dataclass(frozen=True)
class Settings:
    """What the command line chose."""

    out: Path
    msq: Path
    msq_args: list[str]
    before: Path | None
    ort_static: bool
    rounds: int
    slice: float
    samples: int
    margin: float


def stored(model: Path, path: Path, count: int) -> list[Feed]:
    """The first samples of an npz whose arrays are named after the model's inputs."""
    with np.load(path) as archive:
        return feeds(model, {name: archive[name][:count] for name in archive.files})


def case_of(model: Path, data: Path | None, count: int) -> Case:
    """A model with the data named, that beside it, or synthetic ones."""
    beside = [model.with_suffix(".npz"), *sorted(model.parent.glob(f"{model.stem}-*.npz"))]
    data = data or next((path for path in beside if path.exists()), None)
    if data is None:
        return Case(model.stem, model, [], random_feeds(model, count, OPEN_AXIS))
    return Case(model.stem, model, ["--calib", str(data), "--samples", str(count)], stored(model, data, count))


def cases(args: argparse.Namespace) -> list[Case]:
    """Everything that the command line names."""
    found = []
    for word in args.models:
        name, _, data = word.partition("=")
        path = Path(name)
        models = sorted(path.glob("*.onnx")) if path.is_dir() else [path]
        found += [case_of(model.resolve(), Path(data) if data else None, args.samples) for model in models]
    data = args.data.resolve() if args.data else None
    for name, task in TASKS.items() if data else ():
        samples = [feed for feed, _ in zip(task.samples(data), range(args.samples), strict=False)]
        msq_args = task.msq_args(data, args.out.resolve())
        msq_args += [] if "--samples" in msq_args else ["--samples", str(args.samples)]
        found.append(Case(name, data / task.model, msq_args, samples))
    return found


def by_msq(binary: Path, case: Case, output: Path, more: list[str]) -> str | None:
    """Quantize with msq-onnx; what went wrong, if anything did."""
    command = [str(binary), str(case.model), "-o", str(output), "--quiet", *case.msq_args, *more]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode == 0:
        return None
    lines = ran.stderr.strip().splitlines()
    return f"exit {ran.returncode}: {next((line for line in lines if 'error' in line), 'no message')}"


def by_onnxruntime(case: Case, output: Path) -> str | None:
    """Quantize with onnxruntime; what went wrong, if anything did."""
    logging.disable(logging.WARNING)
    try:
        quantize_statically(case.model, output, case.samples)
    except Exception as error:  # noqa: BLE001 - what the other tool cannot do is a result
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0][:100] if str(error).strip() else ''}"
    return None


def measure(case: Case, settings: Settings) -> Json:
    """Quantize with every tool and time what runs."""
    models = {"float": case.model, "float again": case.model}
    result: Json = {"errors": {}}
    ours, before = settings.out / f"{case.name}.msq.onnx", settings.out / f"{case.name}.before.onnx"
    theirs = settings.out / f"{case.name}.ort.onnx"
    attempts = {"msq": (ours, lambda: by_msq(settings.msq, case, ours, settings.msq_args))}
    if settings.before:
        old = settings.before
        attempts["before"] = (before, lambda: by_msq(old, case, before, settings.msq_args))
    if settings.ort_static:
        attempts["ort static"] = (theirs, lambda: by_onnxruntime(case, theirs))
    for tool, (output, quantize) in attempts.items():
        output.unlink(missing_ok=True)
        error = quantize()
        if error is None:
            try:
                session(output).run(None, case.samples[0])
            except Exception as failed:  # noqa: BLE001 - a file that does not run is a result
                error = f"does not run: {str(failed).splitlines()[0][:100]}"
        if error is None:
            models[tool] = output
        else:
            result["errors"][tool] = error
    spent = times(models, case.samples[0], settings.rounds, settings.slice)
    result["noise"] = abs(ratio(spent, "float again") - 1)
    result["ms"] = {name: statistics.median(found) for name, found in spent.items()}
    result["ratio"] = {name: ratio(spent, name) for name in spent}
    result["kb"] = {name: path.stat().st_size / 1000 for name, path in models.items()}
    if "msq" in models:
        slowest = 1 + max(settings.margin, 2 * result["noise"])
        result["slower"] = result["ratio"]["msq"] > slowest
    return result


def cell(result: Json, tool: str) -> str:
    """Milliseconds and the ratio to float, or why there are none."""
    if tool in result["errors"]:
        return result["errors"][tool].replace("|", "/")[:60]
    if tool not in result["ms"]:
        return "-"
    text = f"{result['ms'][tool]:.3f}"
    return text if tool == "float" else f"{text} ({result['ratio'][tool]:.2f})"


def table(results: dict[str, Json], tools: list[str]) -> str:
    """All results, one line per model."""
    head = ["model", *tools, "noise", "KB", ""]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, result in results.items():
        sizes = " → ".join(f"{result['kb'][tool]:.0f}" for tool in ("float", "msq") if tool in result["kb"])
        fault = "FAILS" if "msq" in result["errors"] else "SLOWER" if result.get("slower") else ""
        cells = [name, *(cell(result, tool) for tool in tools), f"{100 * result['noise']:.1f} %", sizes, fault]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("models", nargs="*", metavar="MODELS", help="FOLDER, MODEL or MODEL=DATA.npz")
    found.add_argument("--data", type=Path, help="folder of the tasks of common.py, see README.md")
    found.add_argument("--out", type=Path, required=True, help="folder for results and quantized models")
    found.add_argument("--msq", type=Path, required=True, help="the msq-onnx binary")
    found.add_argument("--msq-args", default="", help="more arguments for msq-onnx, in one string")
    found.add_argument("--before", type=Path, help="another msq-onnx binary, timed beside")
    found.add_argument("--no-ort-static", action="store_true", help="leave onnxruntime's own quantizer out")
    found.add_argument("--rounds", type=int, default=60)
    found.add_argument("--slice", type=float, default=10, help="milliseconds that a model runs in a round")
    found.add_argument("--samples", type=int, default=16, help="samples to calibrate on")
    found.add_argument("--margin", type=float, default=0.05, help="how much slower than float is still no fault")
    return found


def main() -> int:
    """Time everything; 1 where ours is slower than float or fails."""
    args = parser().parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    settings = Settings(
        args.out.resolve(),
        args.msq.resolve(),
        shlex.split(args.msq_args),
        args.before.resolve() if args.before else None,
        not args.no_ort_static,
        args.rounds,
        args.slice,
        args.samples,
        args.margin,
    )
    results: dict[str, Json] = {}
    for case in cases(args):
        print(case.name, file=sys.stderr)
        results[case.name] = measure(case, settings)
        (settings.out / "speed.json").write_text(json.dumps(results, indent=1) + "\n")
    tools = ["float", "msq", *(["before"] if settings.before else []), *(["ort static"] if settings.ort_static else [])]
    print(table(results, tools))
    return int(any(result.get("slower") or "msq" in result["errors"] for result in results.values()))


if __name__ == "__main__":
    sys.exit(main())
