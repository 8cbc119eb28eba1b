"""Runs a command that ends with the process that started it, even where that is killed. Linux only.

    python _guard.py PARENT COMMAND...

The kernel sends SIGKILL when the parent ends (`prctl`, `PR_SET_PDEATHSIG`); this survives `exec`.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1

parent, command = int(sys.argv[1]), sys.argv[2:]
ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
if os.getppid() != parent:
    sys.exit(1)  # It ended before the kernel was asked.
try:
    os.execv(command[0], command)
except OSError as error:
    sys.exit(f"error: the binary `{command[0]}` cannot be started: {error.strerror}")
