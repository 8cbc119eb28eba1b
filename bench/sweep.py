"""Quantize one model with many settings of msq-onnx and judge each file in onnxruntime.

    python sweep.py --data DATA --out OUT --msq path/to/msq-onnx --model resnet20 --samples 1024 \
        -- "--weight-bits 4" "--weight-bits 3 --solver adaround"

Prints one table: accuracy, agreement with the float model, KL divergence from it,
size of the file, seconds, and peak memory of each. With `--sets N` each setting is
calibrated N times, on disjoint sets of samples; the table has means over the sets and,
for the accuracy, the standard deviation between them. Writes `sweep.<model>.json` and
`sweep.<model>.md` into `--out`, after each setting. With `--jobs N` so many runs go on at once:
their times then count for little.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from common import TASKS, EvalSet, Task
from compare_ort import Json, batch_outputs, environment, measured, quality


#: What is averaged over sets.
MEANS = (
    "accuracy",
    "accuracy_standard_error",
    "agreement",
    "kl",
    "size_kb",
    "wall_s",
    "cpu_s",
    "peak_mb",
)


def with_samples(arguments: list[str], samples: int | None) -> list[str]:
    """The calibration arguments with another number of samples."""
    if samples is None:
        return arguments
    if "--samples" in arguments:
        at = arguments.index("--samples")
        arguments = arguments[:at] + arguments[at + 2 :]
    return [*arguments, "--samples", str(samples)]


def data_arguments(args: argparse.Namespace, task: Task, number: int | None, folder: Path) -> list[str]:
    """The calibration arguments, on all samples or on one of the disjoint sets of an `.npz`."""
    arguments = with_samples(task.msq_args(args.data, folder), args.samples)
    if number is None:
        return arguments
    at = arguments.index("--calib") + 1
    if not arguments[at].endswith(".npz"):
        raise SystemExit(f"error: `{args.model}` calibrates on {arguments[at]}; --sets needs an .npz")
    with np.load(arguments[at]) as arrays:
        part = {name: array[number :: args.sets] for name, array in arrays.items()}
    if args.samples and min(map(len, part.values())) < args.samples:
        raise SystemExit(f"error: {args.sets} sets of {args.samples} samples are more than there are")
    path = folder / "set.npz"
    np.savez(path, **part)
    return [*arguments[:at], str(path), *arguments[at + 1 :]]


def over_sets(results: list[Json]) -> Json:
    """The means of the results of all sets, with the standard deviation of the accuracy between them."""
    failed = [result for result in results if "error" in result]
    if failed or len(results) == 1:
        return (failed or results)[0]
    means = {key: statistics.fmean(result[key] for result in results) for key in results[0] if key in MEANS}
    accuracies = [result["accuracy"] for result in results]
    return means | {"accuracies": accuracies, "accuracy_spread": statistics.stdev(accuracies)}


def judge(
    setting: str, args: argparse.Namespace, task: Task, evaluation: EvalSet, reference: list, number: int | None = None
) -> Json:
    """Quantizes with one setting and measures the file, in a folder of its own."""
    with tempfile.TemporaryDirectory(dir=args.out) as folder:
        output = Path(folder) / f"{args.model}.onnx"
        data = data_arguments(args, task, number, Path(folder))
        command = [str(args.msq), str(args.data / task.model), "-o", str(output), "--quiet", *data]
        run = measured([*command, *shlex.split(setting)], Path(folder))
        if run["exit"] not in args.accept or not output.exists():
            last = run["stderr"].strip().splitlines()
            return {"error": f"exit {run['exit']}: {last[-1] if last else 'no message'}"}
        result = {"wall_s": run["wall_s"], "cpu_s": run["cpu_s"], "peak_mb": run["peak_mb"]}
        result["size_kb"] = output.stat().st_size / 1000
        threads = 0 if args.jobs == 1 else 1
        result |= quality(batch_outputs(output, task, evaluation, threads), reference, evaluation)
    print(f"{args.model}:", "" if number is None else f"set {number + 1}", line(setting, result), file=sys.stderr)
    return result


def line(setting: str, result: Json) -> str:
    """A row of the table."""
    if "error" in result:
        return f"| `{setting}` | {result['error'].replace('|', '/')} | | | | | | |"
    error = 100 * result.get("accuracy_spread", result["accuracy_standard_error"])
    return (
        f"| `{setting}` | {100 * result['accuracy']:.2f} ± {error:.2f} | {100 * result['agreement']:.2f} "
        f"| {result['kl']:.5f} | {result['size_kb']:,.1f} | {result['wall_s']:.1f} | {result['cpu_s']:.1f} "
        f"| {result['peak_mb']:.0f} |"
    )


def markdown(report: Json) -> str:
    """The table with a line about where it was measured."""
    env, judged = report["environment"], report["float"]["judged"]
    compared = report["float"]["compared"]
    head = (
        f"{report['model']}, {report['samples'] or 'all'} calibration samples, onnxruntime {env['onnxruntime']}, "
        f"{env['cpu']}, {env['cores']} cores. Accuracy on {judged}, agreement and KL on {compared} samples; "
        f"float {100 * report['float']['accuracy']:.2f}."
    )
    if report["sets"] > 1:
        head += f" Means over {report['sets']} disjoint sets of samples, ± the standard deviation between them."
    rows = [
        "| flags | accuracy % | agreement % | KL | size KB | wall s | CPU s | peak MB |",
        "|---|---|---|---|---|---|---|---|",
        *(line(setting, result) for setting, result in report["settings"].items()),
    ]
    return head + "\n\n" + "\n".join(rows) + "\n"


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with models and data, see README.md")
    parser.add_argument("--out", type=Path, required=True, help="folder for results")
    parser.add_argument("--msq", type=Path, required=True, help="the msq-onnx binary")
    parser.add_argument("--model", choices=list(TASKS), required=True)
    parser.add_argument("--samples", type=int, help="calibration samples; all of the task's own without it")
    parser.add_argument("--sets", type=int, default=1, help="disjoint sets of samples to calibrate on; 1")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once; 1")
    parser.add_argument("--test", type=int, help="judge only the first so many samples")
    parser.add_argument("--accept", type=int, nargs="*", default=[0], help="exit codes that leave a file to judge")
    parser.add_argument("settings", nargs="+", help="arguments of msq-onnx, one string a setting")
    args = parser.parse_args()
    args.data, args.out, args.msq = args.data.resolve(), args.out.resolve(), args.msq.resolve()
    return args


def main() -> None:
    """Run all settings, saving after each."""
    args = parse_arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    task = TASKS[args.model]
    evaluation = task.evaluation(args.data)
    if args.test:
        judged = evaluation.judged[evaluation.judged < args.test]
        rows = slice(args.test)
        evaluation = EvalSet(
            evaluation.input_name, evaluation.inputs[rows], evaluation.labels[rows], judged, evaluation.decode
        )
    reference = list(batch_outputs(args.data / task.model, task, evaluation))
    report: Json = {
        "model": args.model,
        "samples": args.samples,
        "sets": args.sets,
        "environment": environment(),
        "float": quality(iter(reference), reference, evaluation),
        "settings": {},
    }
    numbers = [None] if args.sets == 1 else list(range(args.sets))
    with ThreadPoolExecutor(args.jobs) as pool:
        runs = {
            setting: [pool.submit(judge, setting, args, task, evaluation, reference, number) for number in numbers]
            for setting in args.settings
        }
        for setting, results in runs.items():
            report["settings"][setting] = over_sets([result.result() for result in results])
            (args.out / f"sweep.{args.model}.json").write_text(json.dumps(report, indent=1) + "\n")
            (args.out / f"sweep.{args.model}.md").write_text(markdown(report))
    print(markdown(report), end="")


if __name__ == "__main__":
    main()
