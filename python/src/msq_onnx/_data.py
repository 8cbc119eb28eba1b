"""Samples in the forms that Python has them in, written to files that the binary reads.

A feed is what a session gets at once: arrays by the name of the input. Where the arrays of a feed share their first
axis, its rows are samples; otherwise, or with `batched=False`, the feed is one sample as it stands. Feeds are written
as they come, one at a time. Rows of equal shapes become the rows of one array per input (`.npy`, `.npz`), others one
folder of tensors per sample (`test_data_set_N/input_K.pb`).
"""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import ArrayLike

from ._errors import DataError

Array = np.ndarray[Any, Any]

#: Arrays that hold labels, by the names that the binary knows.
_LABELS = ("y", "label", "labels")
#: Bytes before the elements of an `.npy`, a multiple of 64; its shape is known once all rows are.
_HEADER_BYTES = 256
_UNNAMED = ""
#: Numbers of `TensorProto.DataType`.
_ONNX_TYPES = {
    "float32": 1,
    "uint8": 2,
    "int8": 3,
    "uint16": 4,
    "int16": 5,
    "int32": 6,
    "int64": 7,
    "bool": 9,
    "float16": 10,
    "float64": 11,
    "uint32": 12,
    "uint64": 13,
}


@dataclass(frozen=True)
class Stored:
    """Data that the binary can read.

    Attributes:
        path: of the data.
        labels: of its labels, where they are not part of it.
    """

    path: Path
    labels: Path | None = None


def store(data: Any, folder: Path, *, batched: bool = True, samples: int | None = None) -> Stored:
    """Writes data into a folder; a path is taken as it is.

    Args:
        data: a path, an array or a mapping from names to arrays whose first axis counts samples, an object with
            `get_next()`, or an iterable of feeds: mappings from names to arrays, or arrays for a model with one input.
        folder: where to, a new one.
        batched: whether rows of a feed are samples.
        samples: draw no more than this many from an iterable.

    Raises:
        DataError: there are no samples, or feeds have different names, types or element types that ONNX has not.
    """
    if isinstance(data, (str, os.PathLike)):
        return Stored(Path(data))
    folder.mkdir()
    if isinstance(data, Mapping):
        return _store_arrays({str(name): _array(name, value) for name, value in data.items()}, folder)
    if hasattr(data, "get_next"):
        return _store_feeds(iter(data.get_next, None), folder, batched, samples)
    if hasattr(data, "__array__"):
        return _store_array(_array(_UNNAMED, data), folder)
    if isinstance(data, Iterable):
        return _store_feeds(data, folder, batched, samples)
    raise DataError(
        f"data is of type `{type(data).__name__}`; expected a path, an array, a mapping from names to arrays, an "
        "iterable of such mappings, or an object with `get_next()`"
    )


def store_labels(labels: str | os.PathLike[str] | ArrayLike, folder: Path, name: str) -> Path:
    """The path of labels, which are written if they are no path: one whole number per sample."""
    if isinstance(labels, (str, os.PathLike)):
        return Path(labels)
    path = folder / f"{name}.npy"
    np.save(path, np.asarray(labels))
    return path


def _store_array(array: Array, folder: Path) -> Stored:
    np.save(folder / "data.npy", array)
    return Stored(folder / "data.npy")


def _store_arrays(arrays: Mapping[str, Array], folder: Path) -> Stored:
    if not arrays:
        raise DataError("data is an empty mapping; expected arrays by the names of inputs")
    path = folder / "data.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)
    return Stored(path)


def _array(name: object, value: Any) -> Array:
    array: Array = np.asarray(value)
    if array.dtype.name not in _ONNX_TYPES:
        of = f"array `{name}`" if name else "an array"
        raise DataError(f"{of} has elements of type `{array.dtype}`, which no input can have")
    # Elements are written in the byte order of x86 and ARM.
    return array.astype(array.dtype.newbyteorder("<"), copy=False)


def _store_feeds(feeds: Iterable[Any], folder: Path, batched: bool, samples: int | None) -> Stored:
    spool: dict[str, _Column] = {}
    rows_only = True
    count = 0
    try:
        for feed in _named(feeds):
            if not spool:
                spool = {name: _Column.new(folder, number, array) for number, (name, array) in enumerate(feed.items())}
            if feed.keys() != spool.keys():
                has, had = (", ".join(f"`{name}`" for name in names) for names in (feed, spool))
                raise DataError(f"sample {count} has arrays {has}; the first has {had}")
            rows = _rows(feed) if batched else None
            rows_only = rows_only and rows is not None
            if samples is not None and rows is not None:
                rows = min(rows, samples - count)
            for name, array in feed.items():
                spool[name].append(name, array, rows)
            count += 1 if rows is None else rows
            if samples is not None and count >= samples:
                break
        if not count:
            raise DataError("data has no samples: the iterable ends before its first one")
    finally:
        for column in spool.values():
            column.close()
    if rows_only and all(column.is_uniform() for column in spool.values()):
        return _store_columns(spool, count, folder)
    return _store_tensors(spool, count, folder)


def _named(feeds: Iterable[Any]) -> Iterator[dict[str, Array]]:
    for feed in feeds:
        if isinstance(feed, Mapping):
            if not feed:
                raise DataError("a feed is an empty mapping; expected arrays by the names of inputs")
            yield {str(name): _array(name, value) for name, value in feed.items()}
        elif hasattr(feed, "__array__"):
            yield {_UNNAMED: _array(_UNNAMED, feed)}
        else:
            raise DataError(
                f"an item of the data is of type `{type(feed).__name__}`; expected a mapping from names of inputs to "
                "arrays, or an array"
            )


def _rows(feed: Mapping[str, Array]) -> int | None:
    """Rows that all arrays have, if that is the same number, and not zero."""
    counts = {array.shape[0] if array.ndim else 0 for array in feed.values()}
    return counts.pop() or None if len(counts) == 1 else None


@dataclass
class _Column:
    """The values of one input, sample behind sample, in an `.npy` whose header is written last."""

    path: Path
    file: IO[bytes]
    dtype: np.dtype[Any]
    shapes: list[tuple[int, ...]] = field(default_factory=list)

    @classmethod
    def new(cls, folder: Path, number: int, array: Array) -> _Column:
        path = folder / f"column_{number}.npy"
        file = path.open("w+b")
        file.write(b" " * _HEADER_BYTES)
        return cls(path, file, array.dtype)

    def append(self, name: str, array: Array, rows: int | None) -> None:
        """Adds the first rows as a sample each, or all as one sample where `rows` is none."""
        if array.dtype != self.dtype:
            of = f"array `{name}`" if name else "the data"
            raise DataError(f"{of} has elements of type `{array.dtype}` and of type `{self.dtype}`")
        if rows is not None:
            array = array[:rows]
        self.shapes += [array.shape] if rows is None else [(1, *array.shape[1:])] * rows
        np.ascontiguousarray(array).tofile(self.file)

    def close(self) -> None:
        self.file.close()

    def is_uniform(self) -> bool:
        return len(set(self.shapes)) == 1

    def write_header(self, rows: int) -> None:
        """Makes the file an `.npy` of that many rows."""
        shape = (rows, *self.shapes[0][1:])
        text = repr({"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False, "shape": shape})
        # Magic number, version 1.0, and two bytes for the length of the text, which ends in a line feed.
        start = b"\x93NUMPY\x01\x00" + (_HEADER_BYTES - 10).to_bytes(2, "little")
        with self.path.open("r+b") as file:
            file.write(start + text.encode("ascii").ljust(_HEADER_BYTES - 11) + b"\n")

    def samples(self) -> Iterator[Array]:
        """Reads the samples back, one at a time."""
        with self.path.open("rb") as file:
            file.seek(_HEADER_BYTES)
            for shape in self.shapes:
                yield np.fromfile(file, self.dtype, math.prod(shape)).reshape(shape)


def _store_columns(spool: Mapping[str, _Column], rows: int, folder: Path) -> Stored:
    for column in spool.values():
        column.write_header(rows)
    if len(spool) == 1:
        return Stored(next(iter(spool.values())).path.rename(folder / "data.npy"))
    path = folder / "data.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, column in spool.items():
            archive.write(column.path, f"{name}.npy")
            column.path.unlink()
    return Stored(path)


def _store_tensors(spool: dict[str, _Column], count: int, folder: Path) -> Stored:
    labels = next((spool.pop(name) for name in _LABELS if name in spool and len(spool) > 1), None)
    path = folder / "samples"
    path.mkdir()
    columns = {name: column.samples() for name, column in spool.items()}
    for number in range(count):
        sample = path / f"test_data_set_{number}"
        sample.mkdir()
        for position, (name, arrays) in enumerate(columns.items()):
            (sample / f"input_{position}.pb").write_bytes(_tensor_proto(name, next(arrays)))
    for column in spool.values():
        column.path.unlink()
    if labels is None:
        return Stored(path)
    values = [array.reshape(-1) for array in labels.samples()]
    return Stored(path, store_labels(np.concatenate(values), folder, "labels"))


def _tensor_proto(name: str, array: Array) -> bytes:
    """An `onnx.TensorProto`: fields 1 `dims`, 2 `data_type`, 8 `name`, 9 `raw_data`."""
    dims = b"".join(b"\x08" + _varint(size) for size in array.shape)
    data_type = b"\x10" + _varint(_ONNX_TYPES[array.dtype.name])
    text = name.encode()
    named = b"\x42" + _varint(len(text)) + text if text else b""
    raw = array.tobytes()
    return dims + data_type + named + b"\x4a" + _varint(len(raw)) + raw


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
