"""Quantizes ONNX models to 1 to 8 bits.

    import msq_onnx

    report = msq_onnx.quantize("model.onnx", data, output="small.onnx", weight_bits=4)

Each function runs the command line `msq-onnx`, which is installed with this module, and returns what it reports.
Options have the names of its long flags. Log lines go to the logger `msq_onnx`; `verbose=1` gives more of them.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from ._errors import DataError, Error, InterruptedRun, ModelError, RunError, TargetError, UsageError
from ._functions import calibrate, compare, evaluate, inspect, lint, measure, quantize, search
from ._reports import CompareReport, EvaluateReport, InspectReport, LintReport, Report, SearchReport
from ._sweep import Sweep, SweepRun, sweep
from ._types import CalibrationDataReader, Data, Metric, Model, PathLike, Progress

try:
    __version__ = version("msq-onnx")
except PackageNotFoundError:
    # The folder is on the path without being installed, as it is for the tests.
    __version__ = "0"

for _kind in (Error, RunError, UsageError, ModelError, DataError, TargetError, InterruptedRun):
    # Tracebacks name them as they are caught.
    _kind.__module__ = __name__

__all__ = [
    "CalibrationDataReader",
    "CompareReport",
    "Data",
    "DataError",
    "Error",
    "EvaluateReport",
    "InspectReport",
    "InterruptedRun",
    "LintReport",
    "Metric",
    "Model",
    "ModelError",
    "PathLike",
    "Progress",
    "Report",
    "RunError",
    "SearchReport",
    "Sweep",
    "SweepRun",
    "TargetError",
    "UsageError",
    "calibrate",
    "compare",
    "evaluate",
    "inspect",
    "lint",
    "measure",
    "quantize",
    "search",
    "sweep",
]
