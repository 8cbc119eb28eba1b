"""Finds the command, runs it, and reads what it prints."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from . import _errors

INTERRUPTED = 130


def binary() -> str:
    """The path of the command: that of the environment variable ``MSQ_ONNX``, of this installation, or on the path."""
    given = os.environ.get("MSQ_ONNX")
    if given:
        return given
    name = "msq-onnx.exe" if sys.platform == "win32" else "msq-onnx"
    for folder in (sysconfig.get_path("scripts"), sysconfig.get_path("scripts", f"{os.name}_user")):
        path = Path(folder) / name
        if path.is_file():
            return str(path)
    found = shutil.which(name)
    if found is None:
        raise FileNotFoundError("the command msq-onnx is neither installed nor on the path; set MSQ_ONNX to its path")
    return found


def flags(options: dict[str, Any]) -> list[str]:
    """Keyword options as flags."""
    arguments: list[str] = []
    for name, value in options.items():
        flag = "--" + name.replace("_", "-")
        if value is None:
            continue
        if value is True:
            arguments.append(flag)
        elif value is False:
            arguments.append("--no-" + flag[2:])
        elif isinstance(value, (list, tuple)):
            arguments += [part for one in value for part in (flag, str(one))]
        else:
            # A value may begin with a minus.
            arguments.append(f"{flag}={os.fspath(value) if isinstance(value, os.PathLike) else value}")
    return arguments


def run(arguments: list[str], options: dict[str, Any], accept: tuple[int, ...] = (0,)) -> dict[str, Any]:
    """Runs the command and reads its JSON document. The command ends with this process's interruption."""
    command = [binary(), *arguments, "--json", "--quiet", *flags(options)]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8"
    )
    try:
        printed, said = process.communicate()
    except BaseException:
        if process.poll() is None:
            process.send_signal(signal.SIGINT if sys.platform != "win32" else signal.SIGTERM)
        process.communicate()
        raise
    if process.returncode in (INTERRUPTED, -signal.SIGINT):
        raise KeyboardInterrupt
    document: dict[str, Any] | None = json.loads(printed) if printed.strip() else None
    if process.returncode not in accept or document is None:
        lines = [line for line in said.splitlines() if line.startswith("error: ")] or said.splitlines() or [""]
        raise _errors.of(process.returncode, lines[0].removeprefix("error: ") if lines else "", document)
    return document
