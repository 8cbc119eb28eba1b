"""The module against the command: `MSQ_ONNX` is its path, `DIGITS` the folder of the sample model."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader

import msq_onnx

DIGITS = Path(os.environ["DIGITS"])
MODEL = DIGITS / "digits.onnx"
CALIB = DIGITS / "calib.npz"


def images(count: int) -> np.ndarray:
    """Calibration images as the model takes them."""
    with np.load(CALIB) as file:
        name = next(name for name in file.files if file[name].ndim == 4)
        return file[name][:count].astype(np.float32) / (255 if file[name].dtype == np.uint8 else 1)


def outputs(model: bytes | str, array: np.ndarray) -> np.ndarray:
    """What onnxruntime makes of images."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: array})[0]


class Reader(CalibrationDataReader):
    """As in onnxruntime's examples."""

    def __init__(self, array: np.ndarray) -> None:
        """One feed per image."""
        self.feeds = iter({"image": row[None]} for row in array)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next feed, or none."""
        return next(self.feeds, None)


class Quantizing(unittest.TestCase):
    """`quantize` and what it takes."""

    def test_forms_of_data_and_models_give_the_same_file(self) -> None:
        """Paths, bytes and messages; arrays, feeds and readers."""
        array = images(24)
        name = onnx.load(MODEL).graph.input[0].name
        self.assertEqual(name, "image")
        first = msq_onnx.quantize(MODEL, {"image": array}, weight_bits=4)
        self.assertIsNone(first.path)
        self.assertEqual(first.bytes, len(first.model))
        self.assertGreater(first.float_bytes, 3 * first.bytes)
        self.assertEqual(len(first.layers), 10)
        self.assertIn("times smaller", first._repr_html_())
        others = [
            (MODEL.read_bytes(), array),
            (onnx.load(MODEL), [{"image": row[None]} for row in array]),
            (str(MODEL), Reader(array)),
        ]
        for model, data in others:
            self.assertEqual(msq_onnx.quantize(model, data, weight_bits=4).model, first.model)
        alike = (outputs(first.model, array).argmax(1) == outputs(str(MODEL), array).argmax(1)).mean()
        self.assertGreater(alike, 0.9)

    def test_a_file_is_written_where_asked(self) -> None:
        """`output`, and flags of all kinds."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "small.onnx"
            report = msq_onnx.quantize(
                MODEL, CALIB, output=path, weight_bits="ternary", functions=True, repair=False, skip=["head"], samples=32
            )
            self.assertEqual((report.path, report.model), (path, None))
            self.assertEqual(path.stat().st_size, report.bytes)
            self.assertEqual(report["options"]["repair"]["repair"], False)
            self.assertEqual(os.listdir(folder), ["small.onnx"])
            self.assertEqual(msq_onnx.inspect(path)["producer"], "msq-onnx")

    def test_samples_of_many_lengths(self) -> None:
        """Feeds whose axes differ."""
        weight = onnx.numpy_helper.from_array(np.random.default_rng(0).standard_normal((8, 4)).astype(np.float32), "w")
        value = onnx.helper.make_tensor_value_info
        nodes = [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])]
        graph = onnx.helper.make_graph(
            nodes, "g", [value("x", 1, [1, "n", 8])], [value("y", 1, [1, "n", 4])], [weight]
        )
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
        random = np.random.default_rng(1)
        feeds = ({"x": random.standard_normal((1, length, 8)).astype(np.float32)} for length in range(2, 14))
        report = msq_onnx.quantize(model, feeds)
        self.assertEqual(report["samples"], 12)

    def test_a_metric_is_a_function(self) -> None:
        """It sees outputs and labels, and drives a search; what it raises comes out."""
        seen = []

        def accuracy(outputs: dict, labels: dict) -> float:
            (logits,) = outputs.values()
            seen.append(logits.shape)
            return float((logits.argmax(1) == labels["y"]).mean())

        evaluation = msq_onnx.evaluate(MODEL, DIGITS / "test.npz", metric=accuracy, samples=50)
        self.assertEqual(seen, [(50, 10)])
        self.assertGreater(evaluation.accuracy, 0.9)

        def broken(outputs: dict, labels: dict) -> float:
            raise ZeroDivisionError("no such metric")

        with self.assertRaisesRegex(ZeroDivisionError, "no such metric"):
            msq_onnx.evaluate(MODEL, DIGITS / "test.npz", metric=broken, samples=50)


class Others(unittest.TestCase):
    """The other commands, and failures."""

    def test_search_compare_lint(self) -> None:
        """Documents of each."""
        found = msq_onnx.search(MODEL, CALIB, target_bits=4, search="sensitivity", samples=64)
        self.assertEqual(found.plan["version"], 1)
        small = msq_onnx.quantize(MODEL, CALIB, samples=32)
        self.assertIn("starts", msq_onnx.compare(MODEL, small.model, CALIB, samples=16).document)
        self.assertEqual([finding["rule"] for finding in msq_onnx.lint(MODEL).findings], ["not-quantized"])

    def test_exit_codes_are_exceptions(self) -> None:
        """One class each, with the command's line."""
        with self.assertRaisesRegex(msq_onnx.UsageError, "--weight-bitz"):
            msq_onnx.quantize(MODEL, CALIB, weight_bitz=4)
        with self.assertRaises(msq_onnx.ModelError) as caught:
            msq_onnx.quantize(b"no model", CALIB)
        self.assertEqual(caught.exception.exit_code, 3)
        with self.assertRaises(msq_onnx.DataError):
            msq_onnx.quantize(MODEL, {"image": np.full((2, 1, 8, 8), np.nan, np.float32)})
        with self.assertRaisesRegex(TypeError, "complex64"):
            msq_onnx.quantize(MODEL, [{"image": np.zeros((1, 1, 8, 8), np.complex64)}])
        with self.assertRaises(msq_onnx.TargetError) as missed:
            msq_onnx.quantize(MODEL, CALIB, target_size="1KB", samples=32)
        self.assertGreater(len(missed.exception.report.model), 1000)

    @unittest.skipIf(sys.platform == "win32", "signals")
    def test_an_interruption_ends_the_command(self) -> None:
        """Ctrl-C in the middle: KeyboardInterrupt, no process and no folder left."""
        with tempfile.TemporaryDirectory() as folder:
            code = "import msq_onnx, sys; msq_onnx.quantize(sys.argv[1], sys.argv[2], target_bits=3)"
            environment = {**os.environ, "TMPDIR": folder}
            command = [sys.executable, "-c", code, str(MODEL), str(CALIB)]
            process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
            while not os.listdir(folder):
                time.sleep(0.01)
            time.sleep(0.2)
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=60)
            self.assertIn("KeyboardInterrupt", said)
            self.assertEqual(os.listdir(folder), [])


if __name__ == "__main__":
    unittest.main()
