"""Compare msq-onnx with onnxruntime.quantization on real models.

For each model: quantizing time, memory, file size, accuracy, agreement with the
float model, KL divergence from it, and latency in onnxruntime on one thread.
Writes `results.json`, `results.md` and the quantized models into `--out`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from common import TASKS, EvalSet, Task, are_probabilities, kl_sum

HERE = Path(__file__).resolve().parent
ORT_TOOLS = {
    "ort-minmax": ["--method", "minmax"],
    "ort-percentile": ["--method", "percentile"],
    "ort-compute-only": ["--method", "minmax", "--compute-only"],
}
TOOLS = [*ORT_TOOLS, "msq", "msq-nodata"]
DEFAULT_TOOLS = ["ort-minmax", "msq", "msq-nodata"]
ROUND_SECONDS = 0.02
WARM_UP_RUNS = 5

Json = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """What the command line chose."""

    data: Path
    out: Path
    msq: Path | None
    msq_args: list[str]
    models: list[str]
    tools: list[str]
    rounds: int
    repeats: int


def measured(command: list[str], folder: Path) -> Json:
    """Run a command through `measure.py`; its resources, stdout and the end of its stderr."""
    usage = folder / "usage.json"
    process = subprocess.run(
        [sys.executable, "-S", str(HERE / "measure.py"), str(usage), *command],
        capture_output=True,
        text=True,
        check=False,
    )
    if process.returncode != 0:
        return {"exit": process.returncode, "stdout": "", "stderr": process.stderr[-2000:]}
    return json.loads(usage.read_text()) | {"stdout": process.stdout, "stderr": process.stderr[-2000:]}


def tool_command(tool: str, task_name: str, settings: Settings, output: Path) -> list[str]:
    """The command that quantizes one model with one tool."""
    if tool in ORT_TOOLS:
        script = [sys.executable, str(HERE / "ort_quantize.py"), "--task", task_name, "--data", str(settings.data)]
        return [*script, "--output", str(output), *ORT_TOOLS[tool]]
    task = TASKS[task_name]
    command = [str(settings.msq), str(settings.data / task.model), "-o", str(output), "--quiet", *settings.msq_args]
    if tool == "msq":
        command += task.msq_args(settings.data, settings.out)
    return command


def quantize(tool: str, task_name: str, settings: Settings, output: Path) -> Json:
    """Run a tool `repeats` times: medians of the times, the largest peak memory, or the error."""
    command = tool_command(tool, task_name, settings, output)
    output.unlink(missing_ok=True)
    runs = [measured(command, settings.out) for _ in range(settings.repeats)]
    failed = next((run for run in runs if run["exit"] != 0), None)
    if failed or not output.exists():
        last = (failed or runs[-1])["stderr"].strip().splitlines()
        return {"error": f"exit {(failed or runs[-1])['exit']}: {last[-1] if last else 'no message'}"}
    result: Json = {
        "wall_s": statistics.median(run["wall_s"] for run in runs),
        "cpu_s": statistics.median(run["cpu_s"] for run in runs),
        "peak_mb": max(run["peak_mb"] for run in runs),
    }
    if tool in ORT_TOOLS:
        result["phases"] = json.loads(runs[-1]["stdout"].strip().splitlines()[-1])
    return result


def session(model: Path, threads: int) -> ort.InferenceSession:
    """A CPU session; 0 threads means onnxruntime's own choice."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def batch_outputs(model: Path, task: Task, evaluation: EvalSet, threads: int = 0) -> Iterator[np.ndarray]:
    """The first output, batch by batch over the whole evaluation set; on all cores with `threads` 0."""
    running = session(model, threads)
    output = running.get_outputs()[0].name
    for start in range(0, len(evaluation.inputs), task.batch):
        feed = {evaluation.input_name: evaluation.inputs[start : start + task.batch]}
        yield running.run([output], feed)[0]


def quality(outputs: Iterator[np.ndarray], reference: list[np.ndarray], evaluation: EvalSet) -> Json:
    """Accuracy on the judged rows; agreement and KL with the float model on all rows."""
    probabilities = are_probabilities(reference[0])
    total, rows = 0.0, 0
    predicted, expected = [], []
    for ours, theirs in zip(outputs, reference, strict=True):
        batch_total, batch_rows = kl_sum(theirs, ours, probabilities)
        total, rows = total + batch_total, rows + batch_rows
        predicted.append(evaluation.decode(ours))
        expected.append(evaluation.decode(theirs))
    prediction, float_prediction = np.concatenate(predicted), np.concatenate(expected)
    accuracy = float((prediction == evaluation.labels)[evaluation.judged].mean())
    return {
        "accuracy": accuracy,
        "accuracy_standard_error": (accuracy * (1 - accuracy) / len(evaluation.judged)) ** 0.5,
        "judged": len(evaluation.judged),
        "agreement": float((prediction == float_prediction).mean()),
        "compared": len(prediction),
        "kl": total / rows,
    }


def latencies(models: dict[str, Path], evaluation: EvalSet, rounds: int) -> dict[str, Json]:
    """Batch-1 milliseconds on one thread, the models taking turns; ratios are medians over rounds."""
    feed = {evaluation.input_name: evaluation.inputs[:1]}
    sessions = {name: session(path, 1) for name, path in models.items()}
    runs: dict[str, int] = {}
    for name, running in sessions.items():
        for _ in range(WARM_UP_RUNS):
            start = time.perf_counter()
            running.run(None, feed)
            runs[name] = max(1, round(ROUND_SECONDS / (time.perf_counter() - start)))
    times: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(rounds):
        for name, running in sessions.items():
            start = time.perf_counter()
            for _ in range(runs[name]):
                running.run(None, feed)
            times[name].append((time.perf_counter() - start) / runs[name] * 1000)
    return {
        name: {
            "ms": statistics.median(spent),
            "ratio_to_float": statistics.median(a / b for a, b in zip(spent, times["float"])),
        }
        for name, spent in times.items()
    }


def run_task(task_name: str, settings: Settings) -> dict[str, Json]:
    """Everything about one model, by tool."""
    task = TASKS[task_name]
    models = {"float": settings.data / task.model}
    results: dict[str, Json] = {"float": {}}
    for tool in settings.tools:
        print(f"{task_name}: {tool}", file=sys.stderr)
        output = settings.out / f"{task_name}.{tool}.onnx"
        results[tool] = quantize(tool, task_name, settings, output)
        if "error" not in results[tool]:
            models[tool] = output
    print(f"{task_name}: quality and latency", file=sys.stderr)
    evaluation = task.evaluation(settings.data)
    reference = list(batch_outputs(models["float"], task, evaluation))
    for tool, model in list(models.items()):
        results[tool]["size_kb"] = model.stat().st_size / 1000
        try:
            results[tool] |= quality(batch_outputs(model, task, evaluation), reference, evaluation)
        except Exception as error:  # noqa: BLE001 - a file that does not run is a result
            results[tool]["error"] = f"does not run: {str(error).splitlines()[0]}"
            del models[tool]
    for tool, latency in latencies(models, evaluation, settings.rounds).items():
        results[tool]["latency"] = latency
    return results


def environment() -> Json:
    """What the numbers were measured on."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    flags = ""
    if cpuinfo.exists():
        lines = dict(line.split(":", 1) for line in cpuinfo.read_text().splitlines() if ":" in line)
        named = {key.strip(): value.strip() for key, value in lines.items()}
        model, flags = named.get("model name", model), named.get("flags", "")
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "vnni": "vnni" in flags,
        "load_average_at_start": os.getloadavg()[0],
        "python": platform.python_version(),
        "onnxruntime": ort.__version__,
        "onnx": onnx.__version__,
        "numpy": np.__version__,
    }


def number(value: float | None, digits: int) -> str:
    """A table cell."""
    return "-" if value is None else f"{value:,.{digits}f}"


def with_import(result: Json, key: str) -> str:
    """Seconds of the whole process; for Python tools followed by the seconds without imports."""
    text = number(result.get(key), 2)
    if "phases" in result:
        text += f" ({number(result[key] - result['phases']['import'][key], 2)})"
    return text


def table(results: dict[str, Json]) -> str:
    """One model's results as a Markdown table."""
    lines = [
        "| tool | accuracy % | agreement % | KL | size KB | wall s | CPU s | peak MB | latency ms | over float |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for tool, result in results.items():
        if "error" in result:
            lines.append(f"| {tool} | {result['error'].replace('|', '/')} |" + " |" * 8)
            continue
        error = 100 * result["accuracy_standard_error"]
        cells = [
            tool,
            f"{100 * result['accuracy']:.2f} ± {error:.2f}",
            number(100 * result["agreement"], 2),
            number(result["kl"], 5),
            number(result["size_kb"], 0),
            with_import(result, "wall_s"),
            with_import(result, "cpu_s"),
            number(result.get("peak_mb"), 0),
            number(result["latency"]["ms"], 3),
            number(result["latency"]["ratio_to_float"], 3),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def markdown(report: Json) -> str:
    """The whole report."""
    env = report["environment"]
    parts = [
        f"onnxruntime {env['onnxruntime']}, {env['cpu']}, {env['cores']} cores, "
        f"VNNI {'yes' if env['vnni'] else 'no'}, {report['rounds']} latency rounds, "
        f"{report['repeats']} quantizing runs. Seconds in brackets: without Python imports. ±: one standard error.",
    ]
    for name, results in report["models"].items():
        judged, compared = results["float"]["judged"], results["float"]["compared"]
        parts.append(f"## {name}\n\nAccuracy on {judged}, agreement and KL on {compared} samples.\n\n{table(results)}")
    return "\n\n".join(parts) + "\n"


def parse_settings() -> Settings:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with models and data, see README.md")
    parser.add_argument("--out", type=Path, required=True, help="folder for results and quantized models")
    parser.add_argument("--msq", type=Path, help="the msq-onnx binary; without it the msq tools are left out")
    parser.add_argument("--msq-args", default="", help="more arguments for msq-onnx, in one string")
    parser.add_argument("--models", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--tools", nargs="*", choices=TOOLS, default=DEFAULT_TOOLS)
    parser.add_argument("--rounds", type=int, default=200, help="latency rounds")
    parser.add_argument("--repeats", type=int, default=1, help="runs of each quantization")
    args = parser.parse_args()
    if min(args.rounds, args.repeats) < 1:
        parser.error("--rounds and --repeats must be at least 1")
    tools = [tool for tool in args.tools if args.msq or tool in ORT_TOOLS]
    return Settings(
        args.data.resolve(),
        args.out.resolve(),
        args.msq.resolve() if args.msq else None,
        shlex.split(args.msq_args),
        args.models,
        tools,
        args.rounds,
        args.repeats,
    )


def main() -> None:
    """Run the chosen parts, saving after each model."""
    settings = parse_settings()
    settings.out.mkdir(parents=True, exist_ok=True)
    report: Json = {
        "environment": environment(),
        "rounds": settings.rounds,
        "repeats": settings.repeats,
        "msq_args": settings.msq_args,
        "models": {},
    }
    for name in settings.models:
        report["models"][name] = run_task(name, settings)
        (settings.out / "results.json").write_text(json.dumps(report, indent=1) + "\n")
        (settings.out / "results.md").write_text(markdown(report))
    print(markdown(report), end="")


if __name__ == "__main__":
    main()
