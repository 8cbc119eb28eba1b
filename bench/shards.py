"""What of a run can be shared among machines: time to quantize, of which in parts, and with what the parts found.

    python shards.py MODEL --calib DATA --msq path/to/msq-onnx --out OUT [--shards 2] [--rounds 3] [-- OPTIONS]
    python shards.py MODEL --calib DATA --msq path/to/msq-onnx --out OUT --target "--target-bits 2" [-- OPTIONS]

Runs, in turns: quantizing on its own; `calibrate --shard` for each part; quantizing with `--statistics`. With a target the
parts are those of `search --shard`, taken as `--measurements`. Prints the processor time of each, the longest part, and
the size of a part's file, as medians; and checks that both models are the same. OPTIONS, after `--`, are given to all of
them.
"""

from __future__ import annotations

import argparse
import shlex
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
    parser.add_argument("--target", default="", help="the target of a search and how it is sought")
    args = parser.parse_args(own)
    args.out.mkdir(parents=True, exist_ok=True)
    parts = [args.out / f"{number}.stats" for number in range(1, args.shards + 1)]
    alone, joined = args.out / "alone.onnx", args.out / "joined.onnx"

    def seconds(command: list[str]) -> float:
        run = measured([args.msq, *command, "--calib", str(args.calib), "--quiet", *options], args.out)
        if run["exit"]:
            raise SystemExit(f"{' '.join(command)}: {run['stderr'].strip()}")
        return run["cpu_s"]

    found: dict[str, list[float]] = {"alone": [], "longest part": [], "all parts": [], "with all parts": []}
    command, given = ("search", "--measurements") if args.target else ("calibrate", "--statistics")
    target = shlex.split(args.target)
    for _ in range(args.rounds):
        found["alone"].append(seconds([str(args.model), "-o", str(alone), *target]))
        each = [
            seconds([command, str(args.model), "-o", str(part), "--shard", f"{number}/{args.shards}"])
            for number, part in enumerate(parts, 1)
        ]
        found["longest part"].append(max(each))
        found["all parts"].append(sum(each))
        found["with all parts"].append(
            seconds([str(args.model), "-o", str(joined), *target, given, *map(str, parts)])
        )
    if alone.read_bytes() != joined.read_bytes():
        raise SystemExit("the files differ")
    print("| run | CPU s |\n|---|---|")
    for name, times in found.items():
        print(f"| {name} | {statistics.median(times):.2f} |")
    print(f"\nfile of a part: {max(part.stat().st_size for part in parts):,} bytes; the files are the same")


if __name__ == "__main__":
    main()
