"""A metric that is a function of this process, called by the command through a socket of this machine.

``--metric-command`` starts ``python -m msq_onnx._metric``, which hands over the paths of the outputs and the labels, and
prints the number that comes back.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
import threading
from collections.abc import Iterator
from multiprocessing.connection import Client, Listener
from pathlib import Path
from typing import Any, Callable

import numpy as np

Metric = Callable[["dict[str, np.ndarray[Any, Any]]", "dict[str, np.ndarray[Any, Any]]"], float]
"""From outputs by name, the first axis counting samples, and labels (``index``, the number of each sample in the data, and
``y`` if there are labels) to a number; more is better."""

KEY = "MSQ_ONNX_METRIC_KEY"


def _read(path: str) -> dict[str, np.ndarray[Any, Any]]:
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


@contextlib.contextmanager
def serving(metric: Metric | None) -> Iterator[list[str]]:
    """Serves a metric meanwhile; gives the arguments that name it. What it raises is raised here."""
    if metric is None:
        yield []
        return
    key = os.urandom(32)
    failed: list[BaseException] = []
    with Listener(("localhost", 0), authkey=key) as listener:
        host, port = listener.address[0], int(listener.address[1])

        def serve() -> None:
            while True:
                try:
                    with listener.accept() as connection:
                        paths = connection.recv()
                        if paths is None:
                            return
                        try:
                            connection.send(float(metric(*map(_read, paths))))
                        except BaseException as error:  # noqa: BLE001 - raised again where the metric was given
                            failed.append(error)
                            connection.send(None)
                except (OSError, EOFError):
                    return

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        before = os.environ.get(KEY)
        os.environ[KEY] = key.hex()
        start = [sys.executable, str(Path(__file__).resolve()), host, str(port)]
        try:
            yield ["--metric-command", f"{shlex.join(start)} {{outputs}} {{labels}}"]
        except BaseException:
            if failed:
                raise failed[0] from None
            raise
        finally:
            if before is None:
                del os.environ[KEY]
            else:
                os.environ[KEY] = before
            with contextlib.suppress(OSError, EOFError), Client((host, port), authkey=key) as connection:
                connection.send(None)
            thread.join()


def _ask(host: str, port: str, outputs: str, labels: str) -> int:
    with Client((host, int(port)), authkey=bytes.fromhex(os.environ[KEY])) as connection:
        connection.send((outputs, labels))
        number = connection.recv()
    if number is None:
        return 1
    print(repr(number))
    return 0


if __name__ == "__main__":
    sys.exit(_ask(*sys.argv[1:]))
