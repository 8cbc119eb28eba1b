"""Quantize one benchmark model with onnxruntime.quantization, in a process of its own.

Prints JSON with the seconds (wall and CPU) of importing, pre-processing and quantizing.
Settings: QDQ, uint8 activations, per-channel int8 weights, everything else at its
default. The function's own default is int8 activations; with those, onnxruntime on
x86 leaves convolutions around residual additions in float. `--compute-only` leaves
all but Conv, Gemm and MatMul in float, as one does by hand where quantizing
normalisation layers ruins a model.
"""

from __future__ import annotations

import time

START = (time.perf_counter(), time.process_time())

import argparse  # noqa: E402
import contextlib  # noqa: E402
import json  # noqa: E402
import tempfile  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from pathlib import Path  # noqa: E402

import onnx  # noqa: E402
import onnx.version_converter  # noqa: E402
from common import TASKS, Feed  # noqa: E402
from onnxruntime.quantization import (  # noqa: E402
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process  # noqa: E402

PER_CHANNEL_OPSET = 13
CONVERTED_OPSET = 17
# On magika, quantize_static 1.31.1 raises a ValueError in its weight adjustment unless told to leave it out.
EXTRA_OPTIONS = {"magika": {"QDQDisableWeightAdjustForInt32Bias": True}}
COMPUTE_OPS = ["Conv", "Gemm", "MatMul"]
METHODS = {
    "minmax": CalibrationMethod.MinMax,
    "percentile": CalibrationMethod.Percentile,
}


class Reader(CalibrationDataReader):
    """Hands out samples one at a time, as they are read."""

    def __init__(self, samples: Iterator[Feed]) -> None:
        self.samples = samples

    def get_next(self) -> Feed | None:
        """The next sample, or None at the end."""
        return next(self.samples, None)


class Clock:
    """Wall and CPU seconds since the last lap."""

    def __init__(self, start: tuple[float, float]) -> None:
        self.last = start

    def lap(self) -> dict[str, float]:
        """Seconds since the last call."""
        now = (time.perf_counter(), time.process_time())
        spent = {"wall_s": now[0] - self.last[0], "cpu_s": now[1] - self.last[1]}
        self.last = now
        return spent


def with_per_channel_opset(model: Path, folder: Path) -> Path:
    """The model, converted when its opset has no per-channel DequantizeLinear."""
    loaded = onnx.load(model)
    opset = next(entry.version for entry in loaded.opset_import if entry.domain in ("", "ai.onnx"))
    if opset >= PER_CHANNEL_OPSET:
        return model
    target = folder / "converted.onnx"
    onnx.save(onnx.version_converter.convert_version(loaded, CONVERTED_OPSET), target)
    return target


def pre_process(model: Path, target: Path) -> bool:
    """onnxruntime's own preparation; without symbolic shapes where those fail. Says whether they worked."""
    try:
        quant_pre_process(str(model), str(target))
    except Exception:  # noqa: BLE001 - symbolic shape inference raises a bare Exception
        quant_pre_process(str(model), str(target), skip_symbolic_shape=True)
        return False
    return True


def main() -> None:
    """Quantize and print the timings."""
    clock = Clock(START)
    timings: dict[str, object] = {"import": clock.lap()}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=sorted(TASKS), required=True)
    parser.add_argument("--data", type=Path, required=True, help="data folder, see README.md")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--method", choices=sorted(METHODS), required=True)
    parser.add_argument("--compute-only", action="store_true", help="quantize Conv, Gemm and MatMul only")
    args = parser.parse_args()

    task = TASKS[args.task]
    data, target = args.data.resolve(), args.output.resolve()
    # onnxruntime leaves scratch files in the current folder when its shape inference fails.
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        folder = Path(name)
        model = with_per_channel_opset(data / task.model, folder)
        timings["opset_converted"] = model != data / task.model
        prepared = folder / "prepared.onnx"
        timings["symbolic_shapes"] = pre_process(model, prepared)
        timings["pre_process"] = clock.lap()
        quantize_static(
            str(prepared),
            str(target),
            Reader(task.samples(data)),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=METHODS[args.method],
            op_types_to_quantize=COMPUTE_OPS if args.compute_only else None,
            extra_options=EXTRA_OPTIONS.get(args.task, {}),
        )
        timings["quantize"] = clock.lap()
    print(json.dumps(timings))


if __name__ == "__main__":
    main()
