"""What a search or a repair states of its result, beside what unseen samples lose.

    python stated.py --msq before=PATH --msq after=PATH --out OUT [--rows 64 256] [--seeds 8] [--kinds values scores]

Random networks of small vectors (those of `few_samples.py`) are quantized with the first rows of their data, once for each
line of `RUNS`, and the files run in onnxruntime on 10,000 rows that nobody has seen. The loss is what `--max-drop` counts: of
values the share of its variance that the worst channel loses, of scores the share of rows with another best class. Prints for
each binary, kind, number of rows and line, over all networks and seeds:

* stated, real: medians in percent;
* real / stated: the median, where nothing stated is 0;
* over stated: the share of runs whose real loss is larger than the one stated;
* over limit: the share of runs whose real loss is larger than `lost_at_most`, 5 % where the limit holds;
* over target: the share of runs that say that `--max-drop` is reached, and lose more; and in brackets, of how many;
* KB: the mean size of the files.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import subprocess
import zlib
from pathlib import Path

import numpy as np
from few_samples import NETWORKS, UNSEEN, outputs

RUNS = ["--max-drop 1%", "--max-drop 5%", "--target-bits 3", "--weight-bits 2"]


def real_loss(found: np.ndarray, wanted: np.ndarray, kind: str) -> float:
    """The loss of outputs that hold values or scores."""
    if kind == "scores":
        return float(np.mean(found.argmax(1) != wanted.argmax(1)))
    return float(np.max(np.mean((found - wanted) ** 2, 0) / np.var(wanted, 0)))


def measure(name: str, seed: int, args: argparse.Namespace) -> list[tuple[tuple[str, ...], dict[str, float | None]]]:
    """What each binary states of each run, and what is real."""
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    model, data, out = (args.out / file for file in ("float.onnx", "calib.npz", "out.onnx"))
    samples = NETWORKS[name](rng, model, UNSEEN + max(args.rows))
    unseen = {n: a[max(args.rows) :] for n, a in samples.items()}
    wanted, found = outputs(model, unseen), []
    for rows in args.rows:
        np.savez(data, **{n: a[:rows] for n, a in samples.items()})
        for kind in args.kinds:
            for flags in args.runs:
                for label, path in (binary.split("=", 1) for binary in args.msq):
                    command = [path, model, "-o", out, "--calib", data, "--json", "--quiet", "--output", f"y={kind}"]
                    done = subprocess.run([*command, *shlex.split(flags)], capture_output=True, text=True, check=False)
                    if done.returncode not in (0, 5):
                        raise SystemExit(f"{path}: {done.stderr.strip()}")
                    quality = json.loads(done.stdout)["quality"]
                    figures = {
                        "stated": quality["lost"],
                        "limit": quality.get("lost_at_most"),
                        "real": real_loss(outputs(out, unseen), wanted, kind),
                        "reached": float(done.returncode == 0),
                        "bytes": float(out.stat().st_size),
                    }
                    found.append(((kind, str(rows), flags, label), figures))
    return found


def percent(share: float) -> str:
    """A share in words."""
    return f"{100 * share:.2f}"


def row(key: tuple[str, ...], runs: list[dict[str, float | None]]) -> str:
    """A line of the table."""
    median = {name: statistics.median(run[name] for run in runs) for name in ("stated", "real")}
    ratios = [run["real"] / run["stated"] for run in runs if run["stated"]]
    limited = [run for run in runs if run["limit"] is not None]
    cells = [percent(median["stated"]), percent(median["real"])]
    cells.append(f"{statistics.median(ratios):.2f}" if len(ratios) == len(runs) else "-")
    cells.append(f"{100 * statistics.mean(run['real'] > run['stated'] for run in runs):.0f} %")
    cells.append(f"{100 * statistics.mean(run['real'] > run['limit'] for run in limited):.0f} %" if limited else "-")
    drop = key[2].removeprefix("--max-drop ").rstrip("%") if key[2].startswith("--max-drop") else None
    reached = [run["real"] > float(drop) / 100 for run in runs if run["reached"]] if drop else []
    cells.append(f"{100 * statistics.mean(reached):.0f} % ({len(reached)})" if reached else "-")
    cells.append(f"{statistics.mean(run['bytes'] for run in runs) / 1000:.1f}")
    return f"| {' | '.join([*key, *cells])} |"


def main() -> None:
    """Measure all and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--msq", action="append", required=True, metavar="NAME=PATH")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--kinds", nargs="+", default=["values", "scores"], choices=["values", "scores"])
    parser.add_argument("--networks", nargs="+", default=["normal 64", "tabular 32", "recommender", "signals"])
    parser.add_argument("--runs", nargs="+", default=RUNS, metavar="FLAGS")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    found: dict[tuple[str, ...], list[dict[str, float | None]]] = {}
    for name in args.networks:
        for seed in range(args.seeds):
            for key, figures in measure(name, seed, args):
                found.setdefault(key, []).append(figures)
    print("| kind | rows | flags | binary | stated % | real % | real / stated | over stated | over limit | over target | KB |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for key, runs in found.items():
        print(row(key, runs))


if __name__ == "__main__":
    main()
