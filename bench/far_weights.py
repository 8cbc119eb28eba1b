"""What weights of products of one row take in onnxruntime, by how many a network has: prices of weights that are far.

    python far_weights.py [--columns 128 512] [--millions 0.06 0.25 0.5 1 4] [--seconds 1]

A chain of products of one row with a square weight each, in float and between quantizers, is timed with one thread, in turns;
printed are the least nanoseconds per weight of both. Weights of few bytes stay in the caches next to the processor from one run
to the next; more come from further away, and floats take four times as many bytes.
"""

import argparse
import time

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

SCALE, STEP = np.float32(0.02), np.float32(0.01)


def chain(columns, layers, integers):
    """The model: products with a negation behind each, which keeps a runtime from joining them."""
    random = np.random.default_rng(0)
    constants = [
        numpy_helper.from_array(value, name)
        for name, value in [("s", SCALE), ("z", np.uint8(128)), ("ws", STEP), ("wz", np.int8(0))]
    ]
    nodes, read = [], "x"
    for at in range(layers):
        weight = (random.standard_normal((columns, columns)) / np.sqrt(columns)).astype(np.float32)
        if integers:
            quantized = np.clip(np.round(weight / STEP), -127, 127).astype(np.int8)
            constants.append(numpy_helper.from_array(quantized, f"w{at}"))
            nodes += [
                helper.make_node("QuantizeLinear", [read, "s", "z"], [f"q{at}"]),
                helper.make_node("DequantizeLinear", [f"q{at}", "s", "z"], [f"d{at}"]),
                helper.make_node("DequantizeLinear", [f"w{at}", "ws", "wz"], [f"v{at}"]),
                helper.make_node("MatMul", [f"d{at}", f"v{at}"], [f"m{at}"]),
            ]
        else:
            constants.append(numpy_helper.from_array(weight, f"w{at}"))
            nodes.append(helper.make_node("MatMul", [read, f"w{at}"], [f"m{at}"]))
        nodes.append(helper.make_node("Neg", [f"m{at}"], [f"n{at}"]))
        read = f"n{at}"
    value = helper.make_tensor_value_info
    ends = [value("x", TensorProto.FLOAT, [1, columns])], [value(read, TensorProto.FLOAT, None)]
    graph = helper.make_graph(nodes, "chain", *ends, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def session(model):
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def least(sessions, feed, seconds):
    """The least seconds of each, run in turns."""
    best = [float("inf")] * len(sessions)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for at, one in enumerate(sessions):
            start = time.perf_counter()
            one.run(None, feed)
            best[at] = min(best[at], time.perf_counter() - start)
    return best


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--columns", type=int, nargs="+", default=[128, 192, 512, 1024])
    parser.add_argument("--millions", type=float, nargs="+", default=[0.06, 0.25, 0.5, 1, 2, 4, 8, 16])
    parser.add_argument("--seconds", type=float, default=1.0)
    settings = parser.parse_args()
    print("| columns | million weights | float ns | integers ns | integers over float |\n|---|---|---|---|---|")
    for columns in settings.columns:
        for millions in settings.millions:
            layers = round(millions * 1e6 / columns**2)
            if not 1 <= layers <= 1200:
                continue
            sessions = [session(chain(columns, layers, integers)) for integers in (False, True)]
            feed = {"x": np.random.default_rng(1).standard_normal((1, columns)).astype(np.float32)}
            times = least(sessions, feed, settings.seconds)
            each = [1e9 * seconds / (layers * columns**2) for seconds in times]
            ratio = times[1] / times[0]
            print(f"| {columns} | {millions} | {each[0]:.3f} | {each[1]:.3f} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
