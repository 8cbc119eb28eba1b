"""A script for onnxruntime's static quantization, ported: five lines changed.

    python port.py MODEL ARRAYS OUTPUT

ARRAYS is an `.npz` with an array `image`. Before:

    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
    ...
    quantize_static(model, output, Reader(images), quant_format=QuantFormat.QDQ, per_channel=True)
"""

import sys

import numpy as np
from onnxruntime.quantization import CalibrationDataReader

import msq_onnx


class Reader(CalibrationDataReader):
    """Feeds of one image, as before."""

    def __init__(self, images: np.ndarray) -> None:
        self.feeds = iter({"image": image[np.newaxis]} for image in images)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next feed."""
        return next(self.feeds, None)


model, arrays, output = sys.argv[1:]
images = np.load(arrays)["image"]
report = msq_onnx.quantize(model, Reader(images), output=output, format="qdq")
assert report.quality is not None
agreement = report.quality.agreement.same_argmax if report.quality.agreement else None
said = "not scores" if agreement is None else f"{agreement:.1%}"
print(f"{report.float_bytes} → {report.bytes} bytes, agreement {said}")
