"""Writes the node tests of the PyPI package `onnx` as models, for the Rust integration tests.

    node_tests.py FOLDER

FOLDER/plain/NAME.onnx is each test's model. FOLDER/constant/NAME.onnx is the same with all inputs but the first made
constant, so that weights are weights; FOLDER/constant/NAME.npz holds the first input. Prints how many there are.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test.case.node import collect_testcases


def constant(model: onnx.ModelProto, inputs: list[object]) -> onnx.ModelProto | None:
    """The model with all inputs but the first as initializers; nothing where they are no tensors."""
    names = [value.name for value in model.graph.input]
    if len(inputs) < 2 or len(names) != len(inputs) or not all(isinstance(array, np.ndarray) for array in inputs):
        return None
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in zip(names[1:], inputs[1:], strict=True))
    del copy.graph.input[1:]
    return copy


def main() -> None:
    folder = Path(sys.argv[1])
    for kind in ("plain", "constant"):
        (folder / kind).mkdir(parents=True)
    count = {"plain": 0, "constant": 0}
    for case in collect_testcases(None):
        if case.model is None:
            continue
        onnx.save(case.model, folder / "plain" / f"{case.name}.onnx")
        count["plain"] += 1
        inputs = list(case.data_sets[0][0]) if case.data_sets else []
        try:
            fixed = constant(case.model, inputs)
        except (TypeError, ValueError):
            continue  # An element type that numpy has no name for.
        if fixed is not None:
            onnx.save(fixed, folder / "constant" / f"{case.name}.onnx")
            np.savez(folder / "constant" / f"{case.name}.npz", **{case.model.graph.input[0].name: inputs[0]})
            count["constant"] += 1
    print(json.dumps(count))


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    main()
