"""Measures what several processes bring to a sweep, by the size of the model.

    PYTHONPATH=../python/src python scaling.py --msq path/to/msq-onnx --out OUT [--ray] [--widths 16 64] [--rounds 3]

Generates convolutional networks of random weights (eight 3×3 layers of WIDTH channels at 32×32, 64 random samples) and
sweeps each with 8 bits (`int8`) and with 4-bit weights (`w4`), as many runs as cores: one after the other with all cores
for each, at once with one thread each, and with `--ray` the same on a Ray cluster of this machine. The ways take turns;
the least seconds of all rounds count, since others may use the machine too. Then the same with a binary that does
nothing, for what the sweep itself takes per run. Prints tables and a projection, and writes `OUT/scaling.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import msq_onnx
from msq_onnx._executors import cores

LAYERS = 8
#: Repairs would take longer than all else: networks of random weights lose much by 8 bits.
SETTINGS: dict[str, dict[str, Any]] = {"int8": {"no-repair": True}, "w4": {"weight-bits": 4, "no-repair": True}}
IDLE_RUNS = 60
CLUSTERS = (2, 16, 64)


def network(width: int) -> onnx.ModelProto:
    """Convolutions with activations between them, then a mean over the image and a classifier."""
    rng = np.random.default_rng(width)
    nodes, weights, value, channels = [], [], "x", 3
    for at in range(LAYERS):
        scale = np.sqrt(2 / (9 * channels))
        kernel = rng.standard_normal((width, channels, 3, 3)).astype(np.float32) * np.float32(scale)
        weights.append(numpy_helper.from_array(kernel, f"w{at}"))
        nodes.append(helper.make_node("Conv", [value, f"w{at}"], [f"c{at}"], f"conv{at}", pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"c{at}"], [f"r{at}"]))
        value, channels = f"r{at}", width
    weights.append(numpy_helper.from_array(rng.standard_normal((width, 10)).astype(np.float32), "head"))
    nodes += [
        helper.make_node("GlobalAveragePool", [value], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("MatMul", ["flat", "head"], ["y"], "head"),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 32, 32])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 10])
    graph = helper.make_graph(nodes, "plain", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def seconds(folder: Path, options: dict[str, Any], runs: int, **how: Any) -> float:
    """Wall seconds of a sweep over so many runs of one model; nothing is taken over from an earlier one."""
    shutil.rmtree(folder / "out", ignore_errors=True)
    plan = {
        "models": {"m": {"path": str(folder / "model.onnx"), "data": str(folder / "x.npz")}},
        "settings": {"s": {**options, "seed": list(range(runs))}},
        "write": {"models": False, "html": False},
    }
    start = time.perf_counter()
    result = msq_onnx.sweep(plan, folder / "out", **how)
    elapsed = time.perf_counter() - start
    if result.exit_code:
        raise SystemExit(f"error: a run failed: {next(run.message for run in result.runs if run.exit_code)}")
    return elapsed


def ways(ray: bool) -> dict[str, dict[str, Any]]:
    """Ways to execute, with the arguments of `sweep`."""
    found: dict[str, dict[str, Any]] = {
        "one at a time": {"jobs": 1, "threads": cores()},
        "one per core": {"jobs": cores(), "threads": 1},
    }
    return found | ({"Ray": {"ray": "auto", "threads": 1}} if ray else {})


def measure(folder: Path, options: dict[str, Any], runs: int, rounds: int, ray: bool) -> dict[str, float]:
    """Seconds per run of each way, the least of all rounds."""
    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, how in ways(ray).items():
            found.setdefault(name, []).append(seconds(folder, options, runs, **how) / runs)
    return {name: min(values) for name, values in found.items()}


def idle_binary(folder: Path) -> Path:
    """A binary that reports what it is told, at once."""
    document = real_document(folder)
    path = folder / "idle"
    path.write_text(f'#!/bin/sh\n[ "$1" = -V ] && echo "msq-onnx 0" || cat {document}\n', encoding="utf-8")
    path.chmod(0o755)
    return path


def real_document(folder: Path) -> Path:
    """The document of a real run."""
    report = msq_onnx.quantize(folder / "model.onnx", folder / "x.npz", samples=4)
    path = folder / "document.json"
    path.write_text(json.dumps(report.raw), encoding="utf-8")
    return path


def projection(rows: list[dict[str, Any]], overhead: dict[str, float], ray: bool) -> list[str]:
    """Hours for 1,000 models, if runs share cores as they did here and the sweep's own part stays serial."""
    way = "Ray" if ray else "one per core"
    lines = [
        f"| 1,000 models of | setting | {' | '.join(f'{count} cores' for count in CLUSTERS)} |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        core_seconds = row[way] * cores()
        hours = [max(core_seconds / count, overhead[way]) * 1000 / 3600 for count in CLUSTERS]
        cells = " | ".join(f"{each:.2f} h" for each in hours)
        lines.append(f"| {row['weights'] / 1e6:.2f} M weights | {row['setting']} | {cells} |")
    return lines


def table(rows: list[dict[str, Any]], names: list[str]) -> list[str]:
    """Seconds per run, and how much faster several processes are."""
    lines = [
        f"| weights | setting | {' | '.join(f'{name}, s' for name in names)} | gain |",
        "|---|---|" + "---|" * (len(names) + 1),
    ]
    for row in rows:
        gain = row["one at a time"] / row["one per core"]
        cells = " | ".join(f"{row[name]:.2f}" for name in names)
        lines.append(f"| {row['weights'] / 1e6:.2f} M | {row['setting']} | {cells} | {gain:.2f} × |")
    return lines


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--msq", type=Path, required=True, help="the msq-onnx binary")
    parser.add_argument("--out", type=Path, required=True, help="folder for models and results")
    parser.add_argument("--widths", type=int, nargs="+", default=[16, 32, 64, 128], help="channels of the networks")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runs", type=int, default=cores(), help="runs of each sweep; as many as cores unless given")
    parser.add_argument("--ray", action="store_true", help="on Ray too")
    return parser.parse_args()


def main() -> None:
    """All sizes and settings, then the sweep's own part."""
    args = parse_arguments()
    os.environ["MSQ_ONNX_BINARY"] = str(args.msq.resolve())
    started = 0.0
    if args.ray:
        import ray

        start = time.perf_counter()
        ray.init(address="local", num_cpus=cores(), log_to_driver=False)
        started = time.perf_counter() - start
    rows: list[dict[str, Any]] = []
    for width in args.widths:
        folder = args.out / f"width-{width}"
        folder.mkdir(parents=True, exist_ok=True)
        onnx.save(network(width), folder / "model.onnx")
        images = np.random.default_rng(0).standard_normal((64, 3, 32, 32)).astype(np.float32)
        np.savez(folder / "x.npz", x=images)
        count = sum(int(np.prod(each.dims)) for each in onnx.load(folder / "model.onnx").graph.initializer)
        for setting, options in SETTINGS.items():
            found = measure(folder, options, args.runs, args.rounds, args.ray)
            rows.append({"weights": count, "setting": setting, **found})
            print(rows[-1], file=sys.stderr, flush=True)
    folder = args.out / f"width-{args.widths[0]}"
    os.environ["MSQ_ONNX_BINARY"] = str(idle_binary(folder).resolve())
    sys.modules["msq_onnx._sweep.execute"].binary_version.cache_clear()
    if args.ray:
        import ray

        ray.shutdown()
        ray.init(address="local", num_cpus=cores(), log_to_driver=False)
    overhead = measure(folder, {}, IDLE_RUNS, args.rounds, args.ray)
    names = list(ways(args.ray))
    report = {"cores": cores(), "rows": rows, "overhead": overhead, "ray_start": started}
    (args.out / "scaling.json").write_text(json.dumps(report, indent=1) + "\n")
    print("\n".join(table(rows, names)))
    print(f"\nA run that does nothing: {', '.join(f'{name} {1000 * overhead[name]:.0f} ms' for name in names)}.")
    print(f"Starting Ray on this machine: {started:.1f} s.\n" if args.ray else "")
    print("\n".join(projection(rows, overhead, args.ray)))


if __name__ == "__main__":
    main()
