"""Writes passes/src/quantize/trellis/tables.rs: the tables of trellis codes, learned on Gaussian columns.

    python scripts/trellis_tables.py > passes/src/quantize/trellis/tables.rs && cargo fmt

A table maps the 256 windows of 8 bits to weights. It starts as Gaussian numbers and takes 25 rounds of k-means: columns of
64 Gaussian numbers are encoded by a circular Viterbi search, then each entry becomes the mean of the numbers that chose
it. Entries are written as integers, 36 to a standard deviation. The error printed to stderr is that of columns of 64
that took no part, relative to their variance. Needs numpy; takes about a minute.
"""

import sys

import numpy as np

STATES, WINDOW, LENGTH, COLUMNS, ROUNDS, SIGMA = 256, 8, 64, 400, 25, 36
QUARTERS = [4, 5, 6, 7, 8, 9, 10, 12, 16]


def steps(quarters, length):
    """New bits of each element; those of the first take in what fills the last byte."""
    ends = [(i + 1) * quarters // 4 for i in range(length)]
    total = 8 * -(-length * quarters // 32)
    return [ends[0] + total - ends[-1]] + [b - a for a, b in zip(ends, ends[1:])]


def search(y, bits, table, start=None, importance=None):
    """The best windows of columns, each from the window `start` round to it; free at both ends without one.

    `importance` weighs the squared errors of the elements of all columns."""
    n, length = y.shape
    at = np.arange(STATES)
    cost = np.zeros((n, STATES), np.float32)
    if start is not None:
        cost[:] = np.float32(1e30)
        cost[np.arange(n), start] = 0
    back = []
    for i in range(length):
        k = min(bits[i], WINDOW)
        ways = cost.reshape(n, 1 << k, STATES >> k)
        choice = ways.argmin(1)
        back.append((choice, k))
        weight = 1 if importance is None else importance[i]
        cost = ways.min(1)[:, at >> k] + weight * (y[:, i : i + 1] - table) ** 2
    state = cost.argmin(1) if start is None else start
    path = np.zeros((n, length), int)
    for i in reversed(range(length)):
        path[:, i] = state
        choice, k = back[i]
        rest = state >> k
        state = (choice[np.arange(n), rest] << (WINDOW - k)) | rest
    return path


def encode(y, bits, table, importance=None):
    """Windows of circular strings: the seam is where a search from the middle on crosses it."""
    half = y.shape[1] // 2
    turned_importance = None if importance is None else np.roll(importance, -half)
    turned = search(np.roll(y, -half, 1), np.roll(bits, -half).tolist(), table, None, turned_importance)
    seam = turned[:, y.shape[1] - 1 - half]
    return search(y, bits, table, seam, importance)


def learn(quarters):
    random = np.random.RandomState(1)
    table = random.randn(STATES).astype(np.float32)
    columns = random.randn(COLUMNS, LENGTH).astype(np.float32)
    bits = steps(quarters, LENGTH)
    for _ in range(ROUNDS):
        path = encode(columns, bits, table).ravel()
        count = np.bincount(path, minlength=STATES)
        total = np.bincount(path, columns.ravel(), STATES)
        table = np.where(count > 0, total / np.maximum(count, 1), table).astype(np.float32)
    integers = np.clip(np.round(table * SIGMA), -127, 127).astype(int)
    fresh = np.random.RandomState(99).randn(200, LENGTH).astype(np.float32)
    entries = (integers / SIGMA).astype(np.float32)
    error = np.mean((fresh - entries[encode(fresh, bits, entries)]) ** 2)
    print(f"{quarters / 4} bits: error {error:.4f}", file=sys.stderr)
    return integers


def main():
    print("//! Tables of trellis codes, learned on Gaussian columns: written by `scripts/trellis_tables.py`.\n")
    rates = "The rates of the tables, in quarters of a bit"
    print(f"/// {rates}, and the weight of each window: {SIGMA} is a standard deviation.")
    print(f"pub(super) static TABLES: [(u8, [i8; {STATES}]); {len(QUARTERS)}] = [")
    for quarters in QUARTERS:
        print(f"    ({quarters}, [{', '.join(map(str, learn(quarters)))}]),")
    print("];")


if __name__ == "__main__":
    main()
