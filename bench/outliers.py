"""What splitting outlier channels gains and costs, at several prices of the second product.

A model is quantized by msq-onnx without split channels. For every activation that products read, channels that reach
furthest are then left out of its range, and what its quantizer clips of them is multiplied in float beside the integer
product (docs/passes/split-outliers.md): here with the rule written once more in Python, so that the price of the small
product can be varied. Quality is that on the test data against the float model, time that of one sample in one thread, the
median of the ratios of interleaved runs to the file without split channels.

    python bench/outliers.py model.onnx --msq target/release/msq-onnx --calib a.npz b.npz --test test.npz --out work
"""

from __future__ import annotations

import argparse
import subprocess
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

COUNTS = (1, 2, 4, 8, 16, 32)
PRICES = (2e-3, 5e-4, 1e-4)
PER_CHANNEL = 0.05
SHARE = 8
ROWS = 512
ROUNDS = 15

Feeds = list[dict[str, np.ndarray]]


@dataclass
class Site:
    """An activation with a quantizer, and the weights that multiply it, rows along its channels."""

    quantizer: onnx.NodeProto
    scale: float
    zero_point: np.ndarray
    products: list[tuple[onnx.NodeProto, np.ndarray]] = field(default_factory=list)

    @property
    def value(self) -> str:
        return self.quantizer.input[0]

    @property
    def ends(self) -> tuple[int, int]:
        return (0, 255) if self.zero_point.dtype == np.uint8 else (-128, 127)


def session(model: onnx.ModelProto | str) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    data = model if isinstance(model, str) else model.SerializeToString()
    return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def samples(path: Path, model: onnx.ModelProto) -> Feeds:
    """Samples of an .npz one by one."""
    names = {value.name for value in model.graph.input}
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files if name in names}
    return [{name: values[at : at + 1] for name, values in arrays.items()} for at in range(len(next(iter(arrays.values()))))]


def with_float_biases(model: onnx.ModelProto) -> onnx.ModelProto:
    """Biases of int32 hold for one scale of the activation alone."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    kept = []
    for node in model.graph.node:
        bias = stored.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if bias is None or bias.data_type != onnx.TensorProto.INT32:
            kept.append(node)
            continue
        values = numpy_helper.to_array(bias) * numpy_helper.to_array(stored[node.input[1]])
        model.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), node.output[0]))
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return model


def matrix(node: onnx.NodeProto | None, stored: dict[str, onnx.TensorProto]) -> np.ndarray | None:
    """The matrix behind a `DequantizeLinear`."""
    if node is None or node.op_type != "DequantizeLinear" or node.input[0] not in stored:
        return None
    integers = numpy_helper.to_array(stored[node.input[0]]).astype(np.float32)
    scale = numpy_helper.to_array(stored[node.input[1]])
    zero = numpy_helper.to_array(stored[node.input[2]]).astype(np.float32) if len(node.input) > 2 else np.float32(0)
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
    if integers.ndim != 2:
        return None
    shape = [1, 1]
    shape[axis] = -1
    spread = [part.reshape(shape) if part.size > 1 else part.reshape(()) for part in (scale, np.asarray(zero))]
    return (integers - spread[1]) * spread[0]


def sites(model: onnx.ModelProto) -> list[Site]:
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    writer = {name: node for node in model.graph.node for name in node.output}
    quantized = {node.input[0] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    found: dict[str, Site] = {}
    for node in model.graph.node:
        if node.op_type not in ("MatMul", "Gemm") or node.output[0] in quantized:
            continue
        reader = writer.get(node.input[0])
        quantizer = writer.get(reader.input[0]) if reader is not None and reader.op_type == "DequantizeLinear" else None
        weight = matrix(writer.get(node.input[1]), stored)
        if quantizer is None or quantizer.op_type != "QuantizeLinear" or weight is None:
            continue
        if any(attribute.name == "transB" and attribute.i for attribute in node.attribute):
            weight = weight.T
        scale, zero_point = (numpy_helper.to_array(stored[name]) for name in quantizer.input[1:3])
        site = found.setdefault(quantizer.output[0], Site(quantizer, float(scale), zero_point))
        site.products.append((node, weight))
    return list(found.values())


def tapped(model: onnx.ModelProto, names: list[str]) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    have = {value.name for value in copy.graph.output}
    copy.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names if name not in have)
    return copy


def collected(model: onnx.ModelProto, found: list[Site], feeds: Feeds) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Of every activation rows, and how many each stands for: of each sample those with the largest values, and others."""
    names = list(dict.fromkeys(site.value for site in found))
    running, rows = session(tapped(model, names)), defaultdict(list)
    wanted = max(4, ROWS // len(feeds))
    for feed in feeds:
        kept = feed.get("attention_mask")
        for name, values in zip(names, running.run(names, feed), strict=True):
            flat = values.reshape(-1, values.shape[-1])
            if kept is not None and kept.size == len(flat):
                flat = flat[kept.reshape(-1) > 0]
            order = np.argsort(-np.abs(flat).max(1), kind="stable")
            top, others = np.split(order, [wanted // 4])
            some = others[np.linspace(0, len(others), min(wanted - len(top), len(others)), endpoint=False).astype(int)]
            counts = np.concatenate([np.ones(len(top)), np.full(len(some), len(others) / max(1, len(some)))])
            rows[name].append((flat[np.concatenate([top, some])], counts.astype(np.float32)))
    return {name: tuple(np.concatenate(part) for part in zip(*parts, strict=True)) for name, parts in rows.items()}


def grid(site: Site, low: float, high: float) -> tuple[float, int]:
    (first, last), low, high = site.ends, min(low, 0.0), max(high, 0.0)
    scale = max((high - low) / (last - first), 1e-12)
    return scale, int(np.clip(round(first - low / scale), first, last))


def error(site: Site, rows: np.ndarray, counts: np.ndarray, weights: np.ndarray, parameters: tuple[float, int], split: list[int]) -> float:
    """Σ counts·weights·(x − Q(x))²; of the channels split, with x limited to what Q represents."""
    (first, last), (scale, zero) = site.ends, parameters
    rows = rows.copy()
    rows[:, split] = np.clip(rows[:, split], (first - zero) * scale, (last - zero) * scale)
    lost = np.clip(np.rint(rows / np.float32(scale)), first - zero, last - zero) * np.float32(scale) - rows
    return float(counts @ (lost * lost) @ weights)


def without(rows: np.ndarray, count: int) -> tuple[list[int], tuple[float, float]]:
    """The channels that reach furthest, and what the others reach."""
    order = np.argsort(-np.abs(rows).max(0), kind="stable")
    rest = rows[:, order[count:]]
    return sorted(order[:count].tolist()), (float(rest.min()), float(rest.max()))


def judged(site: Site, rows: np.ndarray, counts: np.ndarray) -> tuple[float, dict[int, float]]:
    """The error with the range of the file, and with channels and ranges of one half of the rows on the other."""
    mean = counts @ rows / counts.sum()
    variance = counts @ (rows - mean) ** 2 / counts.sum()
    squares = [(weight**2).sum(1) for _, weight in site.products]
    weights = sum(own / max(variance @ own, 1e-30) for own in squares)
    middle, total, left = len(rows) // 2, counts.sum(), {}
    halves = [(rows[:middle], counts[:middle]), (rows[middle:], counts[middle:])]
    for count in (count for count in COUNTS if count * SHARE <= rows.shape[1]):
        left[count] = 0.0
        for (seen, _), (other, own) in (halves, halves[::-1]):
            split, (low, high) = without(seen, count)
            left[count] += error(site, other, own, weights, grid(site, low, high), split) / total
    base = error(site, rows, counts, weights, (site.scale, int(site.zero_point)), []) / total
    return base, left


def chosen(found: list[Site], errors: list[tuple[float, dict[int, float]]], price: float) -> dict[str, int]:
    """Numbers of channels, by quantized value."""
    plan = {}
    for site, (base, left) in zip(found, errors, strict=True):
        gain = {k: base - e - price * len(site.products) * (1 + PER_CHANNEL * k) for k, e in left.items() if e <= base / 2}
        count = max(gain, key=gain.get, default=0)
        if count and gain[count] > 0:
            plan[site.quantizer.output[0]] = count
    return plan


def split(model: onnx.ModelProto, rows: dict[str, tuple[np.ndarray, np.ndarray]], plan: dict[str, int]) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph, before, after = copy.graph, {}, {}

    def constant(name: str, values: np.ndarray) -> str:
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    for site in (site for site in sites(copy) if site.quantizer.output[0] in plan):
        key = site.quantizer.output[0]
        channels, (low, high) = without(rows[site.value][0], plan[key])
        scale, zero = grid(site, low, high)
        parameters = constant(f"{key}_s", np.float32(scale)), constant(f"{key}_z", np.array(zero, site.zero_point.dtype))
        for node in graph.node:
            if node is site.quantizer or node.output[0] == key or node.op_type == "DequantizeLinear" and node.input[0] == key:
                node.input[1], node.input[2] = parameters
        ends = [np.float32((end - zero) * np.float32(scale)) for end in site.ends]
        bounds = [constant(f"{key}_{which}", end) for which, end in zip(("low", "high"), ends, strict=True)]
        index = constant(f"{key}_channels", np.array(channels, np.int64))
        before[key] = [
            helper.make_node("Gather", [site.value, index], [f"{key}_own"], axis=-1),
            helper.make_node("Clip", [f"{key}_own", *bounds], [f"{key}_kept"]),
            helper.make_node("Sub", [f"{key}_own", f"{key}_kept"], [f"{key}_rest"]),
        ]
        for at, (node, weight) in enumerate(site.products):
            own, output = constant(f"{key}_rows{at}", weight[channels].astype(np.float32)), node.output[0]
            node.output[0] = f"{output}_integers"
            after[node.output[0]] = [
                helper.make_node("MatMul", [f"{key}_rest", own], [f"{output}_outliers"]),
                helper.make_node("Add", [node.output[0], f"{output}_outliers"], [output]),
            ]
    nodes = []
    for node in graph.node:
        nodes += [*before.get(node.output[0], []), node, *after.get(node.output[0], [])]
    del graph.node[:]
    graph.node.extend(nodes)
    return copy


def answers(model: onnx.ModelProto, feeds: Feeds, value: str | None) -> np.ndarray:
    """Vectors to compare: rows of a value, or of the first output, averaged over the mask where there is one."""
    name = value or model.graph.output[0].name
    running, rows = session(tapped(model, [name])), []
    for feed in feeds:
        found = running.run([name], feed)[0]
        if value is None and "attention_mask" in feed:
            mask = feed["attention_mask"][..., None]
            found = (found * mask).sum(1) / mask.sum(1)
        rows.append(found.reshape(-1, found.shape[-1]))
    return np.concatenate(rows)


def cosines(wanted: np.ndarray, found: np.ndarray) -> np.ndarray:
    return (wanted * found).sum(1) / np.linalg.norm(wanted, axis=1) / np.linalg.norm(found, axis=1)


def ratios(models: list[onnx.ModelProto], feed: dict[str, np.ndarray]) -> list[float]:
    """Processor time relative to the first."""
    running, seconds = [session(model) for model in models], [[] for _ in models]
    for each in running:
        each.run(None, feed)
    for turn in range(ROUNDS):
        for at in np.roll(np.arange(len(models)), turn):
            start = time.process_time()
            running[at].run(None, feed)
            seconds[at].append(time.process_time() - start)
    return [float(np.median(np.divide(own, seconds[0]))) for own in seconds]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--msq", required=True)
    parser.add_argument("--calib", type=Path, nargs="+", required=True)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--value", help="inner value whose rows are compared, in the place of the first output")
    parser.add_argument("--flags", default="", help="more flags for msq-onnx")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    model = onnx.load(arguments.model)
    test = samples(arguments.test, model)
    wanted = answers(model, test, arguments.value)
    print("| calibrated on | split | activations, channels | cosine, mean | worst | time |\n|---|---|---|---|---|---|")
    for calib in arguments.calib:
        files = {}
        for kind, flags in (("static", ["--calib", calib]), ("dynamic", ["--act-bits", "dynamic"])):
            files[kind] = arguments.out / f"{calib.stem}_{kind}.onnx"
            command = [arguments.msq, arguments.model, "-o", files[kind], "--format", "qdq", "-q", *flags]
            subprocess.run([*command, *arguments.flags.split()], check=True)
        plain, dynamic = (onnx.load(files[kind]) for kind in ("static", "dynamic"))
        base = with_float_biases(onnx.load(files["static"]))
        found = sites(base)
        rows = collected(base, found, samples(calib, model))
        errors = [judged(site, *rows[site.value]) for site in found]
        table = {"nothing": ("", plain), "`--act-bits dynamic`": ("", dynamic)}
        for price in PRICES:
            plan = chosen(found, errors, price)
            table[f"at a price of {price:g}"] = f"{len(plan)}, {sum(plan.values())}", split(base, rows, plan)
        times = ratios([made for _, made in table.values()], test[0])
        for (name, (what, made)), ratio in zip(table.items(), times, strict=True):
            near = cosines(wanted, answers(made, test, arguments.value))
            print(f"| {calib.stem} | {name} | {what} | {near.mean():.4f} | {near.min():.4f} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
