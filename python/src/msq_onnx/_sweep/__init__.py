"""Sweeps: models × data × settings, each run once, in one table."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from .. import _document, _executors
from .._errors import RunError, TargetError
from .._process import find_binary
from .._reports import EvaluateReport, Report, SearchReport
from .._types import PathLike
from . import execute, page, table
from .fingerprint import Fingerprints
from .plan import Plan, Run, read_plan


@dataclass(frozen=True, kw_only=True)
class SweepRun:
    """A run of a sweep.

    Attributes:
        model: name of the model.
        data: path of its calibration data, as the plan has it; None for synthetic inputs.
        setting: name of the setting, with the values chosen where it gives several.
        command: `quantize` or `search`.
        options: the options of the run, those of the plan and of the model among them.
        exit_code: that of the command line; negative where a signal ended the run.
        message: one line that says what went wrong; empty where nothing did.
        seconds: that the run took, whenever it ran.
        executed: whether it ran now, rather than in an earlier sweep.
        document: path of the JSON document; it does not exist where the run could not be started.
        output: path of the quantized model, if there is one.
        figures: what the table shows, by column.
        raw: the document.
    """

    model: str
    data: str | None
    setting: str
    command: str
    options: Mapping[str, Any]
    exit_code: int
    message: str
    seconds: float
    executed: bool
    document: Path
    output: Path | None
    figures: Mapping[str, Any]
    raw: Mapping[str, Any]

    @cached_property
    def report(self) -> Report | SearchReport | None:
        """What `quantize` or `search` reported; None of a run that failed."""
        found = self.raw["report"]
        if found is None:
            return None
        if self.command == "search":
            return _document.from_json(SearchReport, found, raw=found)
        return _document.from_json(Report, found, raw=found)

    @cached_property
    def judged(self) -> EvaluateReport | None:
        """What was measured on the data that the plan names as `judge`."""
        found = self.raw["judged"]
        return None if found is None else _document.from_json(EvaluateReport, found, raw=found)


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """The result of a sweep.

    Attributes:
        folder: with everything that was written.
        runs: all runs, in the order of the plan.
        csv: path of the table, if it was written.
        html: path of the page, if it was written.
    """

    folder: Path
    runs: tuple[SweepRun, ...]
    csv: Path | None
    html: Path | None

    @property
    def exit_code(self) -> int:
        """0 if all runs succeeded; 1 if one failed; 5 if none failed, but one missed its target."""
        codes = {run.exit_code for run in self.runs}
        if codes <= {0}:
            return 0
        return TargetError.exit_code if codes <= {0, TargetError.exit_code} else RunError.exit_code

    def table(self) -> str:
        """The table as text, with the seconds that each run took."""
        shown = ["model", "data", "setting", "state", "bytes", "ratio", "bits", "float_accuracy", "accuracy"]
        shown += ["float_metric", "metric", "agreement", "lost", "seconds", "message"]
        rows = [
            {"model": run.model, "data": run.data, "setting": run.setting, "seconds": run.seconds, **run.figures}
            for run in self.runs
        ]
        if len({run.data for run in self.runs}) < 2:
            shown.remove("data")
        return table.text_table(shown, rows)

    def _repr_html_(self) -> str:
        return f"<pre>{self.table()}</pre>"


def sweep(
    plan: PathLike | Mapping[str, Any],
    output: PathLike | None = None,
    *,
    jobs: int = 1,
    ray: str | None = None,
    threads: int | None = None,
    memory: str | int | None = None,
    retry: bool = False,
    progress: Callable[[SweepRun, int, int], None] | None = None,
) -> Sweep:
    """Quantizes models in several ways, or searches for their bits, and puts all results into one table.

    A run whose model, data, options and binary are those of an earlier sweep in the same folder is not repeated, so
    that a sweep that was killed goes on where it was.

    Args:
        plan: the path of a TOML file, or a mapping of the same form, whose paths are relative to the working folder.
        output: the folder for results; that of the plan unless given.
        jobs: runs at once on this machine; above 1 needs the package `joblib`.
        ray: the address of a Ray cluster to run on, or `auto`, or `local` for one that is started here. Its machines
            need this package, and the folders of the plan and of the results under the same paths.
        threads: of each run; unless given, the cores of the machine are shared among the runs.
        memory: of each run, in bytes or as `4GiB`; unless given, of several runs at once each has a share of what is
            free.
        retry: repeat the runs that failed.
        progress: called after each run with the run, the number of runs done, and that of all.

    Returns:
        A row for each run. Runs that fail raise nothing.

    Raises:
        UsageError: the plan has a mistake, a package is missing, or there is no Ray cluster at the address.
        RunError: the binary is missing, the folder cannot be written, or another sweep is writing to it.
        KeyboardInterrupt: the sweep was interrupted; what is done stays.
    """
    read = read_plan(plan if isinstance(plan, Mapping) else Path(plan))
    folder = (Path(output) if output is not None else read.output).absolute()
    executor = _executors.of(jobs, ray, threads, memory)
    with _locked(folder):
        rows = _execute(read, folder, executor, retry, progress)
        if not any(execute.is_transient(row.exit_code) for row in rows):
            shutil.rmtree(folder / execute.WORK, ignore_errors=True)
        return _written(read, folder, rows)


def pending(plan: PathLike | Mapping[str, Any], output: PathLike | None = None) -> list[tuple[str, bool]]:
    """The runs of a plan, and whether each would be executed now."""
    read = read_plan(plan if isinstance(plan, Mapping) else Path(plan))
    folder = (Path(output) if output is not None else read.output).absolute()
    tasks = _tasks(read, Fingerprints(read.folder, folder / ".fingerprints.json"), folder)
    return [(task.run.name, execute.recorded(folder, task.run.name, task.key) is None) for task in tasks]


def _execute(
    read: Plan,
    folder: Path,
    executor: _executors.Executor,
    retry: bool,
    progress: Callable[[SweepRun, int, int], None] | None,
) -> list[SweepRun]:
    fingerprints = Fingerprints(read.folder, folder / ".fingerprints.json")
    tasks = _tasks(read, fingerprints, folder)
    fingerprints.save()
    rows: dict[int, SweepRun] = {}
    for number, task in enumerate(tasks):
        known = execute.recorded(folder, task.run.name, task.key)
        if known is not None and not (retry and known["exit_code"] != 0):
            rows[number] = _row(task.run, folder, known, executed=False)
    waiting = [number for number in range(len(tasks)) if number not in rows]
    with contextlib.closing(executor.run([tasks[number] for number in waiting])) as results:
        for position, document in results:
            number = waiting[position]
            rows[number] = _row(tasks[number].run, folder, document, executed=True)
            if progress:
                progress(rows[number], len(rows), len(tasks))
    return [rows[number] for number in range(len(tasks))]


def _tasks(read: Plan, fingerprints: Fingerprints, folder: Path) -> list[execute.Task]:
    version = execute.binary_version()
    binary = f"{version} {fingerprints.of_path(find_binary())}"
    return [
        execute.Task(
            run=run,
            key=fingerprints.of_run(run, binary, read.write.pages),
            folder=read.folder,
            output=folder,
            version=version,
            models=read.write.models,
            pages=read.write.pages,
            threads=1,
            memory=None,
            weights=fingerprints.weights(run.model.path),
        )
        for run in read.runs
    ]


def _row(run: Run, folder: Path, document: Mapping[str, Any], *, executed: bool) -> SweepRun:
    figures = table.figures(document)
    return SweepRun(
        model=run.model.name,
        data=run.model.data,
        setting=run.name.rsplit("/", 1)[1],
        command=run.command,
        options=run.options,
        exit_code=document["exit_code"],
        message=document["message"],
        seconds=document.get("seconds", 0.0),
        executed=executed,
        document=execute.document_path(folder, run.name),
        output=folder / figures["file"] if figures["file"] else None,
        figures=figures,
        raw=document,
    )


def _written(read: Plan, folder: Path, rows: Sequence[SweepRun]) -> Sweep:
    """Writes the table in both forms."""
    options = list(dict.fromkeys(key for run in read.runs for key in run.setting_options))
    columns = ["model", "data", "setting", *options, *table.FIGURES]
    cells = [
        {
            "model": row.model,
            "data": row.data,
            "setting": row.setting,
            "short_setting": run.setting,
            "fixed": " · ".join(
                f"{key} {table.shown(key, value)}"
                for key, value in run.setting_options.items()
                if key not in run.chosen
            ),
            "document": row.document.relative_to(folder).as_posix(),
            **{key: table.shown(key, value) for key, value in run.setting_options.items()},
            **row.figures,
        }
        for run, row in zip(read.runs, rows, strict=True)
    ]
    csv = folder / "sweep.csv" if read.write.csv else None
    html = folder / "sweep.html" if read.write.html else None
    if csv:
        csv.write_text(table.csv_text(columns, cells), encoding="utf-8", newline="")
    if html:
        title = read.name.strip("`").removesuffix(".toml")
        chosen = list(dict.fromkeys(key for run in read.runs for key in run.chosen))
        text = page.page(title, execute.binary_version(), chosen, cells)
        html.write_text(text, encoding="utf-8", newline="")
    return Sweep(folder=folder, runs=tuple(rows), csv=csv, html=html)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Makes the folder, and keeps other sweeps out of it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("w")
    except OSError as error:
        raise RunError(f"the folder `{folder}` cannot be written: {error.strerror}") from error
    with file:
        if os.name == "posix":
            import fcntl

            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise RunError(f"another sweep is writing to `{folder}`; wait for it, or give another folder") from None
        yield
