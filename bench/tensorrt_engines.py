"""Builds TensorRT engines from what msq-onnx writes for the profile `tensorrt`, from float and from onnxruntime's QDQ.

    python tensorrt_engines.py --msq path/to/msq-onnx --out OUT [MODEL=DATA.npz ...]

For each model, the digits of the repository unless models are given, writes `float.onnx`, `int8.onnx`, `w4a8.onnx` and
`w4.onnx` (weights of 4 bits; activations of 8 bits and float) and `ort.onnx` (onnxruntime's static quantization with
symmetric int8 and float biases), lints them, and runs them in onnxruntime and in msq-onnx's own engine. Then builds an
engine of each file, compares its outputs with both, and times it. Prints a table and writes `OUT/tensorrt.json`.

Without a GPU, or without `tensorrt` and `cuda-bindings`, everything up to the engines is done; the script says what is
missing and ends with 3. It ends with 1 where an engine cannot be built. After --minutes, 10 unless given, no engine is
started.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

Arrays = dict[str, np.ndarray]
DIGITS = Path(__file__).resolve().parent.parent / "testdata" / "digits"
#: Files by name, with the flags of msq-onnx.
FORMS = {"int8": [], "w4a8": ["--weight-bits", "4"], "w4": ["--weight-bits", "4", "--act-bits", "float"]}
NO_GPU = 3
COMPARED = 64


# Files


def inputs_of(model: Path, data: Path) -> Arrays:
    """The arrays that feed the model, by the names of its inputs."""
    graph = onnx.load(model, load_external_data=False).graph
    initializers = {each.name for each in graph.initializer}
    names = [each.name for each in graph.input if each.name not in initializers]
    with np.load(data) as arrays:
        missing = [name for name in names if name not in arrays]
        if missing:
            raise SystemExit(
                f"error: `{data}` has no array `{missing[0]}`, which `{model}` reads; name arrays as inputs"
            )
        return {name: arrays[name] for name in names}


class Feeds(CalibrationDataReader):
    """Samples one by one, as onnxruntime's quantizer wants them."""

    def __init__(self, arrays: Arrays) -> None:
        rows = min(len(array) for array in arrays.values())
        self.feeds = iter({name: array[at : at + 1] for name, array in arrays.items()} for at in range(rows))

    def get_next(self) -> Arrays | None:
        """The next sample."""
        return next(self.feeds, None)


def quantize_by_onnxruntime(model: Path, arrays: Arrays, output: Path) -> None:
    """QDQ as TensorRT wants it: symmetric int8, one scale per channel, float biases."""
    prepared = output.with_suffix(".prepared.onnx")
    quant_pre_process(model, prepared, skip_symbolic_shape=True)
    quantize_static(
        prepared,
        output,
        Feeds(arrays),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        extra_options={"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False},
    )


def write_files(msq: Path, model: Path, data: Path, folder: Path) -> dict[str, Path]:
    """All files of a model."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {"float": folder / "float.onnx"}
    onnx.save(onnx.load(model), files["float"])
    for form, flags in FORMS.items():
        files[form] = folder / f"{form}.onnx"
        command = [msq, model, "-o", files[form], "--calib", data, "--profile", "tensorrt", "--quiet", *flags]
        subprocess.run(command, check=True)
    files["ort"] = folder / "ort.onnx"
    quantize_by_onnxruntime(model, inputs_of(model, data), files["ort"])
    for path in files.values():
        onnx.checker.check_model(str(path))
    return files


def lint(msq: Path, model: Path) -> dict[str, int]:
    """Errors and warnings for TensorRT."""
    command = [msq, "lint", "--profile", "tensorrt", "--json", model]
    found = json.loads(subprocess.run(command, capture_output=True).stdout)
    return {key: found[key] for key in ("errors", "warnings")}


# Outputs


def onnxruntime_outputs(model: Path, arrays: Arrays) -> Arrays:
    """What onnxruntime computes on the CPU, without fusing integers."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_outputs()]
    return dict(zip(names, session.run(names, arrays), strict=True))


def emulated_outputs(msq: Path, model: Path, arrays: Arrays) -> Arrays:
    """What the engine of msq-onnx computes."""
    samples, outputs = model.with_suffix(".in.npz"), model.with_suffix(".out.npz")
    np.savez(samples, **arrays)
    command = [msq, "evaluate", model, "--calib", samples, "--save-outputs", outputs]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    with np.load(outputs) as stored:
        return dict(stored)


def decibels(theirs: Arrays, ours: Arrays) -> float:
    """Power of the worst output over that of the difference; infinite where there is none."""
    worst = np.inf
    for name, wanted in ours.items():
        wanted = wanted.astype(np.float64)
        noise = np.mean((theirs[name].reshape(wanted.shape) - wanted) ** 2)
        if noise:
            worst = min(worst, 10 * np.log10(np.mean(wanted**2) / noise))
    return float(worst)


# Engines


class Gpu:
    """Builds and runs engines."""

    def __init__(self) -> None:
        """Finds TensorRT, the CUDA runtime and a GPU.

        Raises:
            LookupError: one of them is missing; the message says which.
        """
        try:
            import tensorrt
        except (ImportError, OSError) as error:
            raise LookupError(f"`tensorrt` cannot be imported ({error}): pip install tensorrt") from error
        try:
            from cuda.bindings import runtime
        except (ImportError, OSError) as error:
            raise LookupError(f"`cuda.bindings` cannot be imported ({error}): pip install cuda-bindings") from error
        self.trt, self.cuda = tensorrt, runtime
        try:
            count = self.call("cudaGetDeviceCount")
        except (RuntimeError, OSError) as error:
            raise LookupError(f"there is no GPU here: {error}") from error
        if not count:
            raise LookupError("there is no GPU here")
        self.logger = tensorrt.Logger(tensorrt.Logger.WARNING)
        self.stream = self.call("cudaStreamCreate")

    def call(self, function: str, *arguments: Any) -> Any:
        """Calls the CUDA runtime and returns what it gives beside the status."""
        status, *values = getattr(self.cuda, function)(*arguments)
        if int(status):
            raise RuntimeError(f"{function}: {status.name}")
        return values[0] if values else None

    def name(self) -> str:
        """The GPU and the version of TensorRT."""
        properties = self.call("cudaGetDeviceProperties", 0)
        return f"{properties.name.decode()}, TensorRT {self.trt.__version__}"

    def build(self, model: Path, arrays: Arrays, batch: int) -> Any:
        """An engine for batches of 1 to `batch`.

        Types are those of the file: TensorRT 11 knows nothing else, 10 is told so.
        """
        trt = self.trt
        builder = trt.Builder(self.logger)
        strongly_typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
        old = int(trt.__version__.split(".")[0]) < 11
        network = builder.create_network(1 << int(strongly_typed) if old and strongly_typed is not None else 0)
        parser = trt.OnnxParser(network, self.logger)
        if not parser.parse_from_file(str(model)):
            raise RuntimeError("; ".join(str(parser.get_error(at)) for at in range(parser.num_errors)))
        config = builder.create_builder_config()
        if any(-1 in tuple(network.get_input(at).shape) for at in range(network.num_inputs)):
            profile = builder.create_optimization_profile()
            for name, array in arrays.items():
                profile.set_shape(name, (1, *array.shape[1:]), (batch, *array.shape[1:]), (batch, *array.shape[1:]))
            config.add_optimization_profile(profile)
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise RuntimeError("no engine was built; the log above says why")
        return trt.Runtime(self.logger).deserialize_cuda_engine(plan)

    def run(self, engine: Any, arrays: Arrays, rounds: int) -> tuple[Arrays, float]:
        """Outputs of one batch, and the median of milliseconds for it, without copies."""
        context = engine.create_execution_context()
        host: Arrays = {}
        device: dict[str, Any] = {}
        try:
            for name, array in arrays.items():
                context.set_input_shape(name, array.shape)
            for at in range(engine.num_io_tensors):
                name = engine.get_tensor_name(at)
                kind = self.trt.nptype(engine.get_tensor_dtype(name))
                host[name] = (
                    np.ascontiguousarray(arrays[name], kind)
                    if name in arrays
                    else np.empty(tuple(context.get_tensor_shape(name)), kind)
                )
                device[name] = self.call("cudaMalloc", host[name].nbytes)
                context.set_tensor_address(name, int(device[name]))
            self.copy(host, device, arrays, to_device=True)
            times = []
            for _ in range(rounds + 5):
                start = time.perf_counter()
                context.execute_async_v3(int(self.stream))
                self.call("cudaStreamSynchronize", self.stream)
                times.append(time.perf_counter() - start)
            self.copy(host, device, [name for name in host if name not in arrays], to_device=False)
        finally:
            for pointer in device.values():
                self.call("cudaFree", pointer)
        outputs = {name: array for name, array in host.items() if name not in arrays}
        return outputs, 1000 * float(np.median(times[5:]))

    def copy(self, host: Arrays, device: dict[str, Any], names: Any, *, to_device: bool) -> None:
        """Copies arrays to the GPU or back."""
        kinds = self.cuda.cudaMemcpyKind
        for name in names:
            array, pointer = host[name], device[name]
            if to_device:
                self.call("cudaMemcpy", pointer, array.ctypes.data, array.nbytes, kinds.cudaMemcpyHostToDevice)
            else:
                self.call("cudaMemcpy", array.ctypes.data, pointer, array.nbytes, kinds.cudaMemcpyDeviceToHost)


# The table


def on_cpu(msq: Path, files: dict[str, Path], arrays: Arrays) -> Iterator[dict[str, Any]]:
    """Rows with what is known without a GPU."""
    reference = onnxruntime_outputs(files["float"], arrays)
    for form, path in files.items():
        outputs = onnxruntime_outputs(path, arrays)
        row = {"form": form, "bytes": path.stat().st_size, **lint(msq, path), "to_float": decibels(outputs, reference)}
        # The engine runs what msq-onnx writes, and float models.
        row["to_emulation"] = decibels(outputs, emulated_outputs(msq, path, arrays)) if form != "ort" else None
        yield row


def on_gpu(gpu: Gpu, msq: Path, path: Path, arrays: Arrays, settings: argparse.Namespace) -> dict[str, Any]:
    """What an engine adds to a row."""
    start = time.perf_counter()
    try:
        engine = gpu.build(path, arrays, len(next(iter(arrays.values()))))
        seconds = time.perf_counter() - start
        outputs, milliseconds = gpu.run(engine, arrays, settings.rounds)
    except RuntimeError as error:
        return {"fault": str(error)}
    row = {"build_s": seconds, "ms": milliseconds, "gpu_to_ort": decibels(outputs, onnxruntime_outputs(path, arrays))}
    if path.stem != "ort":
        row["gpu_to_emulation"] = decibels(outputs, emulated_outputs(msq, path, arrays))
    return row


def line(row: dict[str, Any]) -> str:
    """A row as text."""
    keys = ("model", "form", "bytes", "errors", "warnings", "to_float", "to_emulation")
    keys += ("build_s", "ms", "gpu_to_ort", "gpu_to_emulation", "fault")
    cells = [
        f"{value:.2f}" if isinstance(value := row.get(key), float) else str("" if value is None else value)
        for key in keys
    ]
    return f"| {' | '.join(cells)} |"


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--msq", type=Path, required=True, help="the msq-onnx binary")
    parser.add_argument("--out", type=Path, required=True, help="folder for files and results")
    parser.add_argument("--rounds", type=int, default=200, help="runs that are timed")
    parser.add_argument("--batch", type=int, default=COMPARED, help="samples compared, and timed in one batch")
    parser.add_argument("--minutes", type=float, default=10, help="after so many no other engine is built")
    parser.add_argument("models", nargs="*", metavar="MODEL=DATA.npz", help="the digits of the repository unless given")
    args = parser.parse_args()
    for each in args.models:
        if "=" not in each:
            parser.error(f"`{each}` is no MODEL=DATA.npz")
    args.models = [tuple(map(Path, each.split("=", 1))) for each in args.models]
    args.models = args.models or [(DIGITS / "digits.onnx", DIGITS / "calib.npz")]
    args.msq = args.msq.resolve()
    return args


def main() -> int:
    """Files, their outputs on the CPU, then engines."""
    settings = parse_arguments()
    deadline = time.monotonic() + 60 * settings.minutes
    results: list[dict[str, Any]] = []
    work: list[tuple[dict[str, Any], Path, Arrays]] = []
    for model, data in settings.models:
        files = write_files(settings.msq, model, data, settings.out / model.stem)
        arrays = {name: array[: settings.batch] for name, array in inputs_of(model, data).items()}
        for row in on_cpu(settings.msq, files, arrays):
            results.append({"model": model.stem, **row})
            work.append((results[-1], files[row["form"]], arrays))
    report: dict[str, Any] = {"gpu": None, "rows": results}
    code = 0
    try:
        gpu = Gpu()
        report["gpu"] = gpu.name()
        for row, path, arrays in work:
            late = time.monotonic() > deadline
            row |= {"fault": "no time left"} if late else on_gpu(gpu, settings.msq, path, arrays, settings)
            code = code or int("fault" in row)
    except LookupError as error:
        print(
            f"error: no engine was built: {error}. Files and what the CPU says of them are in {settings.out}",
            file=sys.stderr,
        )
        code = NO_GPU
    (settings.out / "tensorrt.json").write_text(json.dumps(report, indent=1) + "\n")
    print(
        "| model | form | bytes | lint errors | warnings | onnxruntime to float, dB | onnxruntime to emulation, dB "
        "| build, s | batch, ms | engine to onnxruntime, dB | engine to emulation, dB | fault |"
    )
    print(f"|{'---|' * 12}")
    print("\n".join(map(line, results)))
    return code


if __name__ == "__main__":
    sys.exit(main())
