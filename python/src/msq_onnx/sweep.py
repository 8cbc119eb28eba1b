"""Runs a plan of models × data × settings, and writes one table: `python -m msq_onnx.sweep PLAN.toml`.

Ends with 0 if every run succeeded, 1 if one failed, 5 if none failed but one missed its target, 2 if the plan has a
mistake, 130 if it was interrupted. The same command goes on where an earlier one was killed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from ._errors import Error, InterruptedRun
from ._sweep import SweepRun, pending, sweep
from ._sweep.table import shown


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    given = _parser().parse_args(arguments)
    try:
        if given.dry_run:
            for name, waits in pending(given.plan, given.output):
                print("run " if waits else "done", name)
            return 0
        result = sweep(
            given.plan,
            given.output,
            jobs=given.jobs,
            ray=given.ray,
            threads=given.threads,
            memory=given.memory,
            retry=given.retry,
            progress=None if given.quiet else _progress,
        )
    except Error as error:
        print(f"error: {error.message}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("error: interrupted; what is done stays, and the same command goes on from there", file=sys.stderr)
        return InterruptedRun.exit_code
    if not given.quiet:
        print(result.table(), end="")
        written = [str(path) for path in (result.csv, result.html) if path]
        print(f"wrote {', '.join(written)}" if written else f"wrote {result.folder}")
    return result.exit_code


def _progress(run: SweepRun, done: int, total: int) -> None:
    said = run.message or ", ".join(
        f"{name} {shown(column, run.figures[column])}"
        for name, column in (("size", "bytes"), ("accuracy", "accuracy"), ("lost", "lost"))
        if run.figures[column] is not None
    )
    print(f"[{done}/{total}] {run.model} {run.setting}: {said} · {run.seconds:.1f} s", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m msq_onnx.sweep", description=(__doc__ or "").split(":")[0] + ".")
    parser.add_argument("plan", metavar="PLAN.toml", help="the plan; paths in it are relative to it")
    parser.add_argument("-o", "--output", metavar="DIR", help="folder for results, in the place of the plan's")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at once on this machine; 1 unless given")
    parser.add_argument("--ray", metavar="ADDRESS", help="run on this Ray cluster; `auto` finds a running one")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of each run; a share of all unless given")
    parser.add_argument("--memory", metavar="SIZE", help="memory of each run; a share of what is free unless given")
    parser.add_argument("--retry", action="store_true", help="repeat runs that failed or missed their target")
    parser.add_argument("--dry-run", action="store_true", help="list the runs, and which of them are done")
    parser.add_argument("-q", "--quiet", action="store_true", help="print errors only")
    return parser


if __name__ == "__main__":
    sys.exit(main())
# `import msq_onnx.sweep` would else put this module in the place of the function of that name.
sys.modules[__name__] = sweep  # type: ignore[assignment]
