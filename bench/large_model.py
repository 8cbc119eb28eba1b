"""Writes a model of matrix products whose weights are in another file, quantizes it, and prints time and peak memory.

    python bench/large_model.py --msq target/release/msq-onnx --out FOLDER [--gigabytes 3] [-- FLAGS...]

FLAGS go to msq-onnx, `--memory 2GB` unless given. FOLDER takes the model and the result.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

SIDE = 4096


def write_model(path: Path, gigabytes: float) -> int:
    """A chain of products and clamps; returns the bytes of its weights."""
    count = max(1, int(gigabytes * 1e9 / 4 / SIDE / SIDE))
    block = np.random.default_rng(0).normal(0, 0.02, (SIDE, SIDE)).astype(np.float32)
    nodes, weights, value = [], [], "x"
    with path.with_suffix(".bin").open("wb") as data:
        for index in range(count):
            weight = TensorProto(name=f"w{index}", data_type=TensorProto.FLOAT, dims=[SIDE, SIDE])
            weight.data_location = TensorProto.EXTERNAL
            entries = {"location": path.with_suffix(".bin").name, "offset": data.tell(), "length": block.nbytes}
            for key, entry in entries.items():
                weight.external_data.add(key=key, value=str(entry))
            data.write(np.roll(block, 977 * index).tobytes())
            weights.append(weight)
            nodes.append(helper.make_node("MatMul", [value, weight.name], [f"t{index}"], name=f"layer{index}"))
            value = "y" if index + 1 == count else f"r{index}"
            nodes.append(helper.make_node("Relu", [f"t{index}"], [value]))
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", SIDE]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "large", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return count * block.nbytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--msq", required=True, type=Path)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--gigabytes", type=float, default=3.0)
    parser.add_argument("flags", nargs="*", default=["--memory", "2GB"])
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    model, output = arguments.out / "large.onnx", arguments.out / "quantized.onnx"
    size = write_model(model, arguments.gigabytes)
    start = time.monotonic()
    process = subprocess.Popen([arguments.msq, model, "-o", output, *arguments.flags])
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - start
    # Linux counts in KiB.
    print(f"exit {os.waitstatus_to_exitcode(status)}, {size / 1e9:.2f} GB to {output.stat().st_size / 1e9:.2f} GB")
    print(f"{seconds:.0f} s, peak {usage.ru_maxrss * 1024 / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
