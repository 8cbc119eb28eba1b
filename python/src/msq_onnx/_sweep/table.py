"""The table of a sweep: figures of each run, as CSV and as text.

Files hold no times and no paths of the machine, so that a sweep in several goes gives the same bytes.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .._errors import TargetError

#: Columns behind those of options.
FIGURES = (
    "state",
    "exit_code",
    "message",
    "float_bytes",
    "bytes",
    "ratio",
    "bits",
    "float_accuracy",
    "accuracy",
    "float_metric",
    "metric",
    "agreement",
    "lost",
    "sqnr",
    "measured",
    "measured_on",
    "file",
)


def figures(document: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of a run by their columns; None where it has none."""
    code = document["exit_code"]
    found: dict[str, Any] = dict.fromkeys(FIGURES)
    found |= {"exit_code": code, "message": document["message"]}
    found["state"] = {0: "done", TargetError.exit_code: "missed"}.get(code, "failed")
    found["file"] = next((file for file in document["files"] if file.endswith(".onnx")), None)
    report = document["report"]
    if report and document["command"] == "search":
        found |= _of_search(report)
    elif report:
        found |= _of_model(report)
        if document["judged"]:
            found |= _of_evaluation(document["judged"]) | {"measured_on": document["judge"]}
    return found


def _of_model(report: Mapping[str, Any]) -> dict[str, Any]:
    weights = sum(layer["weights"] for layer in report["layers"])
    stored = sum(layer["bytes"] for layer in report["layers"])
    found = {
        "float_bytes": report["float_bytes"],
        "bytes": report["bytes"],
        "ratio": report["float_bytes"] / report["bytes"],
        "bits": 8 * stored / weights if weights else None,
    }
    quality = report["quality"]
    if quality:
        found |= _agreement(quality)
        found |= {key: quality.get(key) for key in ("accuracy", "float_accuracy", "metric", "float_metric", "lost")}
        where = "calibration data" if not quality["held_out"] else "calibration data, held out"
        found |= {"measured": quality["samples"], "measured_on": "synthetic data" if report["synthetic"] else where}
    return found


def _of_evaluation(judged: Mapping[str, Any]) -> dict[str, Any]:
    return _agreement(judged) | {
        "accuracy": judged["accuracy"],
        "float_accuracy": judged["reference_accuracy"],
        "metric": judged.get("metric"),
        "float_metric": judged.get("reference_metric"),
        "lost": judged["lost"],
        "measured": judged["samples"],
    }


def _of_search(report: Mapping[str, Any]) -> dict[str, Any]:
    verdict, of_float = report["verdict"], report["float"]
    return {
        "bytes": report["bytes"],
        "bits": report["bits"],
        "accuracy": verdict.get("accuracy"),
        "float_accuracy": of_float.get("accuracy"),
        "metric": verdict.get("metric"),
        "float_metric": of_float.get("metric"),
        "agreement": verdict.get("agreement"),
        "lost": verdict.get("lost"),
        "measured": report["samples"][1],
        "measured_on": "calibration data, held out",
    }


def _agreement(measured: Mapping[str, Any]) -> dict[str, Any]:
    agreement = measured.get("agreement") or {}
    return {"agreement": agreement.get("same_argmax"), "sqnr": agreement.get("sqnr")}


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """The table as CSV: full precision, empty where there is no figure."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow(["" if row.get(column) is None else row[column] for column in columns])
    return out.getvalue()


def shown(column: str, value: Any) -> str:
    """A cell as people read it."""
    if value is None:
        return ""
    if column in ("accuracy", "float_accuracy", "agreement", "lost"):
        return f"{100 * value:.2f} %"
    if column in ("bytes", "float_bytes"):
        return size_text(value)
    if column == "ratio":
        return f"{value:.2f} ×"
    if column in ("bits", "metric", "float_metric"):
        return f"{value:.4g}" if column != "bits" else f"{value:.2f}"
    if column == "sqnr":
        return f"{value:.1f} dB"
    if column == "seconds":
        return f"{value:.1f} s"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def size_text(size: int) -> str:
    """Bytes in the largest unit that leaves a digit before the point."""
    value = float(size)
    for unit in ("B", "KB", "MB"):
        if value < 1000:
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.2f} GB"


def text_table(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """The table as text, with the columns that have anything in them."""
    cells = [[shown(column, row.get(column)) for column in columns] for row in rows]
    used = [at for at in range(len(columns)) if any(line[at] for line in cells)]
    head = [columns[at].replace("_", " ") for at in used]
    lines = [head, *([line[at] for at in used] for line in cells)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(used))]
    text_columns = ("model", "data", "setting", "state", "message", "measured_on")
    right = [columns[at] not in text_columns for at in used]
    text = [
        "  ".join(
            cell.rjust(width) if at_right else cell.ljust(width)
            for cell, width, at_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in lines
    ]
    return "\n".join(text) + "\n"
