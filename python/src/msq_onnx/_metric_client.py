"""The command that scores a network: asks the process that holds the metric function, see `_metric.py`.

Runs in an interpreter of its own, without packages.
"""

import json
import os
import socket
import sys


def _main() -> str:
    port, token = os.environ["MSQ_ONNX_METRIC"].split()
    request = {"token": token, "outputs": sys.argv[1], "labels": sys.argv[2]}
    with socket.create_connection(("127.0.0.1", int(port))) as connection:
        connection.sendall(json.dumps(request).encode() + b"\n")
        with connection.makefile("r", encoding="utf-8") as answer:
            return answer.read()


if __name__ == "__main__":
    print(_main() or sys.exit("the metric function raised an exception"))
