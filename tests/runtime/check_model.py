"""Checks of ONNX files in the reference runtimes, for the Rust integration tests.

Every command prints one JSON document on stdout. Exit status: 0 done and good,
1 a checked file is bad or the command failed (the JSON says why), 2 bad usage.

    check_model.py check MODEL...
    check_model.py fusion MODEL [--level extended|all]
    check_model.py run MODEL INPUTS.npz OUTPUTS.npz [--batch B]
    check_model.py compare A.npz B.npz --step S
    check_model.py survey MODEL DATA.npz OUTPUTS.npz [MODEL DATA.npz OUTPUTS.npz]...
    check_model.py lenient MODEL DATA.npz OUTPUTS.npz [MODEL DATA.npz OUTPUTS.npz]...
    check_model.py openvino MODEL DATA.npz OUTPUTS.npz [MODEL DATA.npz OUTPUTS.npz]...
    check_model.py integers LIST.json
    check_model.py accuracy MODEL DATA.npz --input NAME --label NAME
    check_model.py fields
    check_model.py parse TEXTFILE...
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.checker
import onnx.parser
import onnxruntime as ort
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from onnx import onnx_ml_pb2
from onnx.reference import ReferenceEvaluator

Json = dict[str, Any]

COMPUTE_OPS = {
    "Add",
    "BatchNormalization",
    "Conv",
    "ConvTranspose",
    "FusedConv",
    "FusedGemm",
    "FusedMatMul",
    "Gemm",
    "MatMul",
    "NhwcFusedConv",
}
QUANTIZED_PREFIXES = ("QLinear", "QGemm", "ConvInteger", "MatMulInteger", "MatMulNBits", "DynamicQuantize")
BORDER_OPS = {"QuantizeLinear", "DequantizeLinear"}
BYTE_TYPES = {"tensor(uint8)", "tensor(int8)"}
FLOAT_TYPES = {"tensor(float)", "tensor(float16)", "tensor(bfloat16)", "tensor(double)"}
LEVELS = {
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
ACCURACY_BATCH = 256
# Batch, channels, one axis.
SEQUENCE_RANK = 3


def session_options(level: ort.GraphOptimizationLevel) -> ort.SessionOptions:
    """One thread, errors only, the given optimization level."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.graph_optimization_level = level
    return options


def open_session(model: str | bytes, options: ort.SessionOptions | None = None) -> ort.InferenceSession:
    """A CPU session; every optimization unless `options` says otherwise."""
    options = options or session_options(ort.GraphOptimizationLevel.ORT_ENABLE_ALL)
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def first_line(error: Exception) -> str:
    """The error in one line, never empty."""
    message = error.args[0] if error.args else ""
    text = (message.decode(errors="replace") if isinstance(message, bytes) else str(error)).strip()
    return " ".join(text.splitlines()) if text else type(error).__name__


def try_files(paths: list[str], action: Callable[[str], None]) -> tuple[Json, bool]:
    """Run `action` on each file and report which raised."""
    results = []
    for path in paths:
        try:
            action(path)
            results.append({"file": path, "ok": True})
        except Exception as error:  # noqa: BLE001 - whatever the reference tool raises is the finding
            results.append({"file": path, "ok": False, "error": first_line(error)})
    ok = all(result["ok"] for result in results)
    return {"ok": ok, "results": results}, ok


def command_check(args: argparse.Namespace) -> tuple[Json, bool]:
    """The ONNX checker with shape inference on each file."""
    return try_files(args.models, lambda path: onnx.checker.check_model(path, full_check=True))


def command_parse(args: argparse.Namespace) -> tuple[Json, bool]:
    """The ONNX text parser on each file."""
    return try_files(args.files, lambda path: onnx.parser.parse_model(Path(path).read_text(encoding="utf-8")))


def optimized_model(path: str, level: ort.GraphOptimizationLevel) -> onnx.ModelProto:
    """The graph that onnxruntime runs, as it saves it."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "optimized.onnx"
        options = session_options(level)
        options.optimized_model_filepath = str(target)
        open_session(path, options)
        return onnx.load(target)


def all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Nodes of the graph and of every subgraph."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in [attribute.g, *attribute.graphs]:
                yield from all_nodes(inner)


def tensor_types(model: onnx.ModelProto) -> dict[str, str]:
    """The type of every value of the main graph, as onnxruntime infers it."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    known = {output.name for output in probe.graph.output}
    for node in probe.graph.node:
        for name in node.output:
            if name and name not in known:
                probe.graph.output.add().name = name
                known.add(name)
    session = open_session(probe.SerializeToString(), session_options(ort.GraphOptimizationLevel.ORT_DISABLE_ALL))
    return {value.name: value.type for value in [*session.get_inputs(), *session.get_outputs()]}


def fusion_report(path: str, level: str) -> Json:
    """What onnxruntime turns the model into: op counts, quantized ops, names on integers, compute left in float."""
    model = optimized_model(path, LEVELS[level])
    types = tensor_types(model)
    by_domain: dict[str, Counter[str]] = {}
    quantized: Counter[str] = Counter()
    for node in all_nodes(model.graph):
        by_domain.setdefault(node.domain or "ai.onnx", Counter())[node.op_type] += 1
        if node.op_type.startswith(QUANTIZED_PREFIXES):
            quantized[node.op_type] += 1
    left_float = [
        {"op": node.op_type, "domain": node.domain or "ai.onnx", "name": node.name, "output": node.output[0]}
        for node in model.graph.node
        if node.op_type in COMPUTE_OPS and types.get(node.output[0]) in FLOAT_TYPES
    ]
    integer = [
        node.name
        for node in model.graph.node
        if node.op_type not in BORDER_OPS
        and (node.op_type.startswith(QUANTIZED_PREFIXES) or types.get(node.output[0]) in BYTE_TYPES)
    ]
    return {
        "level": level,
        "ops": {domain: dict(sorted(counts.items())) for domain, counts in sorted(by_domain.items())},
        "quantized": dict(sorted(quantized.items())),
        "integer": integer,
        "float": left_float,
        "float_counts": dict(sorted(Counter(entry["op"] for entry in left_float).items())),
    }


def command_fusion(args: argparse.Namespace) -> tuple[Json, bool]:
    """What onnxruntime turns the model into: op counts, quantized ops, compute left in float."""
    return fusion_report(args.model, args.level), True


def run_batches(
    session: ort.InferenceSession, inputs: dict[str, np.ndarray], batch: int | None
) -> dict[str, np.ndarray]:
    """All outputs by name; with `batch`, inputs are cut and outputs joined along axis 0."""
    names = [output.name for output in session.get_outputs()]
    if batch is None:
        return dict(zip(names, session.run(names, inputs)))
    count = len(next(iter(inputs.values())))
    parts = [
        session.run(names, {name: array[start : start + batch] for name, array in inputs.items()})
        for start in range(0, count, batch)
    ]
    return {name: np.concatenate(pieces) for name, pieces in zip(names, zip(*parts))}


def load_npz(path: str) -> dict[str, np.ndarray]:
    """Every array of an npz."""
    with np.load(path) as archive:
        return {name: archive[name] for name in archive.files}


def command_run(args: argparse.Namespace) -> tuple[Json, bool]:
    """Run a model on the arrays named like its inputs and save its outputs."""
    session = open_session(args.model)
    inputs = wanted_inputs(args.inputs, [value.name for value in session.get_inputs()])
    outputs = run_batches(session, inputs, args.batch)
    np.savez(args.outputs, **outputs)
    shapes = {name: {"shape": list(array.shape), "dtype": str(array.dtype)} for name, array in outputs.items()}
    return {"ok": True, "outputs": shapes}, True


def wanted_inputs(path: str, names: list[str]) -> dict[str, np.ndarray]:
    """The arrays of an npz named like a model's inputs."""
    arrays = load_npz(path)
    missing = [name for name in names if name not in arrays]
    if missing:
        raise ValueError(f"no array for input {', '.join(missing)}; the file has {', '.join(arrays)}")
    return {name: arrays[name] for name in names}


def triples(items: list[str]) -> Iterator[tuple[str, str, str]]:
    """Model, data and outputs, again and again."""
    if not items or len(items) % 3:
        raise ValueError("models, data and outputs come in threes")
    yield from zip(items[::3], items[1::3], items[2::3])


def one_by_one(items: list[str], action: Callable[[str, str, str], Json]) -> tuple[Json, bool]:
    """Run `action` on each model, data and outputs, and report what it said or raised."""
    results: list[Json] = []
    for model, data, outputs in triples(items):
        try:
            results.append({"model": model, "ok": True, **action(model, data, outputs)})
        except Exception as error:  # noqa: BLE001 - whatever the reference tool raises is the finding
            results.append({"model": model, "ok": False, "error": first_line(error)})
    ok = all(result["ok"] for result in results)
    return {"ok": ok, "results": results}, ok


def command_survey(args: argparse.Namespace) -> tuple[Json, bool]:
    """Check each model, look at what onnxruntime makes of it, run it and save its outputs."""

    def action(path: str, data: str, outputs: str) -> Json:
        onnx.checker.check_model(path, full_check=True)
        session = open_session(path)
        first = session.get_inputs()[0].shape[0]
        inputs = wanted_inputs(data, [value.name for value in session.get_inputs()])
        np.savez(outputs, **run_batches(session, inputs, first if isinstance(first, int) else None))
        return fusion_report(path, "extended")

    return one_by_one(args.items, action)


def command_lenient(args: argparse.Namespace) -> tuple[Json, bool]:
    """Run each model that onnxruntime loads, valid or not, on arrays cast to its types, and save its numeric outputs."""
    types = {"tensor(float)": "f4", "tensor(float16)": "f2", "tensor(double)": "f8", "tensor(int64)": "i8"}

    def action(path: str, data: str, outputs: str) -> Json:
        session = open_session(path)
        arrays = load_npz(data)
        wanted = [value for value in session.get_inputs() if value.name in arrays]
        inputs = {value.name: arrays[value.name].astype(types[value.type]) for value in wanted}
        fixed = session.get_inputs()[0].shape[:1]
        batch = fixed[0] if fixed and isinstance(fixed[0], int) and fixed[0] > 0 else None
        found = run_batches(session, inputs, batch)
        np.savez(outputs, **{name: array for name, array in found.items() if array.dtype.kind in "fiu"})
        ports = [[value.name, value.type] for value in [*session.get_inputs(), *session.get_outputs()]]
        return {"ports": ports}

    return one_by_one(args.items, action)


def command_openvino(args: argparse.Namespace) -> tuple[Json, bool]:
    """Run each model in OpenVINO on the CPU, save its outputs and say in what precision its layers ran."""
    import openvino as ov  # noqa: PLC0415 - it takes a second to load, which the other commands need not wait for

    core = ov.Core()

    def action(path: str, data: str, outputs: str) -> Json:
        compiled = core.compile_model(core.read_model(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        names = [port.get_any_name() for port in compiled.inputs]
        inputs = wanted_inputs(data, names)
        shape = compiled.inputs[0].get_partial_shape()
        batch = len(inputs[names[0]]) if shape[0].is_dynamic else shape[0].get_length()
        if shape[0].is_dynamic and len(shape) == SEQUENCE_RANK:
            # 2026.4.1 takes means of uint8 over one axis wrongly from the fifth row of a batch on.
            batch = 1
        starts = range(0, len(inputs[names[0]]), batch)
        request = compiled.create_infer_request()
        parts = [request.infer({name: array[i : i + batch] for name, array in inputs.items()}) for i in starts]
        ports = [(port, port.get_any_name()) for port in compiled.outputs]
        np.savez(outputs, **{name: np.concatenate([part[port] for part in parts]) for port, name in ports})
        layers: dict[str, Counter[str]] = {}
        for node in compiled.get_runtime_model().get_ordered_ops():
            info = node.get_rt_info()
            kind, precision = (str(info[key].astype(str)) for key in ("layerType", "runtimePrecision"))
            layers.setdefault(kind, Counter())[precision] += 1
        return {"layers": {kind: dict(sorted(counts.items())) for kind, counts in sorted(layers.items())}}

    return one_by_one(args.items, action)


def evaluate_reference(path: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The outputs by onnx's own reference implementation."""
    evaluator = ReferenceEvaluator(path)
    return dict(zip(evaluator.output_names, evaluator.run(None, inputs)))


def evaluate_onnxruntime(path: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The outputs by onnxruntime."""
    return run_batches(open_session(path), inputs, None)


EVALUATORS = {"onnx": evaluate_reference, "onnxruntime": evaluate_onnxruntime}


def command_integers(args: argparse.Namespace) -> tuple[Json, bool]:
    """Check models whose outputs are constants, and that the runtimes asked give exactly the outputs expected.

    The list holds objects with `model`, `expected` (an npz), `inputs` (an npz) and `runtimes`.
    """
    faults: list[Json] = []
    compared = 0
    jobs = json.loads(Path(args.list).read_text(encoding="utf-8"))
    for job in jobs:
        expected, inputs = load_npz(job["expected"]), load_npz(job["inputs"])
        try:
            onnx.checker.check_model(job["model"], full_check=True)
        except Exception as error:  # noqa: BLE001 - the finding
            faults.append({"model": job["model"], "runtime": "checker", "fault": first_line(error)})
        for runtime in job["runtimes"]:
            try:
                found = EVALUATORS[runtime](job["model"], inputs)
            except Exception as error:  # noqa: BLE001 - the finding
                faults.append({"model": job["model"], "runtime": runtime, "fault": first_line(error)})
                continue
            for name, array in expected.items():
                got = found.get(name)
                same = got is not None and got.dtype == array.dtype and np.array_equal(got, array)
                compared += array.size
                if not same:
                    fault = "missing" if got is None else f"{got.dtype}{list(got.shape)} with other elements"
                    faults.append({"model": job["model"], "runtime": runtime, "fault": f"{name}: {fault}"})
    return {"ok": not faults, "models": len(jobs), "compared": compared, "faults": faults}, not faults


def compare_arrays(a: np.ndarray, b: np.ndarray, step: float) -> Json:
    """Differences of two arrays; values that are not finite count only where both agree."""
    if a.shape != b.shape:
        return {"same_shape": False, "shape_a": list(a.shape), "shape_b": list(b.shape)}
    a64, b64 = a.astype(np.float64), b.astype(np.float64)
    same = (a64 == b64) | (np.isnan(a64) & np.isnan(b64))
    finite = np.isfinite(a64) & np.isfinite(b64)
    difference = np.abs(np.where(finite, a64, 0) - np.where(finite, b64, 0))
    within = same | (finite & (difference <= step))
    return {
        "same_shape": True,
        "elements": int(a.size),
        "max_abs": float(difference.max(initial=0.0)),
        "max_value": float(np.abs(np.where(finite, a64, 0)).max(initial=0.0)),
        "mean_abs": float(difference.mean()) if a.size else 0.0,
        "within_step": float(within.mean()) if a.size else 1.0,
        "equal": bool(same.all()),
        "non_finite_mismatches": int((~finite & ~same).sum()),
    }


def command_compare(args: argparse.Namespace) -> tuple[Json, bool]:
    """Compare the arrays of two npz files by name."""
    a, b = load_npz(args.a), load_npz(args.b)
    shared = [name for name in a if name in b]
    arrays = {name: compare_arrays(a[name], b[name], args.step) for name in shared}
    only_a, only_b = sorted(a.keys() - b.keys()), sorted(b.keys() - a.keys())
    ok = not only_a and not only_b and all(entry["same_shape"] for entry in arrays.values())
    return {"ok": ok, "step": args.step, "arrays": arrays, "only_a": only_a, "only_b": only_b}, ok


def command_accuracy(args: argparse.Namespace) -> tuple[Json, bool]:
    """Top-1 of the first output of a model with one input."""
    session = open_session(args.model)
    (model_input,) = session.get_inputs()
    arrays = load_npz(args.data)
    fixed = model_input.shape[0]
    batch = fixed if isinstance(fixed, int) else ACCURACY_BATCH
    scores = next(iter(run_batches(session, {model_input.name: arrays[args.input]}, batch).values()))
    label = arrays[args.label]
    correct = int((scores.reshape(len(label), -1).argmax(1) == label).sum())
    return {"accuracy": correct / len(label), "correct": correct, "total": len(label)}, True


def message_fields(message: DescriptorProto, prefix: str = "") -> Iterator[Json]:
    """The fields of a message and of the messages nested in it."""
    name = f"{prefix}{message.name}"
    for field in message.field:
        yield {
            "message": name,
            "field": field.name,
            "number": field.number,
            "type": FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower(),
            "type_name": field.type_name.removeprefix(".onnx.") or None,
            "label": FieldDescriptorProto.Label.Name(field.label).removeprefix("LABEL_").lower(),
            "packed": field.options.packed,
            "oneof": message.oneof_decl[field.oneof_index].name if field.HasField("oneof_index") else None,
        }
    for nested in message.nested_type:
        yield from message_fields(nested, f"{name}.")


def enum_values(holder: FileDescriptorProto | DescriptorProto, prefix: str = "") -> Iterator[Json]:
    """The values of a file's or a message's enums and of those nested in its messages."""
    for enum in holder.enum_type:
        for value in enum.value:
            yield {"enum": f"{prefix}{enum.name}", "name": value.name, "number": value.number}
    messages = holder.message_type if isinstance(holder, FileDescriptorProto) else holder.nested_type
    for message in messages:
        yield from enum_values(message, f"{prefix}{message.name}.")


def command_fields(_: argparse.Namespace) -> tuple[Json, bool]:
    """The protobuf schema of ONNX: every field of every message, and every enum value."""
    file = FileDescriptorProto()
    onnx_ml_pb2.DESCRIPTOR.CopyToProto(file)
    fields = [row for message in file.message_type for row in message_fields(message)]
    return {"onnx": onnx.__version__, "fields": fields, "enums": list(enum_values(file))}, True


def positive(text: str) -> int:
    """An integer above zero, for argparse."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, function: Callable[[argparse.Namespace], tuple[Json, bool]]) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=function.__doc__, description=function.__doc__)
        sub.set_defaults(function=function)
        return sub

    command("check", command_check).add_argument("models", nargs="+", metavar="MODEL")
    fusion = command("fusion", command_fusion)
    fusion.add_argument("model")
    fusion.add_argument(
        "--level",
        choices=sorted(LEVELS),
        default="extended",
        help="`all` also changes layouts, as a default session does, and depends on the CPU",
    )
    run = command("run", command_run)
    run.add_argument("model")
    run.add_argument("inputs")
    run.add_argument("outputs")
    run.add_argument("--batch", type=positive, help="rows a run; default: all at once")
    compare = command("compare", command_compare)
    compare.add_argument("a")
    compare.add_argument("b")
    compare.add_argument("--step", type=float, required=True)
    command("survey", command_survey).add_argument("items", nargs="+", metavar="PATH")
    command("lenient", command_lenient).add_argument("items", nargs="+", metavar="PATH")
    command("openvino", command_openvino).add_argument("items", nargs="+", metavar="PATH")
    command("integers", command_integers).add_argument("list")
    accuracy = command("accuracy", command_accuracy)
    accuracy.add_argument("model")
    accuracy.add_argument("data")
    accuracy.add_argument("--input", required=True, help="array of the npz fed to the model's only input")
    accuracy.add_argument("--label", required=True, help="array of the npz with the class indices")
    command("fields", command_fields)
    command("parse", command_parse).add_argument("files", nargs="+", metavar="TEXTFILE")
    return parser.parse_args()


def main() -> int:
    """Run one command and print its JSON."""
    args = parse_arguments()
    try:
        report, ok = args.function(args)
    except Exception as error:  # noqa: BLE001 - the caller reads JSON, not a traceback
        report, ok = {"ok": False, "error": first_line(error)}, False
    json.dump(report, sys.stdout, indent=1)
    print()
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
