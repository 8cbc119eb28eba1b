"""Costs of layers by gradients beside costs by a run for each: how alike they are, and what plans of either reach.

    python sensitivity.py --data DATA --out OUT --msq path/to/msq-onnx --model resnet20 --bits 4 3 2.5

For each target (bits a weight on average) `--search ilp` runs once with `--costs measured` and once with
`--costs gradient`. Prints the rank correlation of the costs over all layers and widths and within each width, and one
table of plans: seconds of the search, the distance of the plan on held-out samples, and accuracy, agreement and KL
divergence of the finished file in onnxruntime. Writes `sensitivity.<model>.json` and `.md` into `--out`.
"""

from __future__ import annotations

import argparse
import json
import shlex
from collections import defaultdict
from pathlib import Path

import numpy as np
from common import TASKS
from compare_ort import Json, batch_outputs, environment, measured
from sweep import judge, with_samples

COSTS = ["measured", "gradient"]


def ranks(values: list[float]) -> np.ndarray:
    """The place of each value; equal ones share the mean of their places."""
    array = np.asarray(values)
    less = (array[None] < array[:, None]).sum(1)
    return less + ((array[None] == array[:, None]).sum(1) - 1) / 2


def correlation(a: list[float], b: list[float]) -> float | None:
    """Spearman's rank correlation; none where either is all the same."""
    x, y = ranks(a), ranks(b)
    if x.std() == 0 or y.std() == 0:
        return None
    return float(np.corrcoef(x, y)[0, 1])


def search(args: argparse.Namespace, costs: str, bits: float) -> Json:
    """One search, with its report and what it took."""
    task = TASKS[args.model]
    data = with_samples(task.msq_args(args.data, args.out), args.samples)
    report = args.out / f"{args.model}.{costs}.json"
    report.unlink(missing_ok=True)
    command = [str(args.msq), "search", str(args.data / task.model), "-o", str(report), "--quiet", *data]
    command += ["--target-bits", str(bits), "--search", "ilp", "--costs", costs, *shlex.split(args.flags)]
    run = measured(command, args.out)
    if run["exit"] not in (0, 5) or not report.exists():
        raise SystemExit(f"{' '.join(command)}\n{run['stderr']}")
    return {"wall_s": run["wall_s"], "cpu_s": run["cpu_s"], "peak_mb": run["peak_mb"], **json.loads(report.read_text())}


def by_width(found: Json) -> dict[str, list[float]]:
    """Costs of all layers at each width but the first, which costs nothing."""
    costs = defaultdict(list)
    for layer in found["sensitivities"]:
        for width, cost in layer["costs"][1:]:
            costs[width].append(cost)
    return costs


def alike(measured_costs: Json, gradient_costs: Json) -> Json:
    """Rank correlations of two searches' costs."""
    a, b = by_width(measured_costs), by_width(gradient_costs)
    together = [sum((costs[width] for width in a), []) for costs in (a, b)]
    widths = {width: correlation(a[width], b[width]) for width in a}
    ratio = {width: float(np.sum(b[width]) / max(np.sum(a[width]), 1e-12)) for width in a}
    return {"all": correlation(*together), "widths": widths, "ratio": ratio}


def arguments() -> argparse.Namespace:
    """What the caller asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the models and their data")
    parser.add_argument("--out", type=Path, required=True, help="folder for results")
    parser.add_argument("--msq", type=Path, required=True, help="the msq-onnx binary")
    parser.add_argument("--model", choices=list(TASKS), default="resnet20")
    parser.add_argument("--bits", type=float, nargs="+", default=[4.0, 3.0], help="targets, bits a weight on average")
    parser.add_argument("--samples", type=int, help="calibration samples")
    parser.add_argument("--flags", default="", help="more arguments of msq-onnx, in one string")
    return parser.parse_args()


def main() -> None:
    """Runs all searches and prints the tables."""
    args = arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    args.accept, args.jobs = (0, 5), 1
    task = TASKS[args.model]
    evaluation = task.evaluation(args.data)
    args.data, args.out, args.msq = args.data.resolve(), args.out.resolve(), args.msq.resolve()
    reference = list(batch_outputs(args.data / task.model, task, evaluation))
    results: list[Json] = []
    lines = ["| bits | costs | search s | CPU s | distance | accuracy % | agreement % | KL |", "|---|---|---|---|---|---|---|---|"]
    for bits in args.bits:
        found = {costs: search(args, costs, bits) for costs in COSTS}
        entry: Json = {"bits": bits, "alike": alike(found["measured"], found["gradient"])}
        for costs in COSTS:
            setting = f"--target-bits {bits} --search ilp --costs {costs} {args.flags}"
            quality = judge(setting, args, task, evaluation, reference)
            one = found[costs]
            distance = one["verdict"]["distance"]
            entry[costs] = {key: one[key] for key in ("wall_s", "cpu_s", "peak_mb")}
            entry[costs] |= {"distance": distance, "file": quality}
            row = [bits, costs, f"{one['wall_s']:.1f}", f"{one['cpu_s']:.1f}", f"{distance:.5f}"]
            row += [quality["error"], "", ""] if "error" in quality else [
                f"{100 * quality['accuracy']:.2f}", f"{100 * quality['agreement']:.2f}", f"{quality['kl']:.5f}"
            ]
            lines.append("| " + " | ".join(str(cell) for cell in row) + " |")
        print(f"{bits} bits: {json.dumps(entry['alike'])}", flush=True)
        results.append(entry)
        report = {"environment": environment(), "flags": args.flags, "results": results}
        (args.out / f"sensitivity.{args.model}.json").write_text(json.dumps(report, indent=1))
        (args.out / f"sensitivity.{args.model}.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
