"""Load a ResNet50-shaped model at every width: seconds to create a session, and memory at most.

Makes the model (`random_resnet50.py`), quantizes it with msq-onnx once per width, and loads float, int8 and packed files
in turns, each time in a fresh process (`load_cost.py`); prints medians and the ratio to plain int8. Exits 1 where a
packed file takes more time or memory than the float file.

    load.py --msq PATH --out FOLDER [--python PYTHON …]

`--python` names interpreters with other versions of onnxruntime, which load the same files.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import onnx
import random_resnet50

HERE = Path(__file__).resolve().parent
FLOAT, PLAIN = "float", "8"
FORMS = {
    PLAIN: "--weight-bits 8",
    **{str(bits): f"--weight-bits {bits} --solver round --grid full" for bits in range(7, 1, -1)},
    "binary": "--weight-bits binary --solver round",
    "ternary": "--weight-bits ternary --solver round",
    "codebook 4": "--weight-bits 4 --grid codebook",
    "codebook 2": "--weight-bits 2 --grid codebook",
    "int4": "--weight-bits 4 --solver round --grid full --packing int4",
    "weights only 4": "--weight-bits 4 --solver round --grid full --act-bits float",
    "functions 3": "--weight-bits 3 --solver round --grid full --functions",
    **{f"trellis {bits}": f"--weight-bits {bits} --grid trellis" for bits in (4, 3, 2)},
}


def make(msq: Path, source: Path, out: Path, form: str) -> Path | None:
    """The file of one form, made where it is missing."""
    path = out / f"{form.replace(' ', '-')}.onnx"
    if not path.exists():
        command = [msq, source, "-o", path, "--samples", "1", "--verify", "0", "-q", *FORMS[form].split()]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        if run.returncode:
            print(f"{form}: {run.stderr.strip()}", file=sys.stderr)
            return None
    return path


def load(python: str, path: Path) -> dict[str, float]:
    """One load in a fresh process."""
    # Through the small launcher: peak memory of a child starts at its parent's.
    command = [sys.executable, HERE / "measure.py", os.devnull, python, HERE / "load_cost.py", path]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(run.stdout.splitlines()[-1])


def compared(python: str, files: dict[str, Path], rounds: int) -> bool:
    """Loads all files in turns, prints a table; whether each packed file loads below float."""
    version = subprocess.run(
        [python, "-c", "import onnxruntime; print(onnxruntime.__version__)"], capture_output=True, text=True, check=True
    )
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in files}
    for _ in range(rounds):
        for name, path in files.items():
            runs[name].append(load(python, path))
    median = {
        name: {key: statistics.median(run[key] for run in found) for key in ("load_s", "load_mb")}
        for name, found in runs.items()
    }
    print(f"\nonnxruntime {version.stdout.strip()}\n\n| weights | file MB | load s | over int8 | peak MB | over int8 |")
    print("|---|---|---|---|---|---|")
    for name, cost in median.items():
        seconds, memory = (cost[key] / median[PLAIN][key] for key in ("load_s", "load_mb"))
        size = files[name].stat().st_size / 1e6
        print(f"| {name} | {size:.1f} | {cost['load_s']:.3f} | {seconds:.2f} | {cost['load_mb']:.0f} | {memory:.2f} |")
    over = [
        f"{name}: {key}"
        for name, cost in median.items()
        for key in cost
        if name != FLOAT and cost[key] > median[FLOAT][key]
    ]
    print("\n".join(f"over float: {line}" for line in over))
    return not over


def main() -> None:
    """Make the files, load them, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--msq", type=Path, required=True, help="the msq-onnx binary")
    parser.add_argument("--out", type=Path, required=True, help="folder for the files; those there are taken as they are")
    parser.add_argument("--forms", nargs="*", choices=FORMS, default=list(FORMS), help="which forms")
    parser.add_argument("--rounds", type=int, default=5, help="loads of each file")
    parser.add_argument("--python", nargs="*", default=[sys.executable], help="interpreters with onnxruntime")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    source = args.out / "float.onnx"
    if not source.exists():
        onnx.save(random_resnet50.build(), source)
    made = {form: make(args.msq.resolve(), source, args.out, form) for form in dict.fromkeys([PLAIN, *args.forms])}
    files = {FLOAT: source, **{form: path for form, path in made.items() if path}}
    within = [compared(python, files, args.rounds) for python in args.python]
    sys.exit(0 if all(within) and len(files) == len(made) + 1 else 1)


if __name__ == "__main__":
    main()
