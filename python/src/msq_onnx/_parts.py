"""Work on one model that is cut into parts, which several processes or machines do at once."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from . import _process
from ._errors import RunError, UsageError, error_of
from ._executors import STOP, Executor


@dataclass(frozen=True, kw_only=True)
class Result:
    """How a part ended.

    Attributes:
        exit_code: that of the command line; negative where a signal ended the run.
        message: one line that says what went wrong; empty where nothing did.
    """

    exit_code: int
    message: str


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part, as a task of an executor. Paths are the same on all machines.

    Attributes:
        arguments: of the command line, all but the resources and the model.
        model: the model.
        folder: in which the command runs.
        weights: bytes of the model, files with its weights included.
        threads: of the run.
        memory: in bytes; None for no limit.
    """

    arguments: tuple[str, ...]
    model: str
    folder: Path
    weights: int
    threads: int = 1
    memory: int | None = None

    def with_resources(self, threads: int, memory: int | None) -> Part:
        """The part with its threads and its memory."""
        return replace(self, threads=threads, memory=memory)

    def execute(self) -> Result:
        """Runs the command."""
        limits = [f"--threads={self.threads}"]
        limits += [f"--memory={self.memory // 1_000_000}MB"] if self.memory else []
        with tempfile.TemporaryDirectory(prefix="msq-onnx-", ignore_cleanup_errors=True) as temporary:
            arguments = [*self.arguments, *limits, "--quiet", "--", self.model]
            finished = _process.run(arguments, Path(temporary), working_folder=self.folder, stop=STOP)
        return Result(exit_code=finished.exit_code, message=finished.error)

    def failed(self, message: str) -> Result:
        """The result where the command could not be run."""
        return Result(exit_code=RunError.exit_code, message=message)


def files(folder: Path, shards: int, ending: str) -> list[Path]:
    """Paths of the files of all parts, in a folder that is made if there is none.

    Raises:
        UsageError: there are no parts.
        RunError: the folder cannot be made.
    """
    if shards < 1:
        raise UsageError(f"`shards` is {shards}; expected 1 or more")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"the folder `{folder}` cannot be written: {error.strerror}") from error
    digits = len(str(shards))
    return [folder.absolute() / f"{number:0{digits}}-of-{shards}.{ending}" for number in range(1, shards + 1)]


def execute(executor: Executor, parts: Sequence[Part], progress: Callable[[int, int], None] | None) -> None:
    """Executes all parts.

    Raises:
        Error: a part failed, by its exit code. All others are done, and stay.
    """
    failures: dict[int, Result] = {}
    with closing(executor.run(parts)) as results:
        for done, (number, result) in enumerate(results, 1):
            if result.exit_code:
                failures[number] = result
            elif progress:
                progress(done - len(failures), len(parts))
    if failures:
        number, result = min(failures.items())
        raise error_of(result.exit_code, f"part {number + 1} of {len(parts)}: {result.message}")
