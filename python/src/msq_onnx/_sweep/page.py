"""The table of a sweep as a page: one file, to sort and to filter."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .table import FIGURES, shown

_TEMPLATE = Path(__file__).with_name("page.html")
_LEFT = ("model", "data", "setting")
#: Columns of the CSV that the page says in another way, or not.
_NOT_SHOWN = ("exit_code", "message", "float_bytes", "measured", "file")
_FIGURES = tuple(name for name in FIGURES if name not in _NOT_SHOWN)
#: What columns are called.
_TITLES = {
    "bytes": "size",
    "bits": "bits/weight",
    "float_accuracy": "float accuracy",
    "float_metric": "float metric",
    "measured_on": "measured on",
}


def page(title: str, version: str, chosen: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """The page.

    Args:
        title: the name of the plan.
        version: of the binary.
        chosen: options of which settings give several values; each has a column.
        rows: cells by column, with `short_setting`, the options that have no column in `fixed`, and `document`, the
            path of the JSON document beside the page.
    """
    several_data = any(len({row["data"] for row in rows if row["model"] == model}) > 1 for model in _models(rows))
    columns = [column for column in (*_LEFT, *chosen, *_FIGURES) if column != "data" or several_data]
    columns = [column for column in columns if any(row.get(column) not in (None, "") for row in rows)]
    states = [row["state"] for row in rows]
    tiles = [("runs", len(rows)), ("models", len(_models(rows)))]
    tiles += [(name, states.count(state)) for name, state in (("missed the target", "missed"), ("failed", "failed"))]
    parts = {
        "title": html.escape(title),
        "version": html.escape(version),
        "tiles": "".join(f"<div><dt>{name}</dt><dd><b>{count}</b></dd></div>" for name, count in tiles),
        "head": "".join(_heading(column, chosen) for column in columns),
        "body": "\n".join(_row(columns, chosen, row) for row in rows),
        "count": str(len(rows)),
    }
    text = _TEMPLATE.read_text(encoding="utf-8")
    for name, value in parts.items():
        text = text.replace(f"<!--{name}-->", value)
    return text


def _models(rows: Sequence[Mapping[str, Any]]) -> set[str]:
    return {row["model"] for row in rows}


def _heading(column: str, chosen: Sequence[str]) -> str:
    title = html.escape(_TITLES.get(column, column))
    return f'<th scope="col" class="{_kind(column, chosen)}"><button type="button">{title}</button></th>'


def _row(columns: Sequence[str], chosen: Sequence[str], row: Mapping[str, Any]) -> str:
    cells = []
    for column in columns:
        value = row.get(column)
        key = "" if value is None else html.escape(str(value))
        cells.append(f'<td class="{_kind(column, chosen)}" data-key="{key}">{_content(column, row)}</td>')
    return f'<tr class="{row["state"]}">{"".join(cells)}</tr>'


def _content(column: str, row: Mapping[str, Any]) -> str:
    text = html.escape(shown(column, row.get(column)))
    if column == "setting":
        fixed = f"<small>{html.escape(row['fixed'])}</small>" if row["fixed"] else ""
        return f'<a href="{quote(row["document"])}">{html.escape(row["short_setting"])}</a>{fixed}'
    if column == "bytes" and row.get("file"):
        return f'<a href="{quote(row["file"])}">{text}</a>'
    if column == "measured_on" and text:
        return f"{row['measured']} of {text}"
    if column == "state" and row["exit_code"]:
        message = html.escape(row["message"])
        return f"{text}, exit code {row['exit_code']}<small>{message}</small>"
    return text


def _kind(column: str, chosen: Sequence[str]) -> str:
    text = column in (*_LEFT, "measured_on", "state") or column in chosen
    return f"text {column}" if text else "number"
