"""Make float ONNX models small and fast without retraining.

Every function runs the command ``msq-onnx`` in a process of its own and reads its JSON report. Keyword options are the
long flags of the command with underscores: ``weight_bits=4`` is ``--weight-bits 4``, ``functions=True`` is
``--functions``, ``repair=False`` is ``--no-repair``, and a list repeats the flag. ``msq-onnx --help`` lists them.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from ._command import binary, run
from ._data import Data, Model, write_data, write_model
from ._errors import DataError, Error, ModelError, TargetError, UsageError
from ._metric import Metric, serving
from ._reports import Comparison, Evaluation, Inspection, Lint, Report, Search

__all__ = [
    "Comparison",
    "Data",
    "DataError",
    "Error",
    "Evaluation",
    "Inspection",
    "Lint",
    "Metric",
    "Model",
    "ModelError",
    "Report",
    "Search",
    "TargetError",
    "UsageError",
    "binary",
    "compare",
    "evaluate",
    "inspect",
    "lint",
    "quantize",
    "search",
]


def quantize(
    model: Model,
    data: Data | None = None,
    *,
    output: str | os.PathLike[str] | None = None,
    metric: Metric | None = None,
    **options: Any,
) -> Report:
    """Quantize a float model.

    ``model`` is a path, the bytes of a file, or an ``onnx.ModelProto``.

    ``data`` are samples without labels, see :data:`msq_onnx.Data`: arrays whose first axis counts samples, an iterable of
    feeds (name to array, with the batch axis, as onnxruntime takes them; lengths may differ), an onnxruntime
    ``CalibrationDataReader``, a path, or ``None`` for random samples.

    ``output`` is the file to write. Without it the bytes are in ``Report.model``.

    ``metric`` judges the outputs of all samples, by name with the first axis counting samples; more is better.

    Raises :class:`UsageError` for options that do not exist or do not fit, :class:`ModelError`, :class:`DataError`, and
    :class:`TargetError` where a target such as ``target_size`` is out of reach; its ``report`` is that of the nearest model.
    """
    with tempfile.TemporaryDirectory(prefix="msq-onnx-") as name, serving(metric) as served:
        folder = Path(name)
        path = Path(output) if output is not None else folder / "out.onnx"
        arguments = [write_model(model, folder, "in.onnx"), "-o", str(path), *write_data(data, folder, "--calib"), *served]
        try:
            document = run(arguments, options)
        except TargetError as error:
            if error.document is not None:
                error.report = Report.of(error.document, path, output is None)
            raise
        return Report.of(document, path, output is None)


def search(model: Model, data: Data, *, metric: Metric | None = None, **options: Any) -> Search:
    """Choose the bits of each layer for a target, such as ``target_bits=3`` or ``max_drop=1``, without writing a model.

    ``Search.plan`` is the plan found; :func:`quantize` takes it as a file (``plan=``), and takes the same targets itself.
    """
    with tempfile.TemporaryDirectory(prefix="msq-onnx-") as name, serving(metric) as served:
        folder = Path(name)
        arguments = ["search", write_model(model, folder, "in.onnx"), *write_data(data, folder, "--calib"), *served]
        return Search(run(arguments, options))


def evaluate(model: Model, data: Data, *, metric: Metric | None = None, **options: Any) -> Evaluation:
    """Accuracy of a model on data with labels (an array ``y``, ``label`` or ``labels`` beside the inputs)."""
    with tempfile.TemporaryDirectory(prefix="msq-onnx-") as name, serving(metric) as served:
        folder = Path(name)
        arguments = ["evaluate", write_model(model, folder, "in.onnx"), *write_data(data, folder, "--calib"), *served]
        return Evaluation(run(arguments, options))


def compare(reference: Model, model: Model, data: Data | None = None, **options: Any) -> Comparison:
    """How far a model's outputs are from those of its float model, and the layer where the error starts."""
    with tempfile.TemporaryDirectory(prefix="msq-onnx-") as name:
        folder = Path(name)
        models = [write_model(reference, folder, "reference.onnx"), write_model(model, folder, "model.onnx")]
        return Comparison(run(["compare", *models, *write_data(data, folder, "--calib")], options))


def inspect(model: Model, **options: Any) -> Inspection:
    """Layers, shapes, bits and bytes of a model."""
    with tempfile.TemporaryDirectory(prefix="msq-onnx-") as name:
        return Inspection(run(["inspect", write_model(model, Path(name), "in.onnx")], options))


def lint(model: Model, **options: Any) -> Lint:
    """What a target (``profile="ort-cpu"``) will not run on integers, or not at all. Findings are no exception."""
    with tempfile.TemporaryDirectory(prefix="msq-onnx-") as name:
        return Lint(run(["lint", write_model(model, Path(name), "in.onnx")], options, accept=(0, 1)))
