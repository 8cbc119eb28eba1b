"""Run one command and write its wall-clock time, CPU time and peak memory as JSON.

    measure.py OUT.json COMMAND ARGUMENT...

A process's peak resident memory starts at that of the process it was forked
from. This launcher stays small, so that the numbers are the command's own.
"""

import json
import os
import subprocess
import sys
import time


def main() -> None:
    """Run, wait, write."""
    start = time.perf_counter()
    process = subprocess.Popen(sys.argv[2:])
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    unit = 1 if sys.platform == "darwin" else 1024
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        json.dump(
            {
                "exit": process.returncode,
                "wall_s": wall,
                "cpu_s": usage.ru_utime + usage.ru_stime,
                "peak_mb": usage.ru_maxrss * unit / 1e6,
            },
            file,
        )


if __name__ == "__main__":
    main()
