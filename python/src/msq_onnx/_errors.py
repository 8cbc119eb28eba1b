"""One exception per exit code of the command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._reports import Report


class Error(Exception):
    """The command failed. ``exit_code`` is that of the process, the message its last line."""

    def __init__(self, exit_code: int, message: str, document: dict[str, Any] | None = None) -> None:
        """Keeps what the command said."""
        super().__init__(message)
        self.exit_code = exit_code
        self.document = document


class UsageError(Error):
    """Exit code 2: an option that does not exist or does not fit."""


class ModelError(Error):
    """Exit code 3: a model that cannot be read, run or quantized."""


class DataError(Error):
    """Exit code 4: data that are missing, or of the wrong name, shape or type."""


class TargetError(Error):
    """Exit code 5: no plan keeps to the target. ``report`` is that of the nearest model, which was written."""

    report: Report | None = None


def of(exit_code: int, message: str, document: dict[str, Any] | None) -> Error:
    """The exception of an exit code."""
    kinds = {2: UsageError, 3: ModelError, 4: DataError, 5: TargetError}
    return kinds.get(exit_code, Error)(exit_code, message, document)
