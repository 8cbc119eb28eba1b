"""A metric that is a function of this process.

The binary scores a network by a command that gets paths of arrays and prints a number (`--metric-command`). Here the
command is a small client that hands the paths to a socket of this process, which calls the function in the thread that
started the run and sends the number back: nothing is pickled, and the function keeps its state.
"""

from __future__ import annotations

import json
import math
import os
import secrets
import selectors
import shlex
import socket
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from ._errors import UsageError
from ._types import Metric

_CLIENT = Path(__file__).with_name("_metric_client.py")
_REQUEST_BYTES = 1 << 20
_REQUEST_SECONDS = 10


class MetricServer:
    """Listens for the clients of one run, on the loopback interface."""

    def __init__(self, metric: Metric) -> None:
        if not sys.executable:
            raise UsageError("a metric function needs `sys.executable`, which this interpreter does not know")
        self._metric = metric
        self._token = secrets.token_hex(16)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)

    def __enter__(self) -> MetricServer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._selector.close()
        self._listener.close()

    @property
    def environment(self) -> dict[str, str]:
        """Variables that the client needs."""
        return {"MSQ_ONNX_METRIC": f"{self._listener.getsockname()[1]} {self._token}"}

    @property
    def command(self) -> str:
        """The value of `--metric-command`."""
        # Isolated and without packages, an interpreter starts in some 20 ms.
        words = [sys.executable, "-I", "-S", str(_CLIENT)]
        line = subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)
        return f"{line} {{outputs}} {{labels}}"

    def serve(self, seconds: float) -> None:
        """Waits that long for a client and answers it. What the function raises is raised."""
        if not self._selector.select(seconds):
            return
        connection, _ = self._listener.accept()
        with connection:
            paths = self._request(connection)
            if paths:
                score = self._score(*paths)
                connection.sendall(json.dumps(score).encode())

    def _request(self, connection: socket.socket) -> tuple[str, str] | None:
        """The paths that a client sends; none from whatever else has found the port."""
        connection.settimeout(_REQUEST_SECONDS)
        try:
            with connection.makefile("rb") as lines:
                token, outputs, labels = json.loads(lines.readline(_REQUEST_BYTES))
        except (OSError, TypeError, ValueError):
            return None
        return (outputs, labels) if secrets.compare_digest(str(token).encode(), self._token.encode()) else None

    def _score(self, outputs: str, labels: str) -> float:
        score = float(self._metric(_arrays(outputs), _arrays(labels)))
        if not math.isfinite(score):
            raise UsageError(f"the metric function returned {score}; expected a finite number")
        return score


def _arrays(path: str) -> dict[str, np.ndarray[Any, Any]]:
    with np.load(path) as arrays:
        return dict(arrays)
