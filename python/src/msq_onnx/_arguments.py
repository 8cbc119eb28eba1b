"""Options as arguments of the command line.

Names, types and choices are checked against the table in `_options.py`, for messages that name the Python parameter;
whatever else can be wrong with a value is told by the binary.
"""

from __future__ import annotations

import difflib
import numbers
import os
from collections.abc import Iterable, Mapping
from typing import Any

from ._errors import UsageError
from ._options import OPTIONS, Option

_EXPECTED = {
    "flag": "True or False",
    "count": "a number from 0 to 9",
    "integer": "a whole number",
    "number": "a number",
    "text": "a string",
    "path": "a path",
    "size": "a string or a number",
    "bits": "a number or a string",
}


def check_names(command: str, options: Iterable[str]) -> None:
    """Checks that a command has these options.

    Raises:
        UsageError: it has not; the message names the closest option there is.
    """
    known = [key.replace("-", "_") for key in OPTIONS.get(command, {})]
    for name in options:
        if name not in known:
            raise UsageError(f"`{name}` is no option of `{command}`{_suggestion(name, known)}")


def arguments(command: str, options: Mapping[str, Any]) -> list[str]:
    """The arguments that options stand for; None leaves an option out, as False leaves out a flag.

    Raises:
        UsageError: an option does not exist, or a value has the wrong type or is not one of the choices.
    """
    check_names(command, options)
    found: list[str] = []
    for name, value in options.items():
        if value is not None:
            key = name.replace("_", "-")
            found += argument(name, key, OPTIONS[command][key], value)
    return found


def argument(name: str, key: str, option: Option, value: Any) -> list[str]:
    """The arguments that one option stands for; messages call it by `name`.

    Raises:
        UsageError: the value has the wrong type or is not one of the choices.
    """
    if option.kind == "flag":
        return [f"--{key}"] * int(_checked(name, option, value))
    if option.kind == "count":
        return [f"--{key}"] * int(_checked(name, option, int(value) if isinstance(value, bool) else value))
    single = isinstance(value, (str, os.PathLike, numbers.Number)) or not isinstance(value, Iterable)
    if not option.many or single:
        return [f"--{key}={_checked(name, option, value)}"]
    return [f"--{key}={_checked(name, option, each)}" for each in value]


def _checked(name: str, option: Option, value: Any) -> Any:
    if not _fits(option.kind, value):
        raise UsageError(f"`{name}` is of type `{type(value).__name__}`; expected {_EXPECTED[option.kind]}")
    if option.choices and value not in option.choices:
        values = ", ".join(f"`{choice}`" for choice in option.choices)
        raise UsageError(f"`{name}` is `{value}`; expected {values}{_suggestion(str(value), option.choices)}")
    return os.fspath(value) if option.kind == "path" else value


def _fits(kind: str, value: Any) -> bool:
    if isinstance(value, bool):
        return kind == "flag"
    if kind == "count":
        return isinstance(value, int) and 0 <= value <= 9
    return {
        "integer": isinstance(value, numbers.Integral),
        "number": isinstance(value, numbers.Real),
        "text": isinstance(value, str),
        "path": isinstance(value, (str, os.PathLike)),
        "size": isinstance(value, (str, numbers.Real)),
        "bits": isinstance(value, (str, numbers.Real)),
    }.get(kind, False)


def _suggestion(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean `{close[0]}`?" if close else ""
