"""Where the bytes of an ONNX file go, by kind: payload of weights, constants by role, nodes by operator, metadata.

    python bench/account.py MODEL.onnx [MORE.onnx ...] [--nodes]
"""

import argparse
from collections import Counter
from pathlib import Path

import onnx


def varint(number):
    return max(1, (number.bit_length() + 6) // 7)


def framed(length):
    """A field of this length: tag, length and bytes, for field numbers below 16."""
    return 1 + varint(length) + length


def role(initializer, readers):
    kind = onnx.TensorProto.DataType.Name(initializer.data_type).lower()
    read = sorted({f"{op}[{slot}]" for op, slot in readers})
    return f"{kind} rank {len(initializer.dims)} for {', '.join(read[:3])}"


def content(tensor):
    """Bytes of the elements alone."""
    if tensor.raw_data:
        return len(tensor.raw_data)
    bare = onnx.TensorProto()
    for field in ("int32_data", "int64_data", "float_data"):
        getattr(bare, field).extend(getattr(tensor, field))
    return max(0, bare.ByteSize() - 2)


def account(path, detail):
    model = onnx.load(path)
    graph = model.graph
    readers = {}
    for node in graph.node:
        for slot, name in enumerate(node.input):
            readers.setdefault(name, []).append((node.op_type, slot))
    bytes_of, count = Counter(), Counter()

    def add(what, length):
        bytes_of[what] += length
        count[what] += 1

    elements = 0
    for tensor in graph.initializer:
        name = role(tensor, readers.get(tensor.name, []))
        elements += content(tensor)
        add(f"constant: {name}: elements", content(tensor))
        add(f"constant: {name}: frame", framed(tensor.ByteSize()) - content(tensor))
    for node in graph.node:
        parts = {
            "names of values": sum(framed(len(n)) for n in [*node.input, *node.output]),
            "name": framed(len(node.name)) if node.name else 0,
            "operator": framed(len(node.op_type)),
            "domain": framed(len(node.domain)) if node.domain else 0,
            "attributes": sum(framed(a.ByteSize()) for a in node.attribute),
        }
        parts["frame and rest"] = framed(node.ByteSize()) - sum(parts.values())
        if detail:
            add(f"node: {node.op_type}", framed(node.ByteSize()))
        else:
            for part, length in parts.items():
                add(f"nodes: {part}", length)
    for entry in model.metadata_props:
        add(f"metadata: {entry.key}", framed(entry.ByteSize()))
    for value in [*graph.input, *graph.output]:
        add("inputs and outputs", framed(value.ByteSize()))
    for value in graph.value_info:
        add("value_info", framed(value.ByteSize()))
    for function in model.functions:
        add("functions", framed(function.ByteSize()))
    total = Path(path).stat().st_size
    add("rest", total - sum(bytes_of.values()))
    print(f"{path}: {total} bytes, {len(graph.node)} nodes, {len(graph.initializer)} constants")
    for what, length in bytes_of.most_common():
        if length:
            print(f"{length:8} {count[what]:5}  {what}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--nodes", action="store_true", help="nodes by operator rather than by field")
    arguments = parser.parse_args()
    for path in arguments.models:
        account(path, arguments.nodes)


if __name__ == "__main__":
    main()
