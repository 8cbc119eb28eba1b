"""What the tests share: the binary under test, the digits, small models."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

PYTHON = Path(__file__).resolve().parent.parent
DIGITS = PYTHON.parent / "testdata" / "digits"

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Shells start jobs in the background so; the tests send the signal to themselves.
    signal.signal(signal.SIGINT, signal.default_int_handler)

if not os.environ.get("MSQ_ONNX_TEST_INSTALLED"):
    # The folder of sources, unless the tests are to be about an installed wheel.
    sys.path.insert(0, str(PYTHON / "src"))


@pytest.fixture(autouse=True)
def _no_files_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every test has a folder for temporary files of its own, which is empty at its end."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield
    assert list(folder.iterdir()) == []


@pytest.fixture
def model() -> Path:
    """A trained classifier of digits: input `image` [N, 1, 8, 8], output `logits` [N, 10]."""
    return DIGITS / "digits.onnx"


@pytest.fixture
def arrays() -> dict[str, Any]:
    """Arrays `image` [512, 1, 8, 8] and `label` [512]."""
    with np.load(DIGITS / "calib.npz") as file:
        return dict(file)


@pytest.fixture
def held_out() -> Path:
    """600 digits with labels that nothing was calibrated on."""
    return DIGITS / "test.npz"


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A Ray cluster of a head without cores and two nodes of one core each, as processes of this machine."""
    pytest.importorskip("ray", reason="ray is not installed: nothing on a cluster is tested")
    # The machines have this package on their path.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    ray_cluster = importlib.import_module("ray.cluster_utils")
    made = ray_cluster.Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        made.add_node(num_cpus=1)
    try:
        yield made
    finally:
        made.shutdown()


def sequence_model() -> onnx.ModelProto:
    """A product of a sequence `x` [N, T, 16] and weights, plus a sequence `bias` [N, T, 32]."""
    rng = np.random.default_rng(0)
    weights = onnx.numpy_helper.from_array(rng.standard_normal((16, 32)).astype(np.float32), "w")
    nodes = [
        onnx.helper.make_node("MatMul", ["x", "w"], ["product"], "layer"),
        onnx.helper.make_node("Add", ["product", "bias"], ["y"]),
    ]
    value = onnx.helper.make_tensor_value_info
    inputs = [value("x", onnx.TensorProto.FLOAT, ["N", "T", 16]), value("bias", onnx.TensorProto.FLOAT, ["N", "T", 32])]
    outputs = [value("y", onnx.TensorProto.FLOAT, ["N", "T", 32])]
    graph = onnx.helper.make_graph(nodes, "sequence", inputs, outputs, [weights])
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)


def sequence_feed(rng: np.random.Generator, rows: int, length: int) -> dict[str, Any]:
    """A feed of the sequence model."""
    return {
        "x": rng.standard_normal((rows, length, 16)).astype(np.float32),
        "bias": rng.standard_normal((rows, length, 32)).astype(np.float32),
    }
