"""Write a network of ResNet50's shape with random weights.

25.5 million weights, batch-norms apart, images of 224 × 224: for sizes and speeds, which do not depend on what the
weights are. Batch-norm variances fit the weights, so that activations keep a sensible size through all layers.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

# Width, blocks and stride of each stage; a block ends with four times its width.
STAGES = [(64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)]
EXPANSION = 4
CLASSES = 1000
OPSET = 17
IR_VERSION = 8


class Builder:
    """Nodes and initializers as they come."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def constant(self, name: str, values: np.ndarray) -> str:
        """An initializer."""
        self.initializers.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def node(self, op: str, inputs: list[str], name: str, **attributes: object) -> str:
        """A node whose output bears its name."""
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def convolution(
        self,
        source: str,
        name: str,
        shape: tuple[int, int, int],
        stride: int = 1,
        gain: float = 1.0,
        power: float = 1.0,
    ) -> str:
        """Convolution (outputs, inputs, kernel) and batch-norm; `power` is the mean square of what comes in."""
        outputs, inputs, kernel = shape
        fan_in = inputs * kernel * kernel
        weight = self.random.normal(0, (2 / fan_in) ** 0.5, (outputs, inputs, kernel, kernel))
        pad = kernel // 2
        out = self.node(
            "Conv",
            [source, self.constant(f"{name}.weight", weight)],
            f"{name}.conv",
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[pad] * 4,
        )
        statistics = {
            "scale": gain * self.random.uniform(0.8, 1.2, outputs),
            "bias": self.random.normal(0, 0.1, outputs),
            "mean": self.random.normal(0, 0.1, outputs),
            "var": 2 * power * self.random.uniform(0.8, 1.2, outputs),
        }
        inputs_of_norm = [self.constant(f"{name}.{key}", values) for key, values in statistics.items()]
        return self.node("BatchNormalization", [out, *inputs_of_norm], f"{name}.norm")

    def block(self, source: str, name: str, width: int, inputs: int, stride: int) -> str:
        """A bottleneck block."""
        outputs = EXPANSION * width
        out = self.node("Relu", [self.convolution(source, f"{name}.1", (width, inputs, 1))], f"{name}.1.relu")
        out = self.convolution(out, f"{name}.2", (width, width, 3), stride, power=0.5)
        out = self.node("Relu", [out], f"{name}.2.relu")
        out = self.convolution(out, f"{name}.3", (outputs, width, 1), gain=0.3, power=0.5)
        if inputs != outputs or stride != 1:
            source = self.convolution(source, f"{name}.shortcut", (outputs, inputs, 1), stride)
        return self.node("Relu", [self.node("Add", [out, source], f"{name}.add")], f"{name}.relu")


def build(seed: int = 0) -> onnx.ModelProto:
    """The model."""
    builder = Builder(seed)
    out = builder.node("Relu", [builder.convolution("input", "stem", (64, 3, 7), 2)], "stem.relu")
    out = builder.node("MaxPool", [out], "pool", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    channels = 64
    for stage, (width, blocks, stride) in enumerate(STAGES, 1):
        for index in range(blocks):
            out = builder.block(out, f"stage{stage}.{index}", width, channels, stride if index == 0 else 1)
            channels = EXPANSION * width
    out = builder.node("Flatten", [builder.node("GlobalAveragePool", [out], "mean")], "flat")
    weight = builder.constant("head.weight", builder.random.normal(0, channels**-0.5, (CLASSES, channels)))
    bias = builder.constant("head.bias", builder.random.normal(0, 0.1, CLASSES))
    builder.node("Gemm", [out, weight, bias], "logits", transB=1)
    graph = helper.make_graph(
        builder.nodes,
        "resnet50",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, 224, 224])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", CLASSES])],
        builder.initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(model)
    return model


def main() -> None:
    """Write the model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    onnx.save(build(args.seed), args.output)


if __name__ == "__main__":
    main()
