"""What decides on small images in onnxruntime, beside products: weights that are read for few positions, and layouts.

    python small_images.py [--seconds 0.5] [--parts convolutions shuffles resizes]

On one thread, in turns; nanoseconds of processor time, lower quartiles, of many nodes less those of few. `convolutions`: chains
of convolutions over images of 1 to 8 positions a side, in float and on integers with channels last. Convolutions in float leave
out the kernel positions that lie outside of the image, those on integers do not, and weights are read once whatever
the number of positions. `shuffles`: a channel shuffle of integers whose channels lie together, as onnxruntime transposes them when
it joins the change of the layout, and of integers that lie channel by channel. `resizes`: a linear `Resize`
behind a convolution in float, whose layout it takes, and one that reads floats that lie channel by channel.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import onnxruntime as ort
from onnx import NodeProto, TensorProto, helper, numpy_helper

QUARTILE = 25
FEW, MANY = 2, 18
TYPES = {np.dtype("float32"): TensorProto.FLOAT, np.dtype("uint8"): TensorProto.UINT8}
Timed = tuple[ort.InferenceSession, np.ndarray]


def session(nodes: list[NodeProto], x: np.ndarray, tensors: dict[str, np.ndarray]) -> Timed:
    """The graph from `x` to `y`, and what it reads."""
    element = TYPES[x.dtype]
    ends = [helper.make_tensor_value_info(name, element, x.shape if name == "x" else None) for name in "xy"]
    constants = [numpy_helper.from_array(np.asarray(array), name) for name, array in tensors.items()]
    graph = helper.make_graph(nodes, "nodes", ends[:1], ends[1:], constants)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"]), x


def nanoseconds(timed: list[Timed], seconds: float) -> np.ndarray:
    """What a run of each takes."""
    spent: list[list[float]] = [[] for _ in timed]
    for one, x in timed:
        one.run(None, {"x": x})
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for at, (one, x) in enumerate(timed):
            start = time.process_time_ns()
            for _ in range(5):
                one.run(None, {"x": x})
            spent[at].append((time.process_time_ns() - start) / 5)
    return np.percentile(np.array(spent), QUARTILE, axis=1)


def chain(channels: int, kernel: int, size: int, count: int, *, integers: bool) -> Timed:
    """So many convolutions with weights of their own."""
    random = np.random.default_rng(0)
    attributes = {"kernel_shape": [kernel] * 2, "pads": [kernel // 2] * 4}
    shape = (channels, channels, kernel, kernel)
    tensors: dict[str, np.ndarray] = {}
    nodes, read = [], "x"
    if integers:
        tensors |= {"s": np.float32(0.02), "z": np.uint8(0), "wz": np.zeros(channels, np.int8)}
    for at in range(count):
        written = "y" if at == count - 1 else f"v{at}"
        if integers:
            tensors[f"w{at}"] = random.integers(-60, 60, shape).astype(np.int8)
            tensors[f"s{at}"] = np.full(channels, 0.01 / np.sqrt(channels * kernel**2), np.float32)
            tensors[f"b{at}"] = np.zeros(channels, np.int32)
            inputs = [read, "s", "z", f"w{at}", f"s{at}", "wz", "s", "z", f"b{at}"]
            nodes.append(helper.make_node("QLinearConv", inputs, [written], domain="com.microsoft", channels_last=1, **attributes))
        else:
            tensors[f"w{at}"] = (random.standard_normal(shape) / np.sqrt(channels * kernel**2)).astype(np.float32)
            tensors[f"b{at}"] = np.zeros(channels, np.float32)
            nodes.append(helper.make_node("Conv", [read, f"w{at}", f"b{at}"], [f"c{at}"], **attributes))
            nodes.append(helper.make_node("Relu", [f"c{at}"], [written]))
        read = written
    if integers:
        return session(nodes, random.integers(0, 255, (1, size, size, channels)).astype(np.uint8), tensors)
    return session(nodes, random.standard_normal((1, channels, size, size)).astype(np.float32), tensors)


def convolutions(seconds: float) -> None:
    """Prints a table of convolutions."""
    print("| channels | kernel | image | float ns | integers ns | integers over float |\n|---|---|---|---|---|---|")
    for channels in (16, 32, 64, 128, 256):
        for kernel in (1, 3):
            for size in (1, 2, 4, 8):
                timed = [chain(channels, kernel, size, count, integers=i) for i in (False, True) for count in (FEW, MANY)]
                few, many, q_few, q_many = nanoseconds(timed, seconds)
                each, q = (many - few) / (MANY - FEW), (q_many - q_few) / (MANY - FEW)
                print(f"| {channels} | {kernel}×{kernel} | {size}×{size} | {each:.0f} | {q:.0f} | {q / each:.2f} |", flush=True)


def shuffles(seconds: float) -> None:
    """Prints nanoseconds per element of a channel shuffle."""
    random = np.random.default_rng(0)
    for channels, size in ((32, 28), (48, 28), (64, 14), (116, 28), (232, 14), (24, 56)):
        half, forms = channels // 2, []
        for shape, perm in (([1, size, size, 2, half], [0, 4, 3, 1, 2]), ([1, 2, half, size, size], [0, 2, 1, 3, 4])):
            x = random.integers(0, 255, shape).astype(np.uint8)
            forms.append(session([helper.make_node("Transpose", ["x"], ["y"], perm=perm)], x, {}))
        forms.append(session([helper.make_node("Identity", ["x"], ["y"])], forms[0][1], {}))
        together, apart, copied = nanoseconds(forms, seconds) / (channels * size**2)
        print(f"{channels} channels of {size}×{size}: {together - copied:.2f} ns per element together, {apart - copied:.2f} channel by channel", flush=True)


def resizes(seconds: float) -> None:
    """Prints nanoseconds per element that a linear `Resize` writes."""
    random = np.random.default_rng(0)
    for channels, size, scale in ((16, 4, 8), (32, 8, 4), (32, 16, 2), (64, 8, 2), (64, 16, 4), (16, 16, 8)):
        x = random.standard_normal((1, channels, size, size)).astype(np.float32)
        tensors = {"w": np.ones((channels, channels, 1, 1), np.float32), "k": np.array([1, 1, scale, scale], np.float32)}
        convolution = helper.make_node("Conv", ["x", "w"], ["c"])
        resize = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
        alone = [helper.make_node("Resize", ["x", "", "k"], ["y"], **resize)]
        behind = [convolution, helper.make_node("Resize", ["c", "", "k"], ["y"], **resize)]
        only = [helper.make_node("Conv", ["x", "w"], ["y"])]
        of_conv = {"w": tensors["w"]}
        planar, both, conv = nanoseconds([session(alone, x, {"k": tensors["k"]}), session(behind, x, tensors), session(only, x, of_conv)], seconds)
        written = channels * (size * scale) ** 2
        print(
            f"{channels} channels, {size}×{size} times {scale}: {(both - conv) / written:.2f} ns per element behind a convolution, {planar / written:.2f} alone",
            flush=True,
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=0.5, help="of each measurement; 0.5")
    parser.add_argument("--parts", nargs="+", default=["convolutions", "shuffles", "resizes"], help="what to measure; all")
    args = parser.parse_args()
    print(f"onnxruntime {ort.__version__}")
    for part in (convolutions, shuffles, resizes):
        if part.__name__ in args.parts:
            part(args.seconds)


if __name__ == "__main__":
    main()
