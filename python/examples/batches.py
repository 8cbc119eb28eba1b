"""Calibration on batches as a data loader or a `datasets` pipeline gives them, then an evaluation.

    python batches.py MODEL TRAIN TEST

Batches are mappings from names to arrays or tensors in main memory, labels among them. Here they come from two `.npz`
with the arrays `image` and `label`.
"""

import sys
from collections.abc import Iterator

import numpy as np

import msq_onnx


def batches(path: str, size: int = 32) -> Iterator[dict[str, np.ndarray]]:
    """Stands for a data loader."""
    with np.load(path) as file:
        arrays = dict(file)
    for start in range(0, len(arrays["label"]), size):
        yield {"image": arrays["image"][start : start + size], "labels": arrays["label"][start : start + size]}


def top_1(outputs: dict[str, np.ndarray], labels: dict[str, np.ndarray]) -> float:
    """Any function of outputs and labels can be the metric."""
    return float(np.mean(outputs["logits"].argmax(axis=1) == labels["y"]))


model, train, test = sys.argv[1:]
for bits in (8, 4, 3):
    small = msq_onnx.quantize(model, batches(train), weight_bits=bits)
    assert small.model_bytes is not None
    measured = msq_onnx.evaluate(small.model_bytes, batches(test), reference=model, metric=top_1)
    print(f"{bits} bits: {small.bytes} bytes, top-1 {measured.metric:.2%}, of float {measured.reference_metric:.2%}")
