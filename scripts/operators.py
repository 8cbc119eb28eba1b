"""Writes `passes/src/ops/generated.rs`: what the schemas of the PyPI package `onnx` say of each operator.

    python scripts/operators.py            writes the file
    python scripts/operators.py --check    exits with 1, saying so, where the file is not what it would write

The version of `onnx` is the one `tests/runtime/requirements.txt` pins; output depends on nothing else.
"""

import argparse
import pathlib
import re
import sys

import numpy
import onnx
from onnx import defs, helper

TARGET = pathlib.Path(__file__).resolve().parent.parent / "passes/src/ops/generated.rs"
# Models below this operator set are neither raised nor relieved of attributes.
LOWEST = 7
# The axes without which shape inference of ONNX itself fails, and activations that go by the number of directions.
NOT_ITS_DEFAULT = {("MeanVarianceNormalization", "axes"), ("RNN", "activations")}
BYTES = {"tensor(uint8)", "tensor(int8)"}
HALF = {"tensor(float)", "tensor(float16)"}
HEAD = """//! What the schemas of ONNX {version} say of each operator of the default domain. `scripts/operators.py` writes this file.
// Numbers are as Python prints them, rows are alike.
#![allow(clippy::excessive_precision, clippy::needless_update, clippy::unreadable_literal)]

use super::schema::Absent::{{Float, Int, Ones, Text, Zeros}};
use super::schema::{{Half, Schema}};

"""


def histories():
    """Of each operator, in order of names: its schemas, the oldest first."""
    found = {}
    for schema in defs.get_all_schemas_with_history():
        if schema.domain == "":
            found.setdefault(schema.name, {})[schema.since_version] = schema
    return [[versions[since] for since in sorted(versions)] for _, versions in sorted(found.items())]


def like_output(history):
    """Slots of inputs that have the type of output 0, in every version."""
    slots = None
    for schema in history:
        output = schema.outputs[0].type_str if schema.outputs else None
        same = {i for i, x in enumerate(schema.inputs) if x.type_str == output and x.is_homogeneous}
        slots = same if slots is None else slots & same
    return sorted(slots)


def bytes_since(history):
    """The first version whose input 0 may hold integers of 8 bits, signed or not."""
    return next((s.since_version for s in history if s.inputs and BYTES <= set(s.inputs[0].types)), None)


def half(history):
    """The slots of inputs and of outputs that may hold float16 beside float, the first version since which it is these
    slots, and whether a list without end is among them. None where the newest version has none."""

    def slots(schema):
        fit = [[x for x in enumerate(xs) if HALF <= set(x[1].types)] for xs in (schema.inputs, schema.outputs)]
        endless = any(x.option == defs.OpSchema.FormalParameterOption.Variadic for xs in fit for _, x in xs)
        return [[i for i, _ in xs] for xs in fit], endless

    newest = slots(history[-1])
    since = None
    for schema in reversed(history):
        if slots(schema) != newest:
            break
        since = schema.since_version
    return (since, newest) if newest[0] != [[], []] else None


def moved(history):
    """Attributes that became inputs of the same name."""
    for before, after in zip(history, history[1:]):
        old = {x.name.lower() for x in before.inputs}
        slots = {x.name.lower(): i for i, x in enumerate(after.inputs) if x.name.lower() not in old}
        gone = [name for name in before.attributes if name not in after.attributes and name.lower() in slots]
        for name in sorted(gone, key=lambda name: slots[name.lower()]):
            if after.since_version > LOWEST:
                yield after.since_version, name, slots[name.lower()]


def defaults(history):
    """Attributes that may be absent and what they stand for then, each with the operator set since which. Attributes
    that a later set took away are left out."""
    for name in sorted(history[-1].attributes):
        if (history[-1].name, name) in NOT_ITS_DEFAULT:
            continue
        last = None
        for schema in history:
            later = [s.since_version for s in history if s.since_version > schema.since_version]
            if later and later[0] <= LOWEST:
                continue
            attribute = schema.attributes.get(name)
            value = absent(attribute) if attribute else None
            # A description that no longer states what it stated changed nothing.
            if value is not None and value != last:
                yield name, max(schema.since_version, LOWEST), value
            last = value or last


def absent(attribute):
    """The Rust literal of what an absent attribute stands for, or None."""
    if attribute.default_value.name:
        value = helper.get_attribute_value(attribute.default_value)
        if isinstance(value, bytes):
            return f'Text("{value.decode()}")'
        if isinstance(value, int):
            return f"Int({value})"
        if isinstance(value, float):
            return f"Float({numpy.float32(value)!s})"
        raise SystemExit(f"{attribute.name}: default {value!r} has no form yet")
    # One number for each axis is stated in words alone.
    if attribute.required or attribute.type != defs.OpSchema.AttrType.INTS:
        return None
    stated = re.search(r"default[^.]*?\b(0|1|zero|one)\b", attribute.description, re.IGNORECASE | re.DOTALL)
    return {"0": "Zeros", "zero": "Zeros", "1": "Ones", "one": "Ones"}[stated[1]] if stated else None


def row(history):
    """A row of the table, on one line."""
    name, several = history[0].name, max(schema.max_output for schema in history) > 1
    versions = ", ".join(str(schema.since_version) for schema in history)
    parts = [f'name: "{name}"', f"versions: &[{versions}]"]
    if several:
        parts.append("several_outputs: true")
    if like := like_output(history):
        parts.append(f"like_output: &{like}")
    if (since := bytes_since(history)) is not None:
        parts.append(f"bytes_since: Some({since})")
    if (found := half(history)) is not None:
        since, ((inputs, outputs), endless) = found
        endless = str(endless).lower()
        parts.append(f"half: Some(Half {{ since: {since}, inputs: &{inputs}, outputs: &{outputs}, endless: {endless} }})")
    attributes = [f'("{name}", {since}, {value})' for name, since, value in defaults(history)]
    if attributes:
        parts.append(f"defaults: &[{', '.join(attributes)}]")
    inputs = [f'({since}, "{name}", {slot})' for since, name, slot in moved(history)]
    if inputs:
        parts.append(f"moved: &[{', '.join(inputs)}]")
    return f"    Schema {{ {', '.join(parts)}, ..Schema::NONE }},\n"


def format_versions():
    """The lowest format version that may state a default operator set, where it grew."""
    highest = 0
    for _, ir, opset, *_ in helper.VERSION_TABLE:
        if ir > highest:
            yield opset, ir
            highest = ir


def text():
    parts = [HEAD.format(version=".".join(onnx.__version__.split(".")[:2]))]
    parts.append("/// In order of names.\n#[rustfmt::skip]\npub(super) const SCHEMAS: &[Schema] = &[\n")
    parts.extend(row(history) for history in histories())
    parts.append("];\n\n/// Where the lowest format version that may state a default operator set grew: pairs of (operator set, IR version).\n")
    pairs = ", ".join(f"({opset}, {ir})" for opset, ir in format_versions())
    parts.append(f"#[rustfmt::skip]\npub(super) const IR_OF_OPSET: &[(i64, i64)] = &[{pairs}];\n")
    return "".join(parts)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    check = parser.parse_args().check
    wanted = text()
    if not check:
        TARGET.write_text(wanted, encoding="utf-8", newline="\n")
    elif TARGET.read_text(encoding="utf-8") != wanted:
        sys.exit(f"{TARGET} is not what {pathlib.Path(__file__).name} writes with onnx {onnx.__version__}: run it")


if __name__ == "__main__":
    main()
