"""What of a run can be shared among machines: time to quantize, of which calibration, and with statistics counted before.

    python shards.py MODEL --calib DATA --msq path/to/msq-onnx --out OUT [--shards 2] [--rounds 3] [-- OPTIONS]

Runs, in turns: quantizing on its own; `calibrate --shard` for each part; quantizing with `--statistics`. Prints the
processor time of each, the longest part, and the size of the statistics, as medians; and checks that both files are the
same. OPTIONS, after `--`, are given to all of them.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

from compare_ort import measured


def main() -> None:
    """Run and print."""
    own, options = sys.argv[1:], []
    if "--" in own:
        at = own.index("--")
        own, options = own[:at], own[at + 1 :]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--calib", type=Path, required=True)
    parser.add_argument("--msq", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args(own)
    args.out.mkdir(parents=True, exist_ok=True)
    parts = [args.out / f"{number}.stats" for number in range(1, args.shards + 1)]
    alone, joined = args.out / "alone.onnx", args.out / "joined.onnx"

    def seconds(command: list[str]) -> float:
        run = measured([args.msq, *command, "--calib", str(args.calib), "--quiet", *options], args.out)
        if run["exit"]:
            raise SystemExit(f"{' '.join(command)}: {run['stderr'].strip()}")
        return run["cpu_s"]

    found: dict[str, list[float]] = {"alone": [], "longest part": [], "all parts": [], "with statistics": []}
    for _ in range(args.rounds):
        found["alone"].append(seconds([str(args.model), "-o", str(alone)]))
        each = [
            seconds(["calibrate", str(args.model), "-o", str(part), "--shard", f"{number}/{args.shards}"])
            for number, part in enumerate(parts, 1)
        ]
        found["longest part"].append(max(each))
        found["all parts"].append(sum(each))
        given = ["--statistics", *map(str, parts)]
        found["with statistics"].append(seconds([str(args.model), "-o", str(joined), *given]))
    if alone.read_bytes() != joined.read_bytes():
        raise SystemExit("the files differ")
    print("| run | CPU s |\n|---|---|")
    for name, times in found.items():
        print(f"| {name} | {statistics.median(times):.2f} |")
    print(f"\nstatistics of a part: {max(part.stat().st_size for part in parts):,} bytes; the files are the same")


if __name__ == "__main__":
    main()
