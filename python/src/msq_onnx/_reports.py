"""What the command reports, as objects. ``document`` is the whole JSON document; ``msq-onnx schema`` describes it."""

from __future__ import annotations

import html
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class _Document:
    document: dict[str, Any]

    def __getitem__(self, key: str) -> Any:
        """A field of the document."""
        return self.document[key]


@dataclass(frozen=True)
class Report(_Document):
    """A quantized model. ``path`` is its file; ``model`` its bytes where no file was asked for."""

    path: Path | None
    model: bytes | None

    @classmethod
    def of(cls, document: dict[str, Any], path: Path, keep: bool) -> Report:
        """The report of a file; with ``keep`` its bytes are taken over."""
        return cls(document, None, path.read_bytes()) if keep else cls(document, path, None)

    @property
    def bytes(self) -> int:
        """Size of the file."""
        return int(self.document["bytes"])

    @property
    def float_bytes(self) -> int:
        """Size of the float model's file."""
        return int(self.document["float_bytes"])

    @property
    def layers(self) -> list[dict[str, Any]]:
        """Name, bits, bytes and error of every quantized layer."""
        return list(self.document["layers"])

    @property
    def plan(self) -> dict[str, Any]:
        """The bit plan, which ``plan=`` takes as a file."""
        return dict(self.document["plan"])

    @property
    def seconds(self) -> float:
        """How long it took."""
        return float(self.document["seconds"])

    def _repr_html_(self) -> str:
        """A table for notebooks."""
        keys = [key for key in ("name", "weights", "activations", "bytes", "sqnr") if self.layers and key in self.layers[0]]

        def cell(value: object) -> str:
            return html.escape(f"{value:.1f}" if isinstance(value, float) else str(value))

        rows = "".join(
            "<tr>" + "".join(f"<td>{cell(layer.get(key))}</td>" for key in keys) + "</tr>" for layer in self.layers
        )
        head = "".join(f"<th>{key}</th>" for key in keys)
        ratio = self.float_bytes / max(self.bytes, 1)
        return (
            f"<p>{self.bytes:,} bytes, {ratio:.2f} times smaller, {self.seconds:.1f} s</p>"
            f"<table><tr>{head}</tr>{rows}</table>"
        )


@dataclass(frozen=True)
class Search(_Document):
    """What a search found."""

    @property
    def plan(self) -> dict[str, Any]:
        """The bit plan, which ``plan=`` takes as a file."""
        return dict(self.document["plan"])


@dataclass(frozen=True)
class Evaluation(_Document):
    """How good a model is on data with labels."""

    @property
    def accuracy(self) -> float | None:
        """The share of samples whose largest output is the label; ``None`` without labels."""
        accuracy = self.document.get("accuracy")
        return None if accuracy is None else float(accuracy)


@dataclass(frozen=True)
class Comparison(_Document):
    """How far two models are apart."""


@dataclass(frozen=True)
class Inspection(_Document):
    """What a model is made of."""

    @property
    def layers(self) -> list[dict[str, Any]]:
        """Name, shape, bits and bytes of every layer."""
        return list(self.document["layers"])


@dataclass(frozen=True)
class Lint(_Document):
    """What a target does not like about a model."""

    @property
    def findings(self) -> list[dict[str, Any]]:
        """Rule, severity, node and remedy of every finding."""
        return list(self.document["findings"])
