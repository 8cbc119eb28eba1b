"""Metrics that are functions of this process."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import msq_onnx
from msq_onnx._metric import MetricServer


def test_a_function_scores_outputs(model: Path, arrays: dict[str, Any], held_out: Path) -> None:
    calls: list[dict[str, tuple[int, ...]]] = []

    def accuracy(outputs: dict[str, Any], labels: dict[str, Any]) -> float:
        assert threading.current_thread() is threading.main_thread()
        calls.append({name: array.shape for name, array in (outputs | labels).items()})
        return float(np.mean(outputs["logits"].argmax(1) == labels["y"]))

    report = msq_onnx.evaluate(model, held_out, metric=accuracy)
    assert report.metric == report.accuracy
    assert calls[0]["logits"] == (600, 10)
    assert calls[0]["index"] == (600,)
    assert calls[0]["y"] == (600,)


def test_a_function_drives_a_search(model: Path, arrays: dict[str, Any]) -> None:
    calls = []

    def margin(outputs: dict[str, Any], labels: dict[str, Any]) -> float:
        calls.append(len(labels["index"]))
        ordered = np.sort(outputs["logits"], 1)
        return np.mean(ordered[:, -1] - ordered[:, -2])  # type: ignore[no-any-return]

    report = msq_onnx.quantize(model, arrays, max_drop="5%", search="uniform", metric=margin)
    assert len(calls) > 2
    assert report.quality is not None
    assert report.quality.metric is not None
    assert report.quality.float_metric is not None


def test_what_a_function_raises_is_raised(model: Path, arrays: dict[str, Any], tmp_path: Path) -> None:
    def broken(outputs: dict[str, Any], labels: dict[str, Any]) -> float:
        raise LookupError("no such class")

    with pytest.raises(LookupError, match="no such class"):
        msq_onnx.quantize(model, arrays, metric=broken, output=tmp_path / "small.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["temporary"]


def test_a_score_is_a_finite_number(model: Path, arrays: dict[str, Any]) -> None:
    with pytest.raises(msq_onnx.UsageError, match="the metric function returned nan; expected a finite number"):
        msq_onnx.evaluate(model, arrays, metric=lambda outputs, labels: float("nan"))


def test_a_command_scores_as_well(model: Path, arrays: dict[str, Any]) -> None:
    assert msq_onnx.evaluate(model, arrays, metric="echo 0.5").metric == 0.5


def test_nobody_else_is_answered(tmp_path: Path) -> None:
    def metric(outputs: dict[str, Any], labels: dict[str, Any]) -> float:
        raise AssertionError("called")

    with MetricServer(metric) as server:
        port = int(server.environment["MSQ_ONNX_METRIC"].split()[0])
        for said in (b"GET / HTTP/1.1\r\n\r\n", b'["guess", "a", "b"]\n', b"7\n", b"\xff\n", b""):
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.sendall(said)
                client.shutdown(socket.SHUT_WR)
                server.serve(5)
                assert client.recv(10) == b""
