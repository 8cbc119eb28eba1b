"""Model messages in which every field of the ONNX format is set, for the Rust round-trip tests.

Prints one JSON document, like check_model.py, with the same exit statuses.

    probe_fields.py make VALUES.onnx DEFAULTS.onnx
        Writes two models that between them set every field of every message: one to values that differ from
        each other, one to the fields' explicit defaults, whose presence must survive too.
    probe_fields.py compare A.onnx B.onnx
        Whether the two parse to the same message, unknown fields included.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from onnx import onnx_ml_pb2

# A message type may hold itself this many times before it is left empty.
DEPTH = 2
# What the import insists on.
IR_VERSION = 14
FLOATS = {FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE}


class Filler:
    """Sets every field of a message, and of those in it."""

    def __init__(self, defaults: bool) -> None:
        self.defaults = defaults
        self.count = 0
        self.turn: Counter[str] = Counter()
        self.set: set[tuple[str, str]] = set()

    def scalar(self, field: FieldDescriptor) -> Any:
        """A value no other field has, or the default."""
        self.count += 1
        kind, number = field.cpp_type, self.count
        if kind == FieldDescriptor.CPPTYPE_ENUM:
            values = [value.number for value in field.enum_type.values]
            return values[0] if self.defaults else values[number % len(values)]
        if kind in FLOATS:
            return 0.0 if self.defaults else number + 0.25
        if kind == FieldDescriptor.CPPTYPE_STRING:
            if field.type == FieldDescriptor.TYPE_BYTES:
                return b"" if self.defaults else b"\xff\x00%d" % number
            return "" if self.defaults else f"ő{number}"
        if self.defaults:
            return 0
        wide = {FieldDescriptor.CPPTYPE_INT64: number - 2**40, FieldDescriptor.CPPTYPE_UINT64: number + 2**63}
        return wide.get(kind, -number)

    def fields(self, descriptor: Descriptor) -> list[FieldDescriptor]:
        """All fields, but of each oneof only the one whose turn it is."""
        chosen = []
        for oneof in descriptor.oneofs:
            chosen.append(oneof.fields[self.turn[oneof.full_name] % len(oneof.fields)])
            self.turn[oneof.full_name] += 1
        return [field for field in descriptor.fields if field.containing_oneof is None or field in chosen]

    def fill(self, message: Message, above: Counter[str]) -> None:
        """Sets all fields of `message`, which stands below the message types `above`."""
        name = message.DESCRIPTOR.full_name
        if above[name] >= DEPTH:
            return
        below = above + Counter([name])
        for field in self.fields(message.DESCRIPTOR):
            self.set.add((name, field.name))
            entries = 1 if self.defaults else 2
            if field.message_type is None:
                if field.is_repeated:
                    getattr(message, field.name).extend(self.scalar(field) for _ in range(entries))
                else:
                    setattr(message, field.name, self.scalar(field))
            elif field.is_repeated:
                for _ in range(entries):
                    self.fill(getattr(message, field.name).add(), below)
            else:
                inner = getattr(message, field.name)
                inner.SetInParent()
                self.fill(inner, below)


def all_fields(messages: list[Descriptor]) -> set[tuple[str, str]]:
    """Every field of the messages and of those nested in them."""
    found = set()
    for message in messages:
        found |= {(message.full_name, field.name) for field in message.fields}
        found |= all_fields(list(message.nested_types))
    return found


def make(values: str, defaults: str) -> dict[str, Any]:
    """Writes the two models."""
    reached: set[tuple[str, str]] = set()
    for path, filler in [(values, Filler(defaults=False)), (defaults, Filler(defaults=True))]:
        model = onnx_ml_pb2.ModelProto()
        filler.fill(model, Counter())
        model.ir_version = IR_VERSION
        Path(path).write_bytes(model.SerializeToString())
        if not filler.defaults:
            reached = filler.set
    missing = all_fields(list(onnx_ml_pb2.DESCRIPTOR.message_types_by_name.values())) - reached
    return {"ok": not missing, "fields": len(reached), "missing": sorted(map(list, missing))}


def compare(a: str, b: str) -> dict[str, Any]:
    """Parses both and compares them in one canonical form."""
    models = [onnx_ml_pb2.ModelProto.FromString(Path(path).read_bytes()) for path in (a, b)]
    canonical = [model.SerializeToString(deterministic=True) for model in models]
    return {"ok": canonical[0] == canonical[1], "bytes": [len(text) for text in canonical]}


def main() -> int:
    """Run one command and print its JSON."""
    commands = {"make": make, "compare": compare}
    if len(sys.argv) != 4 or sys.argv[1] not in commands:
        print(__doc__, file=sys.stderr)
        return 2
    report = commands[sys.argv[1]](*sys.argv[2:])
    json.dump(report, sys.stdout, indent=1)
    print()
    return 0 if report["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
