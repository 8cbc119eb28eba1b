"""Holds what msq-onnx computes with a quantized model against what onnxruntime computes with it, integer by integer.

    python bench/emulation.py --msq target/release/msq-onnx --data DATA --out FOLDER [--models resnet20 ...] [-- FLAGS...]

Each model is quantized with FLAGS. Every quantized activation is made an output, which leaves onnxruntime's fusions as
they are, and onnxruntime runs the first test inputs. msq-onnx runs them twice: from the input on, where a value that was
half-way between two steps and went the other way moves others behind it; and step by step, every step from
onnxruntime's integers before it, which shows what the arithmetic itself differs in.
"""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from common import TASKS

SAMPLES = 16
Arrays = dict[str, np.ndarray]


def quantized_values(proto: onnx.ModelProto) -> list[str]:
    """Names of what quantizers write."""
    return [node.output[0] for node in proto.graph.node if node.op_type == "QuantizeLinear"]


def tap(proto: onnx.ModelProto, path: Path) -> None:
    """Makes what quantizers write the outputs of a model."""
    del proto.graph.output[:]
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in quantized_values(proto))
    onnx.save(proto, path)


def cut(proto: onnx.ModelProto, path: Path, values: Arrays) -> None:
    """The same, and whoever reads such a value reads an input instead, `in` and its position."""
    inputs = {name: f"in{at}" for at, name in enumerate(quantized_values(proto))}
    for node in proto.graph.node:
        node.input[:] = [inputs.get(name, name) for name in node.input]
    for name, fed in inputs.items():
        element = onnx.helper.np_dtype_to_tensor_dtype(values[name].dtype)
        shape = [None] + list(values[name].shape[1:])
        proto.graph.input.append(onnx.helper.make_tensor_value_info(fed, element, shape))
    del proto.graph.value_info[:]
    tap(proto, path)


def onnxruntime_outputs(model: Path, name: str, inputs: np.ndarray, wanted: list[str]) -> Arrays:
    """What onnxruntime computes, sample by sample as msq-onnx does."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    runs = [session.run(wanted, {name: inputs[at : at + 1]}) for at in range(len(inputs))]
    return {name: np.concatenate(values) for name, values in zip(wanted, zip(*runs, strict=True), strict=True)}


def msq_outputs(msq: Path, model: Path, inputs: Arrays) -> Arrays:
    """What msq-onnx computes."""
    samples, outputs = model.with_suffix(".in.npz"), model.with_suffix(".out.npz")
    np.savez(samples, **inputs)
    command = [msq, "evaluate", model, "--calib", samples, "--preset", "raw", "--save-outputs", outputs]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    with np.load(outputs) as arrays:
        return dict(arrays)


def shares(ours: Arrays, theirs: Arrays) -> np.ndarray:
    """Of each value, the shares of elements that are the same and that are within a step."""
    apart = {name: np.abs(ours[name].astype(np.int32).ravel() - theirs[name].ravel()) for name in theirs}
    return np.array([((a == 0).mean(), (a <= 1).mean()) for a in apart.values()])


def compare(task_name: str, settings: argparse.Namespace) -> str:
    """A row of the table."""
    task = TASKS[task_name]
    model = settings.out / f"{task_name}.onnx"
    quantizing = [settings.msq, settings.data / task.model, "-o", model, "--quiet", *settings.flags]
    subprocess.run([*quantizing, *task.msq_args(settings.data, settings.out)], check=True)
    evaluation = task.evaluation(settings.data)
    fed = {evaluation.input_name: evaluation.inputs[:SAMPLES]}
    tapped, steps = settings.out / f"{task_name}.tapped.onnx", settings.out / f"{task_name}.steps.onnx"
    tap(onnx.load(model), tapped)
    theirs = onnxruntime_outputs(tapped, *next(iter(fed.items())), quantized_values(onnx.load(model)))
    cut(onnx.load(model), steps, theirs)
    through = shares(msq_outputs(settings.msq, tapped, fed), theirs)
    before = fed | {f"in{at}": values for at, values in enumerate(theirs.values())}
    single = shares(msq_outputs(settings.msq, steps, before), theirs)
    values = sum(array.size for array in theirs.values())
    percent = [single.mean(0)[0], single.mean(0)[1], single.min(0)[1], through.mean(0)[1], through.min(0)[1]]
    cells = " | ".join(f"{100 * share:.3f} %" for share in percent)
    return f"| {task_name} | {len(theirs)} | {values / 1e6:.1f} M | {cells} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--msq", required=True, type=Path)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--models", nargs="+", default=list(TASKS), choices=TASKS)
    parser.add_argument("flags", nargs="*")
    settings = parser.parse_args()
    settings.out.mkdir(parents=True, exist_ok=True)
    steps = ["step by step: the same", "within 1", "least"]
    columns = ["model", "quantized activations", "values", *steps, "from the input on: within 1", "least"]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for task_name in settings.models:
        print(compare(task_name, settings), flush=True)


if __name__ == "__main__":
    main()
