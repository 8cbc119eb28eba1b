"""Each function on the digits, and the forms of models and results."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

import msq_onnx


def accuracy(model: bytes, arrays: dict[str, Any]) -> float:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"image": arrays["image"]})
    return float(np.mean(np.argmax(logits, 1) == arrays["label"]))


def test_quantize_writes_a_model_that_runs(model: Path, arrays: dict[str, Any], tmp_path: Path) -> None:
    output = tmp_path / "small.onnx"
    report = msq_onnx.quantize(model, arrays, output=output)
    assert report.output == str(output)
    assert report.bytes == output.stat().st_size < report.float_bytes
    assert report.samples == 512
    assert report.quality is not None
    assert report.quality.accuracy is not None
    assert report.model_bytes is None
    assert accuracy(output.read_bytes(), arrays) > 0.99
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["small.onnx"]


def test_a_model_in_every_form_gives_the_same_bytes(model: Path, arrays: dict[str, Any]) -> None:
    content = model.read_bytes()
    forms: list[Any] = [model, str(model), content, bytearray(content), memoryview(content), onnx.load(model)]
    results = {msq_onnx.quantize(form, arrays, samples=32).model_bytes for form in forms}
    assert len(results) == 1
    assert None not in results


def test_the_result_in_memory_is_the_file(model: Path, arrays: dict[str, Any], tmp_path: Path) -> None:
    in_memory = msq_onnx.quantize(model, arrays, weight_bits=4)
    on_disk = msq_onnx.quantize(model, arrays, weight_bits=4, output=tmp_path / "small.onnx")
    assert in_memory.model_bytes == (tmp_path / "small.onnx").read_bytes()
    assert in_memory.output is None
    loaded = in_memory.load_model()
    onnx.checker.check_model(loaded)
    assert loaded == on_disk.load_model()


def test_without_data_inputs_are_synthetic(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    report = msq_onnx.quantize(model)
    assert report.synthetic
    assert any("no calibration data" in record.message for record in caplog.records if record.name == "msq_onnx")


def test_reports_are_frozen_typed_and_keep_the_document(model: Path, arrays: dict[str, Any]) -> None:
    report = msq_onnx.quantize(model, arrays, weight_bits="ternary", samples=64)
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.bytes = 0  # type: ignore[misc]
    assert report.layers[1].weight_bits == "ternary"
    assert report.layers[0].shape == (24, 1, 3, 3)
    assert report.options.prepare.batch_norm == "fold"
    assert report.options.scheme.keep_float == ()
    assert report.raw["layers"][0]["shape"] == [24, 1, 3, 3]
    json.dumps(report.raw)


def test_a_notebook_shows_a_table_or_the_page(model: Path, arrays: dict[str, Any], tmp_path: Path) -> None:
    table = msq_onnx.quantize(model, arrays, samples=32)._repr_html_()
    assert "<table>" in table
    assert "res.conv1.conv" in table
    page = msq_onnx.quantize(model, arrays, samples=32, report=True)
    assert page.html is not None
    assert "<html" in page.html
    assert page._repr_html_().startswith("<iframe srcdoc=")
    path = tmp_path / "page.html"
    assert msq_onnx.quantize(model, arrays, samples=32, report=path).html == path.read_text(encoding="utf-8")


def test_lists_flags_and_numbers_become_arguments(model: Path, arrays: dict[str, Any]) -> None:
    report = msq_onnx.quantize(
        model, arrays, skip=["stem.conv"], keep_float="MaxPool", half_scales=True, no_repair=False, seed=np.int64(3)
    )
    assert report.seed == 3
    assert report.options.output.half_scales
    assert report.options.repair.repair
    assert [layer.name for layer in report.float_layers] == ["stem.conv"]


def test_a_plan_of_one_run_is_carried_out_by_another(model: Path, arrays: dict[str, Any]) -> None:
    first = msq_onnx.quantize(model, arrays, weight_bits=4, samples=64)
    second = msq_onnx.quantize(model, arrays, plan=first.raw["plan"], samples=64)
    assert [layer.weight_bits for layer in second.layers] == [layer.weight_bits for layer in first.layers]


def test_search(model: Path, arrays: dict[str, Any], tmp_path: Path) -> None:
    found = msq_onnx.search(model, arrays, target_bits=3, search="ilp", samples=128, output=tmp_path / "found.json")
    assert found.reached
    assert found.bits <= 3
    assert found.front
    assert json.loads((tmp_path / "found.json").read_text())["bits"] == found.bits
    small = msq_onnx.quantize(model, arrays, plan=found.raw["plan"], samples=128)
    assert small.bytes < 25_000


def test_evaluate(model: Path, arrays: dict[str, Any], held_out: Path) -> None:
    small = msq_onnx.quantize(model, arrays).model_bytes
    assert small is not None
    alone = msq_onnx.evaluate(small, held_out)
    assert alone.accuracy is not None
    assert alone.accuracy > 0.98
    beside = msq_onnx.evaluate(small, held_out, reference=model.read_bytes(), samples=100)
    assert beside.samples == 100
    assert beside.agreement is not None
    assert beside.agreement.same_argmax is not None
    assert beside.agreement.same_argmax > 0.95
    assert beside.values


def test_labels_may_be_an_array(model: Path, arrays: dict[str, Any]) -> None:
    report = msq_onnx.evaluate(model, arrays["image"], labels=arrays["label"])
    assert report.accuracy is not None
    assert report.accuracy > 0.99
    wrong = msq_onnx.evaluate(model, arrays["image"], labels=(arrays["label"] + 1) % 10)
    assert wrong.accuracy is not None
    assert wrong.accuracy < 0.05


def test_compare(model: Path, arrays: dict[str, Any]) -> None:
    small = msq_onnx.quantize(model, arrays, weight_bits=3).model_bytes
    assert small is not None
    report = msq_onnx.compare(onnx.load(model), small, arrays, samples=64)
    assert len(report.layers) == 10
    assert report.samples == 64


def test_inspect(model: Path) -> None:
    report = msq_onnx.inspect(model)
    assert [value.name for value in report.inputs] == ["image"]
    assert len(report.layers) == 10
    assert report.opset == 17


def test_lint(model: Path, arrays: dict[str, Any]) -> None:
    small = msq_onnx.quantize(model, arrays, samples=32).model_bytes
    assert small is not None
    assert msq_onnx.lint(small).errors == 0
    # Findings that are errors raise nothing.
    tensorrt = msq_onnx.lint(small, profile="tensorrt")
    assert tensorrt.errors > 0
    assert {finding.severity for finding in tensorrt.findings} <= {"error", "warning"}


def test_the_log_goes_to_a_logger(model: Path, arrays: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "msq_onnx"):
        msq_onnx.quantize(model, arrays, samples=32, verbose=2)
    passes = [record for record in caplog.records if 'pass="fold-constants"' in record.message]
    assert passes
    assert passes[0].levelname == "DEBUG"
