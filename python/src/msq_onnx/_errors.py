"""Exceptions, one class for each exit code of the command line."""

from __future__ import annotations

from typing import Any


class Error(Exception):
    """A run of msq-onnx that did not succeed.

    Attributes:
        message: one line that says why, as the command line prints it behind `error: `.
        exit_code: the exit code of the command line; of errors found before it ran, the code it would have had.
    """

    exit_code: int = 1

    def __init__(self, message: str, exit_code: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        if exit_code is not None:
            self.exit_code = exit_code


class RunError(Error):
    """Exit code 1: the output cannot be written or is the input, or running the model failed."""

    exit_code = 1


class UsageError(Error):
    """Exit code 2: an option that does not exist, has no such value, or does not fit the others or the model."""

    exit_code = 2


class ModelError(Error):
    """Exit code 3: the model is missing, truncated, not valid, quantized already, or cannot be run."""

    exit_code = 3


class DataError(Error):
    """Exit code 4: the data is missing, empty, has NaN, or another name, shape or type than the model's inputs."""

    exit_code = 4


class TargetError(Error):
    """Exit code 5: no plan keeps to the target. The nearest model is written.

    Attributes:
        report: what `quantize` or `search` would have returned, about the nearest model.
    """

    exit_code = 5
    report: Any = None


class InterruptedRun(Error):
    """Exit code 130: something other than Ctrl-C in this process asked the run to stop, SIGTERM for instance."""

    exit_code = 130


_BY_CODE: dict[int, type[Error]] = {
    kind.exit_code: kind for kind in (RunError, UsageError, ModelError, DataError, TargetError, InterruptedRun)
}


def error_of(exit_code: int, message: str) -> Error:
    """The exception for an exit code; a negative one is the signal that ended the process."""
    if exit_code in _BY_CODE:
        return _BY_CODE[exit_code](message)
    return RunError(message or f"the run ended with exit code {exit_code}", exit_code)
