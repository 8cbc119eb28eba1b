"""Writes small models with what they compute, for the Rust integration tests: the node tests of the PyPI package `onnx`,
and layers with the attributes that those leave out.

    conformance.py FOLDER

FOLDER/NAME.onnx is a model, FOLDER/NAME.values a model whose initializers `input_0`, … are what is fed, in the model's order,
and `output_0`, … what comes out: in onnxruntime, where it runs the model, else what the test says. Of each node test there
are two, one with all inputs and one with all but one as constants. Prints how many there are.
"""

from __future__ import annotations

import itertools
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from onnx.backend.test.case.node import collect_testcases

Arrays = dict[str, np.ndarray]
#: What onnxruntime's kernels compute with, of the element types.
KINDS = "fiub"


def plain(array: object) -> bool:
    """Whether it is a tensor of a type that the engine is fed with."""
    return isinstance(array, (np.ndarray, np.generic)) and np.asarray(array).dtype.kind in KINDS


def expected(model: onnx.ModelProto, feeds: Arrays) -> list[Any] | None:
    """What onnxruntime computes; nothing where it does not."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    # What is computed is asked for, not what optimizations make of it.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return session.run(None, feeds)
    except Exception:
        return None


class Writer:
    """Writes cases into a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 0

    def write(self, name: str, model: onnx.ModelProto, feeds: Arrays, otherwise: list[Any] | None) -> bool:
        """Writes a model with its values; false where there are none."""
        results = expected(model, feeds)
        results = otherwise if results is None else results
        if results is None or not all(plain(result) for result in results):
            return False
        named = {f"input_{i}": array for i, array in enumerate(feeds.values())}
        named |= {f"output_{i}": np.asarray(array) for i, array in enumerate(results)}
        tensors = [numpy_helper.from_array(np.ascontiguousarray(a).reshape(a.shape), k) for k, a in named.items()]
        values = helper.make_model(helper.make_graph([], "values", [], [], tensors))
        (self.folder / f"{name}.onnx").write_bytes(model.SerializeToString())
        (self.folder / f"{name}.values").write_bytes(values.SerializeToString())
        self.count += 1
        return True


def with_constants(model: onnx.ModelProto, feeds: Arrays) -> tuple[onnx.ModelProto, Arrays]:
    """The model with all inputs constant but the first that holds floats, or the first."""
    names = list(feeds)
    kept = next((n for n in names if feeds[n].dtype.kind == "f" and feeds[n].size > 0), names[0])
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.graph.initializer.extend(numpy_helper.from_array(feeds[n], n) for n in names if n != kept)
    inputs = [value for value in model.graph.input if value.name == kept]
    del copy.graph.input[:]
    copy.graph.input.extend(inputs)
    return copy, {kept: feeds[kept]}


def node_tests(writer: Writer) -> None:
    """The node tests."""
    for case in collect_testcases(None):
        if case.model is None or not case.data_sets:
            continue
        arrays, outputs = case.data_sets[0]
        names = [value.name for value in case.model.graph.input]
        if not arrays or len(names) != len(arrays) or not all(plain(array) for array in arrays):
            continue
        feeds = {name: np.asarray(array) for name, array in zip(names, arrays, strict=True)}
        otherwise = list(outputs)
        try:
            writer.write(case.name, case.model, feeds, otherwise)
            if len(feeds) > 1:
                writer.write(f"{case.name}.constants", *with_constants(case.model, feeds), otherwise)
        except (TypeError, ValueError):
            continue  # An element type that numpy has no name for.


RANDOM = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray:
    """Random numbers."""
    return RANDOM.normal(size=shape).astype(np.float32)


Node = tuple[str, list[str], list[str], dict[str, Any]]


def layer(writer: Writer, name: str, node: Node, x: np.ndarray, constants: Arrays, opset: int = 19) -> None:
    """A node with an input `x` and constants, as onnxruntime computes it; nothing where it does not."""
    op, inputs, outputs, attributes = node
    made = helper.make_node(op, inputs, outputs, **attributes)
    initializers = [numpy_helper.from_array(array, key) for key, array in constants.items()]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)
    written = [onnx.ValueInfoProto(name=output) for output in outputs if output]
    graph = helper.make_graph([made], "g", [given], written, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8 if opset < 19 else 10)
    writer.write(name, model, {"x": x}, None)


def recurrent(writer: Writer) -> None:
    """Recurrent layers: directions, lengths, states, functions, clips and gates."""
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}
    functions: dict[str, list[tuple[str, dict[str, Any]]]] = {
        "LSTM": [
            ("hard", {"activations": ["HardSigmoid", "Tanh", "Softsign"]}),
            ("relu", {"activations": ["HardSigmoid", "Relu", "Relu"], "activation_alpha": [0.3], "activation_beta": [0.4]}),
            ("leaky", {"activations": ["Sigmoid", "LeakyRelu", "Tanh"], "activation_alpha": [0.3]}),
            ("coupled", {"input_forget": 1}),
        ],
        "GRU": [
            ("hard", {"activations": ["HardSigmoid", "Relu"]}),
            ("scaled", {"activations": ["HardSigmoid", "Relu"], "activation_alpha": [0.3], "activation_beta": [0.4]}),
            ("linear", {"linear_before_reset": 1}),
            ("linear_clip", {"linear_before_reset": 1, "clip": 0.5}),
        ],
        "RNN": [
            ("relu", {"activations": ["Relu"]}),
            ("leaky", {"activations": ["LeakyRelu"], "activation_alpha": [0.3]}),
            ("affine", {"activations": ["Affine"], "activation_alpha": [0.3], "activation_beta": [0.1]}),
            ("tanh", {"activations": ["ScaledTanh"], "activation_alpha": [0.3], "activation_beta": [0.7]}),
            ("elu", {"activations": ["Elu"], "activation_alpha": [0.3]}),
            ("softplus", {"activations": ["Softplus"]}),
        ],
    }
    hidden, batch, width, time = 5, 2, 4, 6
    for op, direction in itertools.product(gates, ("forward", "reverse", "bidirectional")):
        ways = 2 if direction == "bidirectional" else 1
        constants = {
            "w": floats(ways, gates[op] * hidden, width),
            "r": floats(ways, gates[op] * hidden, hidden) * np.float32(0.5),
            "b": floats(ways, 2 * gates[op] * hidden),
            "n": np.array([4, 6], np.int32),
            "h": floats(ways, batch, hidden),
            "c": floats(ways, batch, hidden),
            "p": floats(ways, 3 * hidden),
        }
        state = ["h", "c"] if op == "LSTM" else ["h"]
        variants: list[tuple[str, list[str], dict[str, Any]]] = [
            ("plain", ["b"], {}),
            ("bare", [], {}),
            ("lengths", ["b", "n"], {}),
            ("state", ["b", "", *state], {}),
            ("clip", ["b"], {"clip": 0.5}),
            ("all", ["b", "n", *state], {"clip": 1.0}),
        ]
        if op == "LSTM":
            variants.append(("peepholes", ["b", "", "h", "c", "p"], {}))
            variants.append(("peepholes_clip", ["b", "", "h", "c", "p"], {"clip": 0.7}))
        for name, attributes in functions[op]:
            repeated = {k: v * ways if isinstance(v, list) else v for k, v in attributes.items()}
            variants.append((name, ["b"], repeated))
            variants.append((f"{name}_lengths", ["b", "n"], repeated))
        outputs = ["y", "yh", "yc"] if op == "LSTM" else ["y", "yh"]
        for name, extra, attributes in variants:
            inputs = ["x", "w", "r", *extra]
            used = {key: constants[key] for key in inputs[1:] if key}
            attributes = {"hidden_size": hidden, "direction": direction, **attributes}
            node = (op, inputs, outputs, attributes)
            layer(writer, f"{op}_{direction}_{name}", node, floats(time, batch, width), used)


def resizes(writer: Writer) -> None:
    """Resizes by scales and sizes, of crops, and of old operator sets."""
    x = floats(1, 2, 7, 6)
    modes = ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric"]
    roundings = ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]
    targets: list[tuple[str, Arrays]] = [
        ("up", {"s": np.array([1, 1, 2, 2], np.float32)}),
        ("fraction", {"s": np.array([1, 1, 1.7, 2.3], np.float32)}),
        ("down", {"s": np.array([1, 1, 0.6, 0.45], np.float32)}),
        ("sizes", {"n": np.array([1, 2, 5, 11])}),
    ]
    for mode, (target, constants) in itertools.product(modes, targets):
        inputs = ["x", "", "", "n"] if "n" in constants else ["x", "", "s"]
        for kind in ("linear", "cubic", *roundings):
            attributes: dict[str, Any] = {"coordinate_transformation_mode": mode}
            attributes |= {"mode": "nearest", "nearest_mode": kind} if kind in roundings else {"mode": kind}
            layer(writer, f"resize_{mode}_{kind}_{target}", ("Resize", inputs, ["y"], attributes), x, constants)
    region = np.array([0, 0, 0.2, -0.1, 1, 1, 0.8, 1.2], np.float32)
    for kind, (target, constants) in itertools.product(("linear", "cubic", "nearest"), targets):
        inputs = ["x", "roi", "", "n"] if "n" in constants else ["x", "roi", "s"]
        attributes = {"coordinate_transformation_mode": "tf_crop_and_resize", "mode": kind, "extrapolation_value": -3.0}
        layer(writer, f"crop_{kind}_{target}", ("Resize", inputs, ["y"], attributes), x, {"roi": region, **constants})
    for kind, (target, constants) in itertools.product(("linear", "nearest"), targets[:3]):
        layer(writer, f"resize10_{kind}_{target}", ("Resize", ["x", "s"], ["y"], {"mode": kind}), x, constants, 10)
        if target != "down":
            layer(writer, f"upsample9_{kind}_{target}", ("Upsample", ["x", "s"], ["y"], {"mode": kind}), x, constants, 9)
            scales = {"mode": kind, "scales": constants["s"].tolist()}
            layer(writer, f"upsample7_{kind}_{target}", ("Upsample", ["x"], ["y"], scales), x, {}, 7)


def pools(writer: Writer) -> None:
    """Pools with pads, ceilings and dilations."""
    x = floats(1, 3, 12, 11)
    shapes: list[dict[str, Any]] = [
        {"strides": [2, 2], "ceil_mode": 1},
        {"strides": [2, 2], "ceil_mode": 1, "pads": [1, 1, 1, 1]},
        {"strides": [3, 2], "ceil_mode": 1, "pads": [1, 0, 0, 1]},
        {"strides": [2, 2], "auto_pad": "SAME_UPPER"},
        {"strides": [2, 2], "auto_pad": "SAME_LOWER"},
        {"auto_pad": "VALID", "strides": [2, 2]},
        {"strides": [4, 4]},
        {"dilations": [2, 2]},
        {"dilations": [2, 1], "ceil_mode": 1, "strides": [2, 2], "pads": [1, 1, 1, 1]},
        {"dilations": [2, 2], "auto_pad": "SAME_UPPER"},
        {"dilations": [2, 3], "auto_pad": "SAME_LOWER", "strides": [2, 1]},
    ]
    for op, extra in (("MaxPool", {}), ("AveragePool", {}), ("AveragePool", {"count_include_pad": 1})):
        for i, (shape, kernel) in enumerate(itertools.product(shapes, ([3, 3], [2, 3]))):
            attributes = {"kernel_shape": kernel, **shape, **extra}
            layer(writer, f"{op}{len(extra)}_{i}", (op, ["x"], ["y"], attributes), x, {})
    for p in (1, 2, 3):
        layer(writer, f"GlobalLpPool_{p}", ("GlobalLpPool", ["x"], ["y"], {"p": p}), x, {})


def deconvolutions(writer: Writer) -> None:
    """Transposed convolutions: pads, output shapes, groups."""
    x, bias = floats(1, 4, 9, 8), floats(6)
    shapes: list[dict[str, Any]] = [
        {"strides": [2, 2], "output_padding": [1, 1], "pads": [1, 1, 1, 1]},
        {"strides": [2, 3], "pads": [0, 1, 2, 0]},
        {"strides": [2, 2], "auto_pad": "SAME_UPPER"},
        {"strides": [2, 2], "auto_pad": "SAME_LOWER"},
        {"strides": [3, 2], "auto_pad": "SAME_LOWER"},
        {"strides": [4, 5], "auto_pad": "SAME_UPPER"},
        {"strides": [2, 2], "auto_pad": "SAME_UPPER", "output_padding": [1, 1]},
        {"strides": [2, 2], "output_shape": [20, 17]},
        {"strides": [2, 2], "output_shape": [17, 15]},
        {"strides": [2, 2], "output_shape": [16, 14]},
        {"strides": [2, 2], "output_shape": [18, 16], "auto_pad": "SAME_UPPER"},
        {"strides": [2, 2], "output_shape": [17, 16], "auto_pad": "SAME_LOWER"},
        {"strides": [2, 2], "dilations": [2, 2], "auto_pad": "SAME_UPPER"},
        {"strides": [2, 1], "dilations": [1, 2], "output_padding": [1, 0]},
    ]
    for i, attributes in enumerate(shapes):
        node = ("ConvTranspose", ["x", "w", "b"], ["y"], attributes)
        layer(writer, f"ConvTranspose_{i}", node, x, {"w": floats(4, 6, 3, 3), "b": bias})
        for group, columns in ((2, 3), (4, 1)):
            node = ("ConvTranspose", ["x", "w"], ["y"], {"group": group, **attributes})
            layer(writer, f"ConvTranspose_{i}_{group}", node, x, {"w": floats(4, columns, 3, 3)})


def samples(writer: Writer) -> None:
    """Samples at places of a grid, in and out of the image."""
    grid = RANDOM.uniform(-1.6, 1.6, size=(1, 5, 4, 2)).astype(np.float32)
    paddings, corners = ("zeros", "border", "reflection"), (0, 1)
    for mode, padding, aligned in itertools.product(("linear", "nearest", "cubic"), paddings, corners):
        attributes = {"mode": mode, "padding_mode": padding, "align_corners": aligned}
        node = ("GridSample", ["x", "grid"], ["y"], attributes)
        layer(writer, f"GridSample_{mode}_{padding}_{aligned}", node, floats(1, 3, 7, 6), {"grid": grid}, 20)


def others(writer: Writer) -> None:
    """Pads that cut, indices that are negative or out of range, functions with numbers of their own."""
    x = floats(1, 3, 6, 5)
    pads = {"cut": [0, 0, -1, 1, 0, 0, 1, -2], "add": [0, 1, 2, 1, 0, 0, 1, 3], "both": [0, 0, -1, -1, 0, 0, 3, 2]}
    for mode, (name, pad) in itertools.product(("constant", "reflect", "edge", "wrap"), pads.items()):
        if mode == "reflect" and name == "add":
            pad = [0, 0, 2, 1, 0, 0, 1, 3]
        layer(writer, f"Pad_{mode}_{name}", ("Pad", ["x", "p"], ["y"], {"mode": mode}), x, {"p": np.array(pad)})
    masked = np.where(floats(1, 4, 5) < 0, -np.inf, floats(1, 4, 5)).astype(np.float32)
    masked[0, 1] = -np.inf
    for op, axes in itertools.product(("ReduceMax", "ReduceMin"), ([-1], [1], [0, 1, 2])):
        node = (op, ["x", "a"], ["y"], {"keepdims": len(axes) - 1})
        layer(writer, f"{op}_{axes}".replace(" ", ""), node, masked, {"a": np.array(axes)})
    for axes in ([-1], [1], [0, 1, 2]):
        node = ("ReduceLogSumExp", ["x", "a"], ["y"], {})
        layer(writer, f"ReduceLogSumExp_{axes}".replace(" ", ""), node, floats(1, 4, 5) * 90, {"a": np.array(axes)})
    tables = {"...j,jk->...k": (5, 2), "bij...,jk->bi...k": (6, 2), "...ij,...jk->...ik": (1, 5, 2), "jk,...k->...j": None}
    for i, (equation, shape) in enumerate(tables.items()):
        inputs = ["w", "x"] if shape is None else ["x", "w"]
        table = {"w": floats(*(shape or (3, 5)))}
        layer(writer, f"Einsum_{i}", ("Einsum", inputs, ["y"], {"equation": equation}), floats(2, 3, 6, 5), table)
    for alpha in (0.5, 2.0):
        layer(writer, f"Celu_{alpha}", ("Celu", ["x"], ["y"], {"alpha": alpha}), x, {})
    indices = {"i": np.array([[0, 1], [0, -1]])}
    layer(writer, "GatherND_negative", ("GatherND", ["x", "i"], ["y"], {}), x, indices)
    updates = {**indices, "u": floats(2, 6, 5)}
    layer(writer, "ScatterND_negative", ("ScatterND", ["x", "i", "u"], ["y"], {}), x, updates)
    node = ("ReverseSequence", ["x", "n"], ["y"], {"batch_axis": 1, "time_axis": 2})
    layer(writer, "ReverseSequence", node, x, {"n": np.array([4, 6, 1])})
    hold = {"c": np.array([True, False, True, True, False, True])}
    layer(writer, "Compress", ("Compress", ["x", "c"], ["y"], {"axis": 2}), x, hold)


def integers(writer: Writer) -> None:
    """Operators on what is cast to other types from floats."""
    x = np.round(floats(1, 6, 5) * 7).astype(np.float32)
    made = helper.make_node

    def case(name: str, nodes: list[onnx.NodeProto], constants: Arrays, element: int) -> None:
        first = made("Cast", ["x"], ["i"], to=element)
        last = made("Cast", ["r"], ["y"], to=TensorProto.FLOAT)
        initializers = [numpy_helper.from_array(array, key) for key, array in constants.items()]
        given = helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)
        graph = helper.make_graph([first, *nodes, last], "g", [given], [onnx.ValueInfoProto(name="y")], initializers)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        writer.write(name, model, {"x": x}, None)

    for name, element, kind in (("int64", TensorProto.INT64, np.int64), ("int32", TensorProto.INT32, np.int32)):
        three = {"c": np.array(3, kind)}
        for op in ("Div", "Mod", "Mul", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Max", "Min"):
            for sign in (1, -1):
                case(f"{op}_{name}_{sign}", [made(op, ["i", "c"], ["r"])], {"c": np.array(3 * sign, kind)}, element)
        case(f"Fmod_{name}", [made("Mod", ["i", "c"], ["r"], fmod=1)], three, element)
        for op in ("Sign", "Abs", "Neg", "BitwiseNot"):
            case(f"{op}_{name}", [made(op, ["i"], ["r"])], {}, element)
        depth = {"d": np.array(4), "v": np.array([0.0, 1.0], np.float32)}
        case(f"OneHot_{name}", [made("OneHot", ["i", "d", "v"], ["r"], axis=1)], depth, element)
        less = made("Less", ["i", "c"], ["l"])
        booleans: list[tuple[str, list[onnx.NodeProto], Arrays]] = [
            ("Equal", [made("Equal", ["l", "t"], ["r"])], {"t": np.array(True)}),
            ("Pad", [made("Pad", ["l", "p"], ["r"])], {"p": np.array([0, 0, 1, 0, 1, 2])}),
            ("ReduceMax", [made("ReduceMax", ["l", "a"], ["r"])], {"a": np.array([1])}),
            ("ReduceMin", [made("ReduceMin", ["l", "a"], ["r"])], {"a": np.array([1])}),
            ("Where", [made("Not", ["l"], ["m"]), made("Where", ["m", "i", "c"], ["r"])], {}),
        ]
        for op, nodes, constants in booleans:
            case(f"{op}_booleans_{name}", [less, *nodes], {**three, **constants}, element)


#: Networks whose shapes depend on the values of `x`, by name: inputs beside it, constants, nodes.
OPEN_SHAPES: dict[str, tuple[str, str]] = {
    "boxes": (
        "int64 k = {5}, float iou = {0.4}, float least = {0.2}, int64[1] two = {2}, int64[1] zero = {0}, int64[1] one = {1},"
        "int64[1] last = {-1}, int64 three = {3}",
        """
        corners, sizes, scores, rest = Split <axis = 2, num_outputs = 4> (x)
        extent = Abs (sizes)
        ends = Add (corners, extent)
        all = Concat <axis = 2> (corners, ends)
        sure = Sigmoid (scores)
        best = ReduceMax <keepdims = 0> (sure, last)
        wide = Unsqueeze (best, one)
        found = NonMaxSuppression (all, wide, k, iou, least)
        place = Gather <axis = 1> (found, two)
        which = Squeeze (place, last)
        image = Squeeze (all, zero)
        boxes = Gather <axis = 0> (image, which)
        count = Shape (which)
        owner = ConstantOfShape <value = int64[1] {0}> (count)
        planes = Unsqueeze (all, zero)
        regions = RoiAlign <output_height = 3, output_width = 2, spatial_scale = 2.0> (planes, boxes, owner)
        rows = Flatten (regions)
        sums = ReduceSum <keepdims = 0> (rows, last)
        number = Size (sums)
        limit = Min (number, three)
        limits = Reshape (limit, last)
        top, index = TopK (sums, limits)
        order = Gather <axis = 0> (boxes, index)
        y = Concat <axis = 1> (order, order)
        """,
    ),
    "speech": (
        "int64 zero = {0}, int64 one = {1}, int64[1] last = {-1}, int64[1] first = {0}, float[1,1,3] w = {0.5, 1.0, -0.5},"
        "int64[3] list = {1, 1, -1}",
        """
        size = Abs (x)
        rounded = Ceil (size)
        flat_count = Reshape (rounded, last)
        counts = Cast <to = 7> (flat_count)
        ends = CumSum (counts, zero)
        total = ReduceMax <keepdims = 0> (ends, first)
        places = Range (zero, total, one)
        column = Unsqueeze (places, last)
        before = GreaterOrEqual (column, ends)
        number = Cast <to = 7> (before)
        owner = ReduceSum <keepdims = 0> (number, last)
        values = Reshape (x, last)
        said = Gather (values, owner)
        wave = Reshape (said, list)
        filtered = Conv <pads = [1, 1]> (wave, w)
        y = Tanh (filtered)
        """,
    ),
    "branch": (
        "float zero = {0}, int64[1] first = {0}, int64[1] last = {-1}",
        """
        sum = ReduceSum <keepdims = 0> (x)
        c = Greater (sum, zero)
        t = If (c) <
            then_branch = a () => (float[n] p) {
                flat = Reshape (x, last)
                positive = Greater (flat, zero)
                place = NonZero (positive)
                where = Squeeze (place, first)
                p = Gather (flat, where)
            },
            else_branch = b () => (float[m] q) { low = Neg (x)  q = Reshape (low, last) }
        >
        y = Mul (t, t)
        """,
    ),
    "loop": (
        "bool yes = {1}, int64 three = {3}, int64 one = {1}, int64[1] zero = {0}, int64[1] last = {-1}, float most = {40}",
        """
        flat = Reshape (x, last)
        end, rows = Loop (three, yes, flat) <
            body = l (int64 i, bool go, float[n] v) => (bool on, float[n] next, float sum) {
                more = Add (i, one)
                stop = Reshape (more, last)
                part = Slice (v, zero, stop)
                sum = ReduceSum <keepdims = 0> (part)
                next = Add (v, flat)
                size = Abs (sum)
                on = Less (size, most)
            }
        >
        all = Concat <axis = 0> (end, rows)
        y = Neg (all)
        """,
    ),
}


def open_shapes(writer: Writer) -> None:
    """Networks whose shapes depend on values."""
    for name, (constants, nodes) in OPEN_SHAPES.items():
        shape = (1, 12, 8) if name == "boxes" else (1, 1, 6)
        dims = ",".join(map(str, shape))
        text = f"""<ir_version: 10, opset_import: ["": 20]>
            g (float[{dims}] x) => (float[n] y) <{constants}> {{ {nodes} }}"""
        model = onnx.parser.parse_model(text)
        model.graph.output[0].type.tensor_type.ClearField("shape")
        for seed in range(3):
            x = np.random.default_rng(seed).normal(size=shape).astype(np.float32) * 2
            if not writer.write(f"open_{name}_{seed}", model, {"x": x}, None):
                raise SystemExit(f"error: onnxruntime does not run `{name}`")


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True)
    writer = Writer(folder)
    node_tests(writer)
    counts = {"node_tests": writer.count}
    for write in (recurrent, resizes, pools, deconvolutions, samples, others, integers, open_shapes):
        write(writer)
    counts["layers"] = writer.count - counts["node_tests"]
    print(json.dumps(counts))


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    ort.set_default_logger_severity(4)
    main()
