"""What `--float16` does to files: sizes, noise and times in onnxruntime, beside float and onnxruntime's own converter.

    python float16.py MODEL.onnx=SAMPLES.npz … --msq path/to/msq-onnx --out OUT

A row is a file: bytes, the noise of its outputs on the last samples against the
float model in onnxruntime (dB, the mean over outputs), the time of a run on one CPU thread as a multiple of float's, and
what the summary says of float16. `ort` is `onnxruntime.transformers.float16` with inputs and outputs kept.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.transformers.float16 import convert_float_to_float16
from sessions import feeds, ratio, session, times

SAMPLES = 16
RUNS = {
    "weights": ["--weight-bits", "float", "--float16", "weights"],
    "all": ["--weight-bits", "float", "--float16", "all"],
    "int8": [],
    "int8 + weights": ["--float16", "weights"],
    "int8 + all": ["--float16", "all"],
}


def noise(reference: list[list[np.ndarray]], found: list[list[np.ndarray]]) -> float:
    """Signal-to-noise ratio in dB, the mean over the outputs that hold floats; bad where one is not finite."""
    ratios = []
    for signals, others in zip(zip(*reference, strict=True), zip(*found, strict=True), strict=True):
        if signals[0].dtype.kind != "f":
            continue
        power = sum(float((s.astype(float) ** 2).sum()) for s in signals)
        error = sum(float(((s.astype(float) - o) ** 2).sum()) for s, o in zip(signals, others, strict=True))
        ratios.append(10 * np.log10(power / max(error, 1e-30)))
    return float(np.mean(ratios))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", help="MODEL.onnx=SAMPLES.npz, arrays named as the inputs")
    parser.add_argument("--msq", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--samples", default="64", help="samples calibrated on")
    parser.add_argument("--seconds", type=float, default=3.0)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    print("| model | file | bytes | noise dB | time | float16 |\n|---|---|---|---|---|---|")
    for entry in args.models:
        model, data = (Path(part) for part in entry.split("="))
        samples = feeds(model, dict(np.load(data)))[-SAMPLES:]
        files, said = {"float": model}, {"float": ""}
        converted = args.out / f"{model.stem}.ort.onnx"
        onnx.save(convert_float_to_float16(onnx.load(model), keep_io_types=True), converted)
        files["ort"], said["ort"] = converted, ""
        for name, flags in RUNS.items():
            target = args.out / f"{model.stem}.{name.replace(' + ', '-')}.onnx"
            command = [args.msq, model, "-o", target, "--calib", data, "--samples", args.samples, "--json", *flags]
            report = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            halves = report.get("float16")
            files[name] = target
            said[name] = "" if halves is None else f"{halves['nodes']} nodes, {halves['constants']} constants, "
            said[name] += "" if halves is None else f"{len(halves['left'])} stay float"
        outputs = {name: [session(path).run(None, feed) for feed in samples] for name, path in files.items()}
        spent = times(files, samples[0], seconds=args.seconds)
        for name, path in files.items():
            decibels = "" if name == "float" else f"{noise(outputs['float'], outputs[name]):.1f}"
            cells = [model.stem, name, f"{path.stat().st_size:,}", decibels, f"{ratio(spent, name):.2f}", said[name]]
            print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
