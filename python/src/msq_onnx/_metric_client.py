"""The command that scores a network: asks the process that holds the metric function, see `_metric.py`.

Runs in an interpreter of its own, without packages.
"""

import json
import os
import socket
import sys


def _main() -> str:
    port, token = os.environ["MSQ_ONNX_METRIC"].split()
    with socket.create_connection(("127.0.0.1", int(port))) as connection:
        connection.sendall(json.dumps([token, sys.argv[1], sys.argv[2]]).encode() + b"\n")
        with connection.makefile("r", encoding="utf-8") as answer:
            return answer.read()


if __name__ == "__main__":
    print(_main() or sys.exit("the metric function raised an exception"))
