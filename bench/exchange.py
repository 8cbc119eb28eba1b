"""Learning in several processes with each code of gradients: bytes exchanged beside what is lost.

    python exchange.py --data DATA --out OUT --msq path/to/msq-onnx
    python exchange.py --data DATA --out OUT --msq path/to/msq-onnx --bits 3 --steps 100 --codes float onebit qsgd:4

Quantizes ResNet20 by `--solver distill --solver-processes 2` with each code, and in one process,
beside `gram`, and judges each file in onnxruntime. Prints one table per number of bits: megabytes of
gradients that the processes received from each other, the distance of the outputs on samples held
out as the report states it, KL divergence from the float model, agreement, accuracy, seconds and processor
time of all processes. Writes `exchange.json` and `exchange.md` into `--out`, after each run.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from common import TASKS, EvalSet, Task
from compare_ort import Json, batch_outputs, environment, measured, quality
from sweep import with_samples

MODEL = "resnet20"
CODES = ["float", "onebit", "threshold:1", "threshold:3", "qsgd:2", "qsgd:4", "qsgd:8", "terngrad"]
CODES += ["dorefa:2", "dorefa:8"]
HEAD = ["code", "MB exchanged", "times less than float", "distance held out", "KL"]
HEAD += ["agreement %", "accuracy %", "wall s", "CPU s"]


def arguments(code: str, args: argparse.Namespace) -> list[str]:
    """What a run adds to the command line: `gram`, `alone` or a code."""
    if code == "gram":
        return ["--solver", "gram"]
    learning = ["--solver", "distill", "--solver-steps", str(args.steps)]
    if args.rate:
        learning += ["--solver-rate", str(args.rate)]
    if code == "alone":
        return learning
    return [*learning, "--solver-processes", str(args.processes), "--gradient-code", code]


def judged(code: str, bits: int, args: argparse.Namespace, task: Task, evaluation: EvalSet, reference: list) -> Json:
    """Quantizes with one code and measures the file."""
    with tempfile.TemporaryDirectory(dir=args.out) as folder:
        output = Path(folder) / f"{MODEL}.onnx"
        data = with_samples(task.msq_args(args.data, Path(folder)), args.samples)
        command = [str(args.msq), str(args.data / task.model), "-o", str(output), "--json", *data]
        command += ["--weight-bits", str(bits), "--act-bits", str(bits), "--no-repair", "--verify", "0"]
        command += ["--threads", "1", "--seed", str(args.seed), *arguments(code, args)]
        run = measured(command, Path(folder))
        if run["exit"]:
            last = run["stderr"].strip().splitlines()
            return {"error": f"exit {run['exit']}: {last[-1] if last else 'no message'}"}
        result = {"wall_s": run["wall_s"], "cpu_s": run["cpu_s"]}
        result["learning"] = json.loads(run["stdout"]).get("learning")
        return result | quality(batch_outputs(output, task, evaluation), reference, evaluation)


def line(code: str, result: Json) -> str:
    """A row of the table."""
    if "error" in result:
        return f"| `{code}` | {result['error'].replace('|', '/')} | | | | | | | |"
    learning = result["learning"] or {}
    sent, floats = learning.get("exchanged_bytes", 0), learning.get("float_bytes", 0)
    exchanged = f"{sent / 1e6:,.2f} | {floats / sent:.1f}" if sent else "0 | "
    distance = learning.get("distance_with")
    distance = "" if distance is None else f"{distance:.5f}" + ("" if learning["taken"] else " (not taken)")
    return (
        f"| `{code}` | {exchanged} | {distance} | {result['kl']:.4f} | {100 * result['agreement']:.2f} "
        f"| {100 * result['accuracy']:.2f} | {result['wall_s']:.0f} | {result['cpu_s']:.0f} |"
    )


def markdown(report: Json) -> str:
    """A table for each number of bits, with a line about where it was measured."""
    env, steps = report["environment"], report["steps"]
    text = [
        f"{MODEL}, {report['samples']} calibration samples, {steps} steps of `distill`, {report['processes']} "
        f"processes of one thread, seed {report['seed']}; onnxruntime {env['onnxruntime']}, {env['cpu']}, "
        f"{env['cores']} cores. Accuracy, agreement and KL on {report['float']['compared']} samples; "
        f"float {100 * report['float']['accuracy']:.2f}. `alone` is one process.",
    ]
    for bits, results in report["bits"].items():
        rows = [
            f"W{bits}A{bits}",
            "",
            "| " + " | ".join(HEAD) + " |",
            "|---" * len(HEAD) + "|",
            *(line(code, result) for code, result in results.items()),
        ]
        text.append("\n".join(rows))
    return "\n\n".join(text) + "\n"


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with models and data, see README.md")
    parser.add_argument("--out", type=Path, required=True, help="folder for results")
    parser.add_argument("--msq", type=Path, required=True, help="the msq-onnx binary")
    parser.add_argument("--bits", type=int, nargs="+", default=[4, 3], help="bits of weights and activations; 4 3")
    parser.add_argument("--codes", nargs="+", default=CODES, help="codes of gradients")
    parser.add_argument("--processes", type=int, default=2, help="processes; 2")
    parser.add_argument("--steps", type=int, default=60, help="mini-batches before the first block is rounded; 60")
    parser.add_argument("--rate", type=float, help="--solver-rate; the default without it")
    parser.add_argument("--samples", type=int, default=512, help="calibration samples; 512")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.data, args.out, args.msq = args.data.resolve(), args.out.resolve(), args.msq.resolve()
    return args


def main() -> None:
    """Run all codes, saving after each."""
    args = parse_arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    task = TASKS[MODEL]
    evaluation = task.evaluation(args.data)
    reference = list(batch_outputs(args.data / task.model, task, evaluation))
    report: Json = {
        "steps": args.steps,
        "samples": args.samples,
        "processes": args.processes,
        "seed": args.seed,
        "environment": environment(),
        "float": quality(iter(reference), reference, evaluation),
        "bits": {},
    }
    for bits in args.bits:
        results = report["bits"].setdefault(str(bits), {})
        for code in ["gram", "alone", *args.codes]:
            results[code] = judged(code, bits, args, task, evaluation, reference)
            print(f"W{bits}A{bits}", line(code, results[code]), file=sys.stderr)
            (args.out / "exchange.json").write_text(json.dumps(report, indent=1) + "\n")
            (args.out / "exchange.md").write_text(markdown(report))
    print(markdown(report), end="")


if __name__ == "__main__":
    main()
