"""Load one model in a fresh process: processor seconds to create the session in onnxruntime, and memory at most.

    load_cost.py MODEL

Memory is the process's peak less its peak before the load, onnxruntime imported. To be started through `measure.py`,
whose reason holds here as well.
"""

import json
import resource
import sys
import time

import onnxruntime as ort


def peak_mb() -> float:
    """The most memory this process has had resident."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def main() -> None:
    """Load, print."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    before = peak_mb()
    start = time.process_time()
    session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
    seconds = time.process_time() - start
    json.dump({"load_s": seconds, "load_mb": peak_mb() - before, "outputs": len(session.get_outputs())}, sys.stdout)


if __name__ == "__main__":
    main()
