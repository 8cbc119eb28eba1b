"""Quantize a model of sequences with samples of their own lengths, and with the same samples padded to one length.

    python lengths.py MODEL CALIB.npz --mask attention_mask --samples 64 --msq before=PATH --msq after=PATH --out OUT

`CALIB.npz` has an array `[samples, length]` per input, padded. Each sample is cut to the positions where its mask is not
0, and where all are as long, to lengths spread over them. Prints the processor time and the peak memory of both, of every
binary in turns (medians of `--rounds`), and how many lengths there were.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import numpy as np
import onnx
from compare_ort import measured


def write(folder: Path, names: list[str], sample: dict[str, np.ndarray]) -> None:
    """A sample as a folder of tensors, one per input of the model."""
    folder.mkdir(parents=True, exist_ok=True)
    for at, name in enumerate(names):
        tensor = onnx.numpy_helper.from_array(sample[name], name)
        (folder / f"input_{at}.pb").write_bytes(tensor.SerializeToString())


def cut(samples: dict[str, np.ndarray], mask: str, at: int, count: int) -> dict[str, np.ndarray]:
    """A sample without its padding."""
    length = int(samples[mask][at].astype(bool).sum())
    if samples[mask].all():
        length = max(1, length * (at + 1) // count)
    return {name: array[at : at + 1, :length] for name, array in samples.items()}


def main() -> None:
    """Write the data, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--mask", required=True)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--msq", action="append", required=True, metavar="NAME=PATH")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    names = [value.name for value in onnx.load(args.model, load_external_data=False).graph.input]
    with np.load(args.data) as file:
        samples = {name: file[name][: args.samples] for name in names}
    count = len(samples[args.mask])
    lengths = set()
    for at in range(count):
        sample = cut(samples, args.mask, at, count)
        lengths.add(sample[args.mask].shape[1])
        write(args.out / "cut" / f"test_data_set_{at}", names, sample)
        padded = {name: array[at : at + 1] for name, array in samples.items()}
        write(args.out / "padded" / f"test_data_set_{at}", names, padded)
    print(f"{count} samples of {len(lengths)} lengths, padded to {samples[args.mask].shape[1]}\n")
    print("| binary | data | CPU s | peak MB |\n|---|---|---|---|")
    runs: dict[tuple[str, str], list[dict]] = {}
    for _ in range(args.rounds):
        for name, path in (binary.split("=", 1) for binary in args.msq):
            for data in ("padded", "cut"):
                command = [path, str(args.model), "-o", str(args.out / "out.onnx"), "--quiet"]
                run = measured([*command, "--calib", str(args.out / data)], args.out)
                if run["exit"]:
                    raise SystemExit(f"{name}, {data}: {run['stderr'].strip()}")
                runs.setdefault((name, data), []).append(run)
    for (name, data), found in runs.items():
        seconds, memory = (statistics.median(run[key] for run in found) for key in ("cpu_s", "peak_mb"))
        print(f"| {name} | {data} | {seconds:.2f} | {memory:.0f} |")


if __name__ == "__main__":
    main()
