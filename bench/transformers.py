"""Weights in blocks and ranges found at run time, beside onnxruntime's own tools, on an encoder of sentences.

    python transformers.py MODEL --calib CALIB.npz --test TEST.npz --msq path/to/msq-onnx --out OUT

The arrays of the .npz are named as the inputs of the model, one of them is `attention_mask`. Vectors of the first output are
averaged over the positions that the mask keeps; the figure is their cosine with those of the float model, on samples
that nothing was calibrated on. Times are processor time of one thread, batch 1, as in `speed.py`. `MatMulNBitsQuantizer`
needs the package `onnx_ir`; without it these rows are left out.
"""

from __future__ import annotations

import argparse
import json
import logging
import shlex
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from common import Feed
from sessions import feeds, ratio, session, times

MASK = "attention_mask"
OURS = {
    "int8, static": "",
    "int8, static, no factors": "--no-smooth",
    "int8, dynamic": "--act-bits dynamic",
    "int8, QNN": "--profile qnn --no-repair",
    "activations of 16 bits, QNN": "--profile qnn --act-bits 16 --no-repair",
    "4 bits, blocks of 32": "--weight-bits 4 --granularity block:32",
    "4 bits, blocks of 32, rounded": "--weight-bits 4 --granularity block:32 --solver round",
    "4 bits, blocks of 32, asymmetric": "--weight-bits 4 --granularity block:32 --grid asymmetric",
    "4 bits, blocks of 64": "--weight-bits 4 --granularity block:64",
    "8 bits, blocks of 32": "--weight-bits 8 --granularity block:32",
}


def vectors(model: Path, samples: list[Feed]) -> np.ndarray:
    """The mean of each sample's vectors over the positions that count."""
    running, found = session(model), []
    for feed in samples:
        values, mask = running.run(None, feed)[0], feed[MASK][..., None]
        found.append((values * mask).sum(1) / mask.sum(1))
    return np.concatenate(found)


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The cosine of each pair of rows."""
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def dynamic(model: Path, output: Path) -> None:
    """onnxruntime's dynamic quantizer, one scale per channel."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(model, output, weight_type=QuantType.QInt8, per_channel=True)


def in_blocks(symmetric: bool) -> Callable[[Path, Path], None]:
    """onnxruntime's quantizer of weights in blocks of 32."""

    def make(model: Path, output: Path) -> None:
        from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

        tool = MatMulNBitsQuantizer(onnx.load(model), block_size=32, is_symmetric=symmetric, accuracy_level=4)
        tool.process()
        tool.model.save_model_to_file(str(output))

    return make


OTHERS = {
    "onnxruntime dynamic": dynamic,
    "onnxruntime MatMulNBits": in_blocks(True),
    "onnxruntime MatMulNBits, asymmetric": in_blocks(False),
}


def ours(args: argparse.Namespace, flags: str) -> Callable[[Path, Path], None]:
    """A run of msq-onnx; ranges found at run time need no data."""

    def make(model: Path, output: Path) -> None:
        data = [] if "dynamic" in flags else ["--calib", str(args.calib)]
        command = [str(args.msq), str(model), "-o", str(output), "-q", *data, *shlex.split(flags)]
        subprocess.run(command, check=True)

    return make


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    for name in ("calib", "test", "msq", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", help="rows whose name holds this")
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    args.out.mkdir(parents=True, exist_ok=True)
    samples = feeds(args.model, dict(np.load(args.test)))
    wanted = vectors(args.model, samples)
    tools = {name: ours(args, flags) for name, flags in OURS.items()} | OTHERS
    results = {}
    print("| | MB | cosine, mean | cosine, worst | speed | seconds to make |\n|---|---|---|---|---|---|")
    for name, make in tools.items():
        if args.only and args.only not in name:
            continue
        output = args.out / f"{name.replace(', ', '-').replace(' ', '_')}.onnx"
        start = time.perf_counter()
        try:
            make(args.model, output)
        except ModuleNotFoundError as error:
            print(f"| {name} | {error} |")
            continue
        seconds = time.perf_counter() - start
        found = cosines(vectors(output, samples), wanted)
        spent = times({"float": args.model, name: output}, samples[0], args.rounds, 100)
        results[name] = {
            "megabytes": output.stat().st_size / 1e6,
            "mean": float(found.mean()),
            "worst": float(found.min()),
            "speed": 1 / ratio(spent, name),
            "seconds": seconds,
        }
        row = results[name]
        print(
            f"| {name} | {row['megabytes']:.1f} | {row['mean']:.4f} | {row['worst']:.4f} | {row['speed']:.2f}× "
            f"| {seconds:.0f} |",
            flush=True,
        )
    (args.out / "transformers.json").write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
