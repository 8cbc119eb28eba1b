"""How far what layers cost alone repeats on other samples, by the plain and by the softened divergence.

    msq-onnx search MODEL --calib A.npz --search ilp --shard 1/1 -o A.costs
    msq-onnx search MODEL --calib B.npz --search ilp --shard 1/1 -o B.costs
    python costs_repeat.py A.costs B.costs

The files are those of `msq-onnx search --shard`. For every width, over the layers that both files have: the rank
correlation of the costs, and the standard deviation of the logarithm of their ratio where both are above 0. Needs numpy.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

Plan = tuple[str, ...]
KEYS = ("divergence", "softened_divergence")


def plans(path: Path) -> Iterator[tuple[Plan, list[float]]]:
    """The widths of the layers of each plan measured, with its divergences."""
    for line in path.read_text().splitlines():
        record = json.loads(line)
        name, _, plan = record.get("key", "").partition(" ")
        if name == "some":
            widths = tuple(str(layer["weights"]) for layer in json.loads(plan)["layers"].values())
            yield widths, [record["value"]["outputs"][0][key] for key in KEYS]


def costs(path: Path) -> dict[str, dict[int, np.ndarray]]:
    """What is added to the divergences when one layer alone leaves the first rung, by width and layer."""
    measured = dict(plans(path))
    base = next(plan for plan in measured if len(set(plan)) == 1)
    found: dict[str, dict[int, np.ndarray]] = {}
    for plan, values in measured.items():
        changed = [(at, width) for at, width in enumerate(plan) if width != base[at]]
        if len(changed) == 1:
            layer, width = changed[0]
            found.setdefault(width, {})[layer] = np.subtract(values, measured[base])
    return found


def ranks(values: np.ndarray) -> np.ndarray:
    """The place of each value."""
    return np.argsort(np.argsort(values))


def main() -> None:
    """Prints a table."""
    one, other = (costs(Path(path)) for path in sys.argv[1:3])
    print("| bits | layers | divergence | rank correlation | deviation of ln ratio |\n|---|---|---|---|---|")
    for width in sorted(one.keys() & other.keys(), reverse=True):
        layers = sorted(one[width].keys() & other[width].keys())
        for at, key in enumerate(KEYS):
            a, b = (np.array([found[width][layer][at] for layer in layers]) for found in (one, other))
            positive = (a > 0) & (b > 0)
            spread = np.log(a[positive] / b[positive]).std() if positive.any() else float("nan")
            correlation = np.corrcoef(ranks(a), ranks(b))[0, 1]
            print(f"| {width} | {len(layers)} | {key} | {correlation:.2f} | {spread:.2f} |")


if __name__ == "__main__":
    main()
