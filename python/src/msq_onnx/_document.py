"""What the classes of all reports share: reading JSON, and a page or table for notebooks."""

from __future__ import annotations

import dataclasses
import html
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from ._errors import RunError

if TYPE_CHECKING:
    import onnx

T = TypeVar("T")

_MOST_ROWS = 100


@dataclass(frozen=True, kw_only=True)
class Document:
    """What every report has.

    Attributes:
        raw: the document as `--json` prints it.
        html: the page that `report=True` or `report=PATH` asks for.
        model_bytes: the quantized model, where `quantize` was given no `output`.
    """

    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    html: str | None = field(default=None, repr=False, compare=False)
    model_bytes: bytes | None = field(default=None, repr=False, compare=False)

    def load_model(self) -> onnx.ModelProto:
        """The written model as an `onnx.ModelProto`; needs the package `onnx`.

        Raises:
            RunError: the run wrote no model.
        """
        import onnx

        if self.model_bytes is not None:
            return onnx.load_model_from_string(self.model_bytes)
        output = self.raw.get("output")
        if not output or not str(output).endswith(".onnx"):
            raise RunError("this run wrote no model")
        return onnx.load(output)

    def _repr_html_(self) -> str:
        if self.html is not None:
            page = html.escape(self.html, quote=True)
            return f'<iframe srcdoc="{page}" style="width: 100%; height: 40em; border: 1px solid #ccc"></iframe>'
        return _tables(self.raw)


def from_json(kind: type[T], document: Mapping[str, Any], **own: Any) -> T:
    """A dataclass from an object of JSON.

    Keys that the class does not know are left out, so that a newer binary of the same `schema_version` can be read.
    """
    values: dict[str, Any] = {}
    for each in dataclasses.fields(cast(Any, kind)):
        key = each.metadata.get("key", each.name)
        if key in document and each.name not in Document.__dataclass_fields__:
            values[each.name] = _value(_hints(cast(Any, kind))[each.name], document[key])
    return kind(**values, **own)


@cache
def _hints(kind: type[Any]) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _value(kind: Any, value: Any) -> Any:
    if isinstance(value, Mapping):
        kinds = _members(kind)
        for each in kinds:
            if dataclasses.is_dataclass(each):
                return from_json(cast(type[Any], each), value)
        of = next((typing.get_args(each)[1] for each in kinds if typing.get_origin(each) is Mapping), Any)
        return {name: _value(of, each) for name, each in value.items()}
    if isinstance(value, list):
        items = next((typing.get_args(each) for each in _members(kind) if typing.get_origin(each) is tuple), (Any, ...))
        same = len(items) == 2 and items[1] is ...
        return tuple(_value(items[0] if same else items[at], each) for at, each in enumerate(value))
    return value


def _members(kind: Any) -> tuple[Any, ...]:
    # Mapping of collections.abc is what annotations name.
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return typing.get_args(kind)
    return (kind,)


def missed_target(document: Mapping[str, Any]) -> str:
    """What a run that missed its target says: the command line has it in the document rather than on stderr."""
    found = document.get("search") or document
    nearest = found.get("nearest") or "another plan"
    return f"the target is out of reach: {found['target']}; the nearest is {nearest}"


def _tables(document: Mapping[str, Any]) -> str:
    """Single values in one table, each list of objects in one of its own."""
    single = {key: value for key, value in document.items() if not isinstance(value, (list, Mapping))}
    parts = ["<table>", *(f"<tr><th>{_text(key)}</th><td>{_text(value)}</td></tr>" for key, value in single.items())]
    parts.append("</table>")
    for key, value in document.items():
        if isinstance(value, list) and value and all(isinstance(each, Mapping) for each in value):
            parts += _table(key, value)
    return "".join(parts)


def _table(name: str, records: list[Mapping[str, Any]]) -> list[str]:
    columns = [key for key, value in records[0].items() if not isinstance(value, Mapping)]
    rows = [[_text(record.get(column)) for column in columns] for record in records[:_MOST_ROWS]]
    left = f" (first {_MOST_ROWS})" if len(records) > _MOST_ROWS else ""
    head = "".join(f"<th>{_text(column)}</th>" for column in columns)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    title = f"<summary>{_text(name)}: {len(records)}{left}</summary>"
    return [f"<details open>{title}<table><tr>{head}</tr>{body}</table></details>"]


def _text(value: Any) -> str:
    if isinstance(value, float):
        value = f"{value:.4g}"
    elif isinstance(value, list):
        sign = "×" if all(isinstance(each, int) for each in value) else ", "
        value = sign.join(map(str, value))
    return "" if value is None else html.escape(str(value))


def read_page(path: Path) -> str | None:
    """A page that a run wrote, if it did."""
    return path.read_text(encoding="utf-8") if path.is_file() else None
