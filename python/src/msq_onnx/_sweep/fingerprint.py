"""What decides whether a run has to be repeated: hashes of everything that it reads."""

from __future__ import annotations

import hashlib
import json
import mmap
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, cast

from .._options import OPTIONS
from .plan import Run

#: Raised when results with the same inputs would be recorded in another way.
_FORMAT = 1

# Fields of onnx.proto that lead to the names of files with weights.
_GRAPH, _FUNCTIONS = 7, 25
_FUNCTION_NODES = 7
_NODES, _INITIALIZERS = 1, 5
_ATTRIBUTES = 5
_TENSOR, _SUBGRAPH, _TENSORS, _SUBGRAPHS = 5, 6, 10, 11
_EXTERNAL_DATA = 13
_KEY, _VALUE = 1, 2


class Fingerprints:
    """Hashes of files and folders, kept in a file so that those of unchanged ones are not computed again.

    A file is taken as unchanged where its size and its time of modification are.
    """

    def __init__(self, folder: Path, store: Path) -> None:
        self._folder = folder
        self._store = store
        try:
            self._known: dict[str, list[Any]] = json.loads(store.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            self._known = {}
        self._used: dict[str, list[Any]] = {}
        self._of_models: dict[str, list[str]] = {}

    def save(self) -> None:
        """Writes the file; hashes that were not asked for are forgotten."""
        self._store.write_text(json.dumps(self._used, indent=0), encoding="utf-8")

    def of_run(self, run: Run, binary: str, pages: bool) -> str:
        """The key of a run: equal keys mean equal results."""
        model = run.model
        paths = [model.path, *self._external(model.path)]
        paths += [path for path in (model.data, model.labels, model.judge, model.judge_labels) if path]
        # Threads change no result; memory may, of models that are large for it.
        options = {key: value for key, value in run.options.items() if key != "threads"}
        paths += [str(value) for key, value in options.items() if OPTIONS[run.command][key].kind == "path"]
        if model.metric:
            paths += [word for word in _words(model.metric) if (self._folder / word).is_file()]
        content = {
            "format": _FORMAT,
            "binary": binary,
            "command": run.command,
            "model": [model.path, model.data, model.labels, model.judge, model.judge_labels, model.metric],
            "options": options,
            "pages": pages,
            "files": {path: self.of_path(self._folder / path) for path in paths},
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()

    def weights(self, model: str) -> int:
        """Bytes of a model and of the files with its weights."""
        return _total(self._folder / each for each in (model, *self._external(model)))

    def of_path(self, path: Path) -> str | None:
        """The hash of a file, or of the names and contents in a folder; None where there is neither."""
        if path.is_dir():
            total = hashlib.sha256()
            for each in sorted(path.rglob("*")):
                if each.is_file():
                    total.update(f"{each.relative_to(path).as_posix()}\0{self._of_file(each)}\n".encode())
            return total.hexdigest()
        return self._of_file(path) if path.is_file() else None

    def _of_file(self, path: Path) -> str:
        status = path.stat()
        stamp = [status.st_size, status.st_mtime_ns]
        name = str(path)
        known = self._used.get(name) or self._known.get(name)
        if known is None or known[:2] != stamp:
            with path.open("rb") as file:
                known = [*stamp, _digest(file)]
        self._used[name] = known
        return cast(str, known[2])

    def _external(self, model: str) -> list[str]:
        """Files with weights of a model, which are looked for once."""
        if model not in self._of_models:
            names = external_files(self._folder / model)
            self._of_models[model] = [(Path(model).parent / name).as_posix() for name in sorted(names)]
        return self._of_models[model]


def stored_bytes(model: Path) -> int:
    """Bytes of a model and of the files with its weights."""
    return _total([model, *(model.parent / name for name in external_files(model))])


def _total(paths: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in paths if path.is_file())


def _digest(file: IO[bytes]) -> str:
    total = hashlib.sha256()
    while block := file.read(1 << 20):
        total.update(block)
    return total.hexdigest()


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError:
        return []


def external_files(model: Path) -> set[str]:
    """Names of the files in which a model keeps weights, relative to its folder.

    Needs no package `onnx`, and reads nothing of the weights. What is no model has none.
    """
    try:
        with model.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return set(_model(content)) if content.find(b"location") >= 0 else set()
    except (OSError, ValueError, IndexError):
        return set()


#: A field of a message: its number, and where its bytes begin and end.
_Field = tuple[int, int, int]


def _model(content: mmap.mmap) -> Iterator[str]:
    for field, start, end in _fields(content, 0, len(content)):
        if field == _GRAPH:
            yield from _graph(content, start, end)
        elif field == _FUNCTIONS:
            for inner, node, node_end in _fields(content, start, end):
                if inner == _FUNCTION_NODES:
                    yield from _node(content, node, node_end)


def _graph(content: mmap.mmap, start: int, end: int) -> Iterator[str]:
    for field, inner, inner_end in _fields(content, start, end):
        if field == _NODES:
            yield from _node(content, inner, inner_end)
        elif field == _INITIALIZERS:
            yield from _location(content, inner, inner_end)


def _node(content: mmap.mmap, start: int, end: int) -> Iterator[str]:
    attributes = (each for each in _fields(content, start, end) if each[0] == _ATTRIBUTES)
    for _, attribute, attribute_end in attributes:
        for field, inner, inner_end in _fields(content, attribute, attribute_end):
            if field in (_TENSOR, _TENSORS):
                yield from _location(content, inner, inner_end)
            elif field in (_SUBGRAPH, _SUBGRAPHS):
                yield from _graph(content, inner, inner_end)


def _location(content: mmap.mmap, start: int, end: int) -> Iterator[str]:
    for field, inner, inner_end in _fields(content, start, end):
        if field == _EXTERNAL_DATA:
            entry = {
                key: content[at:stop].decode("utf-8", "replace") for key, at, stop in _fields(content, inner, inner_end)
            }
            if entry.get(_KEY) == "location" and entry.get(_VALUE):
                yield entry[_VALUE]


def _fields(content: mmap.mmap, at: int, end: int) -> Iterator[_Field]:
    """The fields of a message that have a length: all those that may be messages or text."""
    while at < end:
        tag, at = _varint(content, at)
        kind = tag & 7
        if kind == 2:
            size, at = _varint(content, at)
            yield tag >> 3, at, at + size
            at += size
        elif kind == 0:
            _, at = _varint(content, at)
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:
            raise ValueError("not a message")


def _varint(content: mmap.mmap, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
