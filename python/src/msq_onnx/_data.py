"""Models and samples as files that the command reads."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, Union

import numpy as np


class _Reader(Protocol):
    """onnxruntime's ``CalibrationDataReader``."""

    def get_next(self) -> Mapping[str, Any] | None: ...


class _Proto(Protocol):
    """``onnx.ModelProto``."""

    def SerializeToString(self) -> bytes: ...


Model = Union[str, "os.PathLike[str]", bytes, _Proto]
"""A path, the bytes of a file, or an ``onnx.ModelProto``."""

Data = Union[str, "os.PathLike[str]", "np.ndarray[Any, Any]", Mapping[str, Any], Iterable[Any], _Reader]
"""Samples: a path, an array or a mapping from names to arrays whose first axis counts samples, an iterable of feeds
(mappings from input names to arrays, with the batch axis), or a ``CalibrationDataReader``."""

# Of onnx.TensorProto.
TYPES = {
    "float32": 1, "uint8": 2, "int8": 3, "uint16": 4, "int16": 5, "int32": 6, "int64": 7, "bool": 9, "float16": 10,
    "float64": 11, "uint32": 12, "uint64": 13,
}  # fmt: skip


def write_model(model: Model, folder: Path, name: str) -> str:
    """The path of a model."""
    if isinstance(model, (str, os.PathLike)):
        return os.fspath(model)
    content = model if isinstance(model, bytes) else model.SerializeToString()
    path = folder / name
    path.write_bytes(content)
    return str(path)


def write_data(data: Data | None, folder: Path, flag: str) -> list[str]:
    """The arguments that name the data."""
    if data is None:
        return []
    if isinstance(data, (str, os.PathLike)):
        return [flag, os.fspath(data)]
    if isinstance(data, np.ndarray):
        path = folder / "samples.npy"
        np.save(path, data)
        return [flag, str(path)]
    if isinstance(data, Mapping):
        path = folder / "samples.npz"
        arrays: dict[str, Any] = {str(name): np.asarray(array) for name, array in data.items()}
        np.savez(path, **arrays)
        return [flag, str(path)]
    path = folder / "samples"
    path.mkdir()
    for at, feed in enumerate(_feeds(data)):
        _write_feed(path / f"test_data_set_{at}", feed)
    return [flag, str(path)]


def _feeds(data: Any) -> Iterator[Mapping[str, Any]]:
    """One feed after the other: none is kept."""
    if not hasattr(data, "get_next"):
        yield from data
        return
    while (feed := data.get_next()) is not None:
        yield feed


def _write_feed(folder: Path, feed: Any) -> None:
    if not isinstance(feed, Mapping):
        raise TypeError(f"a sample is a mapping from input names to arrays, not a {type(feed).__name__}")
    folder.mkdir()
    for at, (name, array) in enumerate(feed.items()):
        (folder / f"input_{at}.pb").write_bytes(tensor(name, np.asarray(array)))


def _varint(number: int) -> bytes:
    parts = []
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*parts, number])


def tensor(name: str, array: np.ndarray[Any, Any]) -> bytes:
    """An ``onnx.TensorProto``: dims (field 1), data_type (2), name (8), raw_data (9, little-endian)."""
    kind = TYPES.get(array.dtype.name)
    if kind is None:
        raise TypeError(f"array `{name}` has the type {array.dtype}, which no input of a model has")
    raw = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).tobytes()
    dims = b"".join(b"\x08" + _varint(length) for length in array.shape)
    text = name.encode()
    return dims + b"\x10" + _varint(kind) + b"\x42" + _varint(len(text)) + text + b"\x4a" + _varint(len(raw)) + raw
