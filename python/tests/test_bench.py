"""Scripts of bench/ that need hardware or hours, as far as they run here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from conftest import PYTHON
from msq_onnx import _process

BENCH = PYTHON.parent / "bench"

# Stand-ins for TensorRT and the CUDA runtime: memory of the GPU is that of the machine, an engine is a session of
# onnxruntime. They have what the script uses, under the names of TensorRT 11.
TENSORRT = """
import ctypes, numpy, onnxruntime
__version__ = "11.0.0"
class NetworkDefinitionCreationFlag: pass
class Logger:
    WARNING = 1
    def __init__(self, level): pass
class Network:
    @property
    def num_inputs(self): return len(self.session.get_inputs())
    def get_input(self, at):
        shape = self.session.get_inputs()[at].shape
        return type("Input", (), {"shape": [size if isinstance(size, int) else -1 for size in shape]})
class OnnxParser:
    num_errors = 1
    def __init__(self, network, logger): self.network = network
    def get_error(self, at): return "refused"
    def parse_from_file(self, path):
        if path.endswith("w4.onnx"): return False
        self.network.session = onnxruntime.InferenceSession(path)
        return True
class Profile:
    def set_shape(self, name, least, best, most): self.shapes = least, best, most
class Config:
    def add_optimization_profile(self, profile): self.profile = profile
class Builder:
    def __init__(self, logger): pass
    def create_network(self, flags): assert flags == 0; return Network()
    def create_builder_config(self): return Config()
    def create_optimization_profile(self): return Profile()
    def build_serialized_network(self, network, config): assert config.profile.shapes[0][0] == 1; return network.session
class Engine:
    def __init__(self, session):
        self.session = session
        self.names = [each.name for each in session.get_inputs() + session.get_outputs()]
        self.num_io_tensors = len(self.names)
    def get_tensor_name(self, at): return self.names[at]
    def get_tensor_dtype(self, name): return "float"
    def create_execution_context(self): return Context(self.session)
class Context:
    def __init__(self, session): self.session, self.shapes, self.at = session, {}, {}
    def set_input_shape(self, name, shape): self.shapes[name] = shape
    def get_tensor_shape(self, name): return (next(iter(self.shapes.values()))[0], 10)
    def set_tensor_address(self, name, address): self.at[name] = address
    def array(self, name):
        shape = self.get_tensor_shape(name) if name not in self.shapes else self.shapes[name]
        kind = ctypes.c_float * int(numpy.prod(shape))
        return numpy.frombuffer(kind.from_address(self.at[name]), numpy.float32).reshape(shape)
    def execute_async_v3(self, stream):
        assert stream == 7
        values = self.session.run(None, {name: self.array(name) for name in self.shapes})
        for each, value in zip(self.session.get_outputs(), values):
            self.array(each.name)[...] = value
class Runtime:
    def __init__(self, logger): pass
    def deserialize_cuda_engine(self, plan): return Engine(plan)
def nptype(kind): return numpy.float32
"""
CUDA = """
import ctypes, enum
class cudaError_t(enum.IntEnum):
    cudaSuccess = 0
    cudaErrorNoDevice = 100
class cudaMemcpyKind(enum.Enum):
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2
kept = {}
ok = cudaError_t.cudaSuccess
def cudaGetDeviceCount(): return (ok, COUNT) if COUNT else (cudaError_t.cudaErrorNoDevice, 0)
def cudaGetDeviceProperties(at): return ok, type("Properties", (), {"name": b"none"})
def cudaStreamCreate(): return ok, 7
def cudaStreamSynchronize(stream): return (ok,)
def cudaMalloc(size):
    block = ctypes.create_string_buffer(size)
    kept[ctypes.addressof(block)] = block
    return ok, ctypes.addressof(block)
def cudaFree(pointer): del kept[pointer]; return (ok,)
def cudaMemcpy(to, source, size, kind): ctypes.memmove(to, source, size); return (ok,)
"""


def engines(out: Path, path: Path, *arguments: str) -> tuple[int, str, dict[str, Any]]:
    environment = {**os.environ, "PYTHONPATH": str(path), "TMPDIR": str(out.parent)}
    line: list[str | Path] = [
        sys.executable,
        BENCH / "tensorrt_engines.py",
        "--msq",
        _process.find_binary(),
        "--out",
        out,
    ]
    line += ["--rounds", "2", "--batch", "8", *arguments]
    finished = subprocess.run(line, env=environment, capture_output=True, encoding="utf-8")
    report = out / "tensorrt.json"
    return finished.returncode, finished.stderr, json.loads(report.read_text()) if report.exists() else {}


def test_a_package_that_is_missing_is_named(tmp_path: Path) -> None:
    install(tmp_path, None)
    path = os.pathsep.join([str(BENCH), str(tmp_path / "packages")])
    line = [sys.executable, "-c", "import tensorrt_engines; tensorrt_engines.Gpu()"]
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    finished = subprocess.run(line, env=environment, capture_output=True, encoding="utf-8")
    assert finished.stderr.endswith("LookupError: `tensorrt` cannot be imported (gone): pip install tensorrt\n")


def test_without_a_gpu_files_are_made_and_it_is_said(tmp_path: Path) -> None:
    install(tmp_path, 0)
    code, said, report = engines(tmp_path / "out", tmp_path / "packages")
    assert code == 3, said
    (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: no engine was built: ")
    assert "there is no GPU here" in line
    assert [row["form"] for row in report["rows"]] == ["float", "int8", "w4a8", "w4", "ort"]
    for row in report["rows"]:
        assert (tmp_path / "out/digits" / f"{row['form']}.onnx").is_file()
        assert row["errors"] == 0
        assert row["to_float"] > 10
        assert "ms" not in row
    assert report["gpu"] is None


def test_engines_are_compared_and_a_refused_file_is_a_fault(tmp_path: Path) -> None:
    install(tmp_path, 1)
    code, said, report = engines(tmp_path / "out", tmp_path / "packages")
    assert code == 1, said
    assert report["gpu"] == "none, TensorRT 11.0.0"
    rows = {row["form"]: row for row in report["rows"]}
    assert rows.pop("w4")["fault"] == "refused"
    for row in rows.values():
        assert row["gpu_to_ort"] > 20
        assert row["ms"] > 0
        assert ("gpu_to_emulation" in row) == (row["form"] != "ort")


def test_a_model_needs_its_data(tmp_path: Path) -> None:
    code, said, _ = engines(tmp_path / "out", tmp_path, "model.onnx")
    assert code == 2
    assert "`model.onnx` is no MODEL=DATA.npz" in said


def install(folder: Path, count: int | None) -> None:
    """Makes the stand-ins importable, with so many GPUs; with None those that cannot be imported."""
    package = folder / "packages"
    (package / "tensorrt").mkdir(parents=True)
    (package / "tensorrt" / "__init__.py").write_text("raise ImportError('gone')" if count is None else TENSORRT)
    (package / "cuda" / "bindings").mkdir(parents=True)
    (package / "cuda" / "bindings" / "runtime.py").write_text(CUDA.replace("COUNT", str(count or 0)))
