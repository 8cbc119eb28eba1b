"""Runs the binary: finds it, reads what it prints, passes an interruption on to it."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from ._errors import RunError
from ._types import Progress

if TYPE_CHECKING:
    from ._metric import MetricServer

#: Names the binary to run in the place of the installed one.
BINARY_VARIABLE = "MSQ_ONNX_BINARY"

#: Seconds an interrupted run may take to its next step where the system cannot pass the interruption on.
_GRACE_SECONDS = 10.0
_POLL_SECONDS = 0.05
_GUARD = Path(__file__).with_name("_guard.py")
_LEVELS = {
    "ERROR": logging.ERROR,
    "WARN": logging.WARNING,
    "INFO": logging.INFO,
    "DEBUG": logging.DEBUG,
    "TRACE": logging.DEBUG,
}
_PROGRESS_LINE = '{"phase":'
_LOG_LINE = re.compile(r"\s*(?:\S+Z\s+)?(ERROR|WARN|INFO|DEBUG|TRACE)\s+(.*)")

_logger = logging.getLogger("msq_onnx")


def find_binary() -> Path:
    """The binary: what `MSQ_ONNX_BINARY` names, else the one that was installed with this module.

    Raises:
        RunError: there is none.
    """
    named = os.environ.get(BINARY_VARIABLE)
    if named:
        # Runs may be in another folder.
        found = shutil.which(named)
        return Path(found).absolute() if found else Path(named)
    name = "msq-onnx.exe" if sys.platform == "win32" else "msq-onnx"
    user_scheme = sysconfig.get_preferred_scheme("user")
    folders = [
        Path(sysconfig.get_path("scripts")),
        Path(sysconfig.get_path("scripts", user_scheme)),
        # `pip install --target FOLDER` puts scripts into FOLDER/bin, beside the module.
        Path(__file__).resolve().parent.parent / "bin",
        Path(sys.executable).parent,
    ]
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    looked = ", ".join(f"`{folder}`" for folder in folders)
    raise RunError(f"the binary `{name}` is not installed: it is not in {looked}, and {BINARY_VARIABLE} is not set")


@dataclass(frozen=True)
class Finished:
    """What a run left.

    Attributes:
        exit_code: negative where a signal ended the process.
        output: bytes of stdout.
        error: the message behind `error: ` on stderr, in one line; empty where there is none.
    """

    exit_code: int
    output: bytes
    error: str


class Stopped(Exception):
    """The run was ended since the event given with it was set."""


def run(
    arguments: Sequence[str],
    folder: Path,
    metric: MetricServer | None = None,
    *,
    progress: Callable[[Progress], None] | None = None,
    working_folder: Path | None = None,
    stop: threading.Event | None = None,
) -> Finished:
    """Runs the binary and waits for its end; an exception, `KeyboardInterrupt` above all, ends it first.

    Args:
        arguments: behind the program's name.
        folder: a temporary folder, in which the binary keeps its temporary files too.
        metric: answers the metric command of this run, in this thread.
        progress: called in this thread with where the run is, some times a second.
        working_folder: where the binary runs; here unless given.
        stop: ends the run when it is set. On Linux such a run also ends with this process, however that ends.

    Raises:
        Stopped: `stop` was set.
    """
    environment = {**os.environ, "TMPDIR": str(folder), **(metric.environment if metric else {})}
    if sys.platform == "win32":
        environment |= {"TMP": str(folder), "TEMP": str(folder)}
    with (folder / "stdout").open("w+b") as stdout:
        command = [str(find_binary()), *arguments]
        if stop and sys.platform == "linux":
            command = [sys.executable, "-I", "-S", str(_GUARD), str(os.getpid()), *command]
        process = _start(command, environment, stdout, working_folder)
        assert process.stderr is not None
        log = _Log()
        reader = threading.Thread(target=log.read, args=(process.stderr,), daemon=True)
        reader.start()
        try:
            _wait(process, metric, stop, log, progress)
        except BaseException:
            _end(process)
            raise
        finally:
            reader.join(timeout=_GRACE_SECONDS)
        if progress:
            log.tell(progress)
        stdout.seek(0)
        return Finished(process.returncode, stdout.read(), _message(log.lines))


def _start(
    command: list[str], environment: Mapping[str, str], stdout: IO[bytes], working_folder: Path | None
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            command,
            env=environment,
            cwd=working_folder,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            # A terminal sends Ctrl-C to all processes of its foreground group. The binary takes a second request as
            # one to stop at once, so that it must get the one that `_end` sends and no other.
            start_new_session=True,
        )
    except OSError as error:
        raise RunError(f"the binary `{command[0]}` cannot be started: {error.strerror}") from error


def _wait(
    process: subprocess.Popen[bytes],
    metric: MetricServer | None,
    stop: threading.Event | None,
    log: _Log,
    progress: Callable[[Progress], None] | None,
) -> None:
    if metric is None and stop is None and progress is None:
        process.wait()
        return
    while process.poll() is None:
        if progress:
            log.tell(progress)
        if metric:
            metric.serve(_POLL_SECONDS)
        else:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_POLL_SECONDS)
        if stop and stop.is_set():
            raise Stopped


def _end(process: subprocess.Popen[bytes]) -> None:
    """Asks the process to stop at its next step, which leaves no files behind; another Ctrl-C kills it."""
    try:
        if sys.platform == "win32":
            # The console has sent it the same Ctrl-C.
            process.wait(_GRACE_SECONDS)
        else:
            process.send_signal(signal.SIGINT)
            process.wait()
    except (KeyboardInterrupt, subprocess.TimeoutExpired):
        pass
    finally:
        if process.poll() is None:
            _kill(process)
            process.wait()


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Ends it with the metric command that it may have started."""
    if sys.platform == "win32":
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGKILL)


class _Log:
    """What a run writes to stderr: log lines go to the logger, where the run is to a queue.

    Attributes:
        lines: all others.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._progress: queue.SimpleQueue[Progress] = queue.SimpleQueue()

    def read(self, stderr: IO[bytes]) -> None:
        """Reads all of it."""
        for raw in stderr:
            line = raw.decode("utf-8", "replace").rstrip()
            logged = _LOG_LINE.fullmatch(line)
            if logged:
                _logger.log(_LEVELS[logged[1]], "%s", logged[2])
            elif line.startswith(_PROGRESS_LINE):
                self._progress.put(Progress(**json.loads(line)))
            else:
                self.lines.append(line)

    def tell(self, progress: Callable[[Progress], None]) -> None:
        """Calls the function with what was read since the last time."""
        with contextlib.suppress(queue.Empty):
            while True:
                progress(self._progress.get_nowait())


def _message(lines: list[str]) -> str:
    starts = [number for number, line in enumerate(lines) if line.startswith("error: ")]
    if not starts:
        return "\n".join(lines).strip()
    # Of bad flags the command line says more: how it is used stands behind an empty line.
    message = [lines[starts[-1]].removeprefix("error: ")]
    for line in lines[starts[-1] + 1 :]:
        if not line.strip():
            break
        message.append(line.strip())
    return " ".join(message)
