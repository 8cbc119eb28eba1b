"""What tables of a trellis code learned on a network's own weights would gain over the one learned on Gaussian columns.

    python learned_tables.py MODEL [--bits 2] [--rounds 3]

Rows of each weight are scaled to the same mean square, and columns of output channels encoded by
Viterbi's algorithm, errors weighed by the square of the row's size. The table is learned by k-means
rounds: each entry becomes the weighted mean of the weights that chose it. Prints the error of each
layer in decibels below its weights with the table of `passes/src/quantize/trellis/tables.rs`, by how
much it falls with one table learned on all layers and with a table of the layer's own, and how much
the latter must bring: its 256 bytes, spent on more bits for each weight instead, bring 6.02 dB a bit.
Needs numpy and onnx.
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
from trellis_tables import SIGMA, STATES, encode, steps  # noqa: E402

SHORTEST = 8
DECIBELS_PER_BIT = 20 * np.log10(2)


@dataclass(frozen=True)
class Layer:
    """Columns `[K, O]` with rows at unit mean square, and how much an error in each row counts, `[O]`."""

    name: str
    columns: np.ndarray
    importance: np.ndarray


def shipped(quarters: int) -> np.ndarray:
    """The table of a rate, in standard deviations."""
    text = (ROOT / "passes/src/quantize/trellis/tables.rs").read_text()
    found = dict(re.findall(r"\(\s*(\d+),\s*\[([^\]]*)\]", text[text.index("= [") :]))
    return np.array([int(q) for q in found[str(quarters)].split(",") if q.strip()], np.float32) / SIGMA


def layers(model: onnx.ModelProto) -> list[Layer]:
    """Weights of layers with enough output channels."""
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    found = []
    for node in model.graph.node:
        if node.op_type not in ("Conv", "Gemm", "MatMul") or len(node.input) < 2 or node.input[1] not in weights:
            continue
        weight = weights[node.input[1]]
        transposed = any(a.name == "transB" and a.i for a in node.attribute)
        if node.op_type == "MatMul" or (node.op_type == "Gemm" and not transposed):
            weight = weight.T
        rows = weight.reshape(len(weight), -1).astype(np.float32)
        size = np.sqrt(np.mean(rows**2, 1))
        if len(rows) >= SHORTEST and (size > 0).all():
            name = node.input[1]
            found.append(Layer(name, np.ascontiguousarray((rows / size[:, None]).T), size**2 / np.mean(size**2)))
    return found


def fit(layer: Layer, windows: np.ndarray, table: np.ndarray) -> tuple[np.ndarray, float]:
    """The scale of each row of least squares for the table, and the error relative to the weights."""
    entries = table[windows]
    scales = (entries * layer.columns).sum(0) / (entries**2).sum(0)
    errors = ((layer.columns - entries * scales) ** 2).sum(0) @ layer.importance
    return scales, float(errors / ((layer.columns**2).sum(0) @ layer.importance))


def solved(layer: Layer, quarters: int, table: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Windows, scales and error: columns are encoded, and scales fitted, twice in turns."""
    bits = steps(quarters, layer.columns.shape[1])
    scales = np.full(layer.columns.shape[1], 1 / np.sqrt(np.mean(table**2)), np.float32)
    for _ in range(2):
        importance = (layer.importance * scales**2).astype(np.float32)
        windows = encode((layer.columns / scales).astype(np.float32), bits, table, importance)
        scales, error = fit(layer, windows, table)
    return windows, scales, error


def learned(parts: list[Layer], quarters: int, table: np.ndarray, rounds: int) -> tuple[np.ndarray, list[float]]:
    """A table for some layers, whose errors count relative to their own, and the errors with it."""
    first = results = [solved(layer, quarters, table) for layer in parts]
    for _ in range(rounds):
        total, count = np.zeros(STATES), np.zeros(STATES)
        for layer, (windows, scales, _), (_, _, error) in zip(parts, results, first, strict=True):
            weight = np.broadcast_to(layer.importance * scales**2 / error, windows.shape).ravel()
            total += np.bincount(windows.ravel(), (layer.columns / scales).ravel() * weight, STATES)
            count += np.bincount(windows.ravel(), weight, STATES)
        entries = np.where(count > 0, total / np.maximum(count, 1e-30), table)
        table = (np.clip(np.round(entries * SIGMA), -127, 127) / SIGMA).astype(np.float32)
        results = [solved(layer, quarters, table) for layer in parts]
    return table, [error for _, _, error in results]


def main() -> None:
    """Prints a row for each layer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--bits", type=float, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    quarters = round(4 * args.bits)
    table = shipped(quarters)
    parts = layers(onnx.load(args.model))
    plain = [solved(layer, quarters, table)[2] for layer in parts]
    _, shared = learned(parts, quarters, table, args.rounds)
    print("| weight | channels | weights | error, dB | shared table, dB | own table, dB | own table must bring, dB |")
    print("|---|---|---|---|---|---|---|")
    for layer, before, after in zip(parts, plain, shared, strict=True):
        _, [own] = learned([layer], quarters, table, args.rounds)
        gains = [10 * np.log10(before / error) for error in (after, own)]
        needed = 8 * STATES / layer.columns.size * DECIBELS_PER_BIT
        print(
            f"| {layer.name} | {layer.columns.shape[1]} | {layer.columns.size:,} | {10 * np.log10(before):.2f} "
            f"| {gains[0]:.2f} | {gains[1]:.2f} | {needed:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
