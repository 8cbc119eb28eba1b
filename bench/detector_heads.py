"""Ends of detectors as exporters write them, behind the layers of a trained one.

    python detector_heads.py DETECTOR.onnx --out OUT --msq path/to/msq-onnx --calib IMAGES --test IMAGES

DETECTOR is a YOLO without distributions: per level a convolution of the distances to the four sides, in strides, and
one of the logits of classes. Its end is replaced:

* `dfl`: YOLOv8 and 11. A distance d is the mean of softmax(z) over 0 to 15 with z_k = 2·a·k·d − a·k², a Gaussian about
  d, so that the convolution of 16 channels per side follows from that of the distance. `[1, 4 + C, boxes]` in pixels.
* `gfl`: the same by a product with a matrix, as NanoDet and RTMDet; boxes and scores in two outputs.
* `end2end`: centre and size, corners by a product with a 4×4 matrix, `NonMaxSuppression` in the graph, as YOLOv5 and 7.
* `rows`: distances, being a thing and classes in one `Concat` per level, as YOLOX and FCOS: `[1, boxes, 4 + 1 + C]`.

Each, and the model as it is, is quantized at 8 bits and with weights of 4, and compared in onnxruntime with its own
float model on test images of 640×640 pixels. Needs Pillow.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.utils import Extractor
from PIL import Image
from sessions import session

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
from coco_map import Boxes, overlaps, read

SIZE = 640
STRIDES = (8, 16, 32)
BINS = 16
SHARPNESS = 0.25
# When a box counts, may be a partner, and is the same: those of docs/measure.md.
SCORE, PARTNER, OVERLAP = 0.25, 0.2, 0.5


class Head:
    """Nodes behind the trained layers."""

    def __init__(self, body: onnx.ModelProto, regress: list[str], classify: list[str]) -> None:
        self.model = onnx.ModelProto()
        self.model.CopyFrom(body)
        self.regress, self.classify = regress, classify
        del self.model.graph.output[:]
        self.classes = len(self.weights(classify[0])[1])
        self.count = 0

    def add(self, op: str, *inputs: str | np.ndarray, **attributes: object) -> str:
        """A node with one output."""
        names = [self.constant(one) if isinstance(one, np.ndarray) else one for one in inputs]
        self.count += 1
        output = f"/head/{op}_{self.count}"
        self.model.graph.node.append(helper.make_node(op, names, [output], name=output, **attributes))
        return output

    def constant(self, array: np.ndarray) -> str:
        self.count += 1
        name = f"head.{self.count}"
        self.model.graph.initializer.append(numpy_helper.from_array(array, name))
        return name

    def weights(self, value: str) -> tuple[np.ndarray, np.ndarray, onnx.NodeProto]:
        """Weight and bias of the convolution that computes a value."""
        node = next(node for node in self.model.graph.node if value in node.output)
        arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in self.model.graph.initializer}
        return arrays[node.input[1]], arrays[node.input[2]], node

    def flat(self, values: list[str], channels: int) -> list[str]:
        """Each level as `[1, channels, positions]`."""
        return [self.add("Reshape", value, np.array([1, channels, -1])) for value in values]

    def distances(self) -> str:
        """`[1, 4, boxes]`."""
        return self.add("Concat", *self.flat(self.regress, 4), axis=2)

    def distributions(self) -> list[str]:
        """Per level the logits of 16 distances per side, from a wider convolution."""
        found = []
        k = np.arange(BINS, dtype=np.float32)
        slope, offset = 2 * SHARPNESS * (k - k.mean()), -SHARPNESS * (k**2 - (k**2).mean())
        for value in self.regress:
            weight, bias, node = self.weights(value)
            wide = (weight[:, None] * slope[None, :, None, None, None]).reshape(4 * BINS, *weight.shape[1:])
            bias = (bias[:, None] * slope + offset).reshape(-1)
            attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            arrays = (wide.astype(np.float32), bias.astype(np.float32))
            found.append(self.add("Conv", node.input[0], *arrays, **attributes))
        return found

    def corners(self, distances: str, shape: tuple[int, ...], axis: int) -> tuple[str, str]:
        """Left top and right bottom in strides, from distances to the sides."""
        points = anchors()[0].reshape(shape)
        near = self.add("Slice", distances, np.array([0]), np.array([2]), np.array([axis]))
        far = self.add("Slice", distances, np.array([2]), np.array([4]), np.array([axis]))
        return self.add("Sub", points, near), self.add("Add", points, far)

    def finish(self, path: Path, *outputs: str, rank: int = 3) -> None:
        for name in outputs:
            self.model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * rank))
        onnx.checker.check_model(self.model)
        onnx.save(self.model, path)


def anchors() -> tuple[np.ndarray, np.ndarray]:
    """Centres of all positions in strides `[2, boxes]`, and their strides `[boxes]`."""
    points, strides = [], []
    for stride in STRIDES:
        side = np.arange(SIZE // stride, dtype=np.float32) + 0.5
        x, y = np.meshgrid(side, side)
        points.append(np.stack([x.ravel(), y.ravel()]))
        strides.append(np.full(x.size, stride, np.float32))
    return np.concatenate(points, 1), np.concatenate(strides)


def centred(head: Head, near: str, far: str, axis: int) -> str:
    """Centre and size."""
    middle = head.add("Div", head.add("Add", near, far), np.array(2, np.float32))
    return head.add("Concat", middle, head.add("Sub", far, near), axis=axis)


def dfl(head: Head, path: Path) -> None:
    joined = [head.add("Concat", *pair, axis=1) for pair in zip(head.distributions(), head.classify, strict=True)]
    whole = head.add("Concat", *head.flat(joined, 4 * BINS + head.classes), axis=2)
    box = head.add("Slice", whole, np.array([0]), np.array([4 * BINS]), np.array([1]))
    scores = head.add("Slice", whole, np.array([4 * BINS]), np.array([4 * BINS + head.classes]), np.array([1]))
    rows = head.add("Transpose", head.add("Reshape", box, np.array([1, 4, BINS, -1])), perm=[0, 2, 1, 3])
    table = np.arange(BINS, dtype=np.float32).reshape(1, BINS, 1, 1)
    distances = head.add("Reshape", head.add("Conv", head.add("Softmax", rows, axis=1), table), np.array([1, 4, -1]))
    boxes = centred(head, *head.corners(distances, (1, 2, -1), 1), 1)
    pixels = head.add("Mul", boxes, anchors()[1].reshape(1, 1, -1))
    head.finish(path, head.add("Concat", pixels, head.add("Sigmoid", scores), axis=1))


def gfl(head: Head, path: Path) -> None:
    logits = head.add("Concat", *head.flat(head.distributions(), 4 * BINS), axis=2)
    rows = head.add("Reshape", head.add("Transpose", logits, perm=[0, 2, 1]), np.array([1, -1, 4, BINS]))
    product = head.add("MatMul", head.add("Softmax", rows, axis=3), np.arange(BINS, dtype=np.float32).reshape(BINS, 1))
    distances = head.add("Reshape", product, np.array([1, -1, 4]))
    distances = head.add("Transpose", distances, perm=[0, 2, 1])
    near, far = head.corners(distances, (1, 2, -1), 1)
    pixels = head.add("Mul", head.add("Concat", near, far, axis=1), anchors()[1].reshape(1, 1, -1))
    scores = head.add("Sigmoid", head.add("Concat", *head.flat(head.classify, head.classes), axis=2))
    head.finish(path, head.add("Transpose", pixels, perm=[0, 2, 1]), head.add("Transpose", scores, perm=[0, 2, 1]))


def end2end(head: Head, path: Path) -> None:
    boxes = centred(head, *head.corners(head.distances(), (1, 2, -1), 1), 1)
    pixels = head.add("Mul", boxes, anchors()[1].reshape(1, 1, -1))
    scores = head.add("Sigmoid", head.add("Concat", *head.flat(head.classify, head.classes), axis=2))
    whole = head.add("Transpose", head.add("Concat", pixels, scores, axis=1), perm=[0, 2, 1])
    own = head.add("Slice", whole, np.array([0]), np.array([4]), np.array([2]))
    scores = head.add("Slice", whole, np.array([4]), np.array([4 + head.classes]), np.array([2]))
    matrix = np.array([[1, 0, 1, 0], [0, 1, 0, 1], [-0.5, 0, 0.5, 0], [0, -0.5, 0, 0.5]], np.float32)
    corners = head.add("MatMul", own, matrix)
    limits = (np.array([100]), np.array([0.5], np.float32), np.array([0.25], np.float32))
    chosen = head.add("NonMaxSuppression", corners, head.add("Transpose", scores, perm=[0, 2, 1]), *limits)
    at = head.add("Gather", chosen, np.array([2]), axis=1)
    image = head.add("Cast", head.add("Gather", chosen, np.array([0]), axis=1), to=TensorProto.FLOAT)
    class_ = head.add("Cast", head.add("Gather", chosen, np.array([1]), axis=1), to=TensorProto.FLOAT)
    at = head.add("Reshape", at, np.array([-1]))
    rows = [head.add("Squeeze", head.add("Gather", v, at, axis=1), np.array([0])) for v in (corners, scores)]
    best = head.add("ReduceMax", rows[1], np.array([1]))
    head.finish(path, head.add("Concat", image, rows[0], class_, best, axis=1), rank=2)


def rows(head: Head, path: Path) -> None:
    levels = []
    for distances, logits in zip(head.regress, head.classify, strict=True):
        score = head.add("Sigmoid", logits)
        # How likely it is a thing: a convolution of its own, whose answer is sure.
        node = head.weights(logits)[2]
        weight = np.zeros((1, *head.weights(logits)[0].shape[1:]), np.float32)
        thing = head.add("Sigmoid", head.add("Conv", node.input[0], weight, np.array([9], np.float32)))
        levels.append(head.add("Concat", distances, thing, score, axis=1))
    whole = head.add("Transpose", head.add("Concat", *head.flat(levels, 5 + head.classes), axis=2), perm=[0, 2, 1])
    distances = head.add("Slice", whole, np.array([0]), np.array([4]), np.array([2]))
    scores = head.add("Slice", whole, np.array([4]), np.array([5 + head.classes]), np.array([2]))
    points = np.ascontiguousarray(anchors()[0].T).reshape(1, -1, 2)
    near = head.add("Slice", distances, np.array([0]), np.array([2]), np.array([2]))
    far = head.add("Slice", distances, np.array([2]), np.array([4]), np.array([2]))
    boxes = centred(head, head.add("Sub", points, near), head.add("Add", points, far), 2)
    pixels = head.add("Mul", boxes, anchors()[1].reshape(1, -1, 1))
    head.finish(path, head.add("Concat", pixels, scores, axis=2))


HEADS = {"dfl": dfl, "gfl": gfl, "end2end": end2end, "rows": rows}
PLANS = {"8 bits": "", "weights of 4 bits": "--weight-bits 4"}


def body(model: Path) -> tuple[onnx.ModelProto, list[str], list[str]]:
    """The detector up to its last convolutions, for images of one size, and what they compute."""
    whole = onnx.load(model)
    last = [node.output[0] for node in whole.graph.node if node.op_type == "Conv"]
    regress = [name for name in last if name.endswith(".2/Conv_output_0") and "one2one_cv2." in name]
    classify = [name for name in last if name.endswith(".2/Conv_output_0") and "one2one_cv3." in name]
    for axis, length in zip(whole.graph.input[0].type.tensor_type.shape.dim, (1, 3, SIZE, SIZE), strict=True):
        axis.dim_value = length
    inferred = onnx.shape_inference.infer_shapes(whole)
    return Extractor(inferred).extract_model([whole.graph.input[0].name], regress + classify), regress, classify


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    for name in ("out", "msq", "calib", "test"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--only", help="ends whose name holds this; `own` is that of the model")
    parser.add_argument("--args", default="", help="more arguments for msq-onnx, in one string")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    print("| end | | boxes | kept | invented | worst overlap | left in float besides |\n|---|---|---|---|---|---|---|")
    for name in ("own", *HEADS):
        if args.only and args.only not in name:
            continue
        wanted = args.model
        if name in HEADS:
            wanted = args.out / f"{name}.onnx"
            HEADS[name](Head(*body(args.model)), wanted)
        for plan, flags in PLANS.items():
            output = args.out / f"{name}-{plan.replace(' ', '_')}.onnx"
            data = ["--calib", str(args.calib), "--preset", "yolo", *shlex.split(args.args)]
            command = [str(args.msq), str(wanted), "-o", str(output), "--json", *data, *shlex.split(flags)]
            ran = subprocess.run(command, capture_output=True, text=True, check=False)
            if ran.returncode:
                print(f"| {name} | {plan} | {ran.stderr.strip()} |")
                continue
            layers = sum(layer["op"] in ("Conv", "MatMul", "Gemm") for layer in json.loads(ran.stdout)["kept"])
            float_, own = (found(model, args.test) for model in (wanted, output))
            figures = matched(float_, own)
            print(
                f"| {name} | {plan} | {figures[0]} | {figures[1]} | {figures[2]} | {figures[3]:.3f} | {layers} |",
                flush=True,
            )


def found(model: Path, images: Path) -> list[Boxes]:
    """What onnxruntime finds in images of the model's size."""
    running = session(model)
    boxes = []
    for path in sorted(images.iterdir()):
        pixels = np.asarray(Image.open(path).convert("RGB"), np.float32).transpose(2, 0, 1)[None] / 255
        outputs = running.run(None, {running.get_inputs()[0].name: pixels})
        if outputs[0].ndim == 2:
            rows = outputs[0]
            boxes.append(Boxes(rows[:, 1:5], rows[:, 5].astype(int), rows[:, 6]))
        else:
            boxes += read({str(at): output for at, output in enumerate(outputs)}, 0.5)
    return boxes


def matched(wanted: list[Boxes], own: list[Boxes]) -> tuple[int, int, int, float]:
    """Boxes of the float model, those kept, those invented, the least overlap of those kept, as in docs/measure.md."""
    kept = invented = 0
    worst = 1.0
    for first, second in zip(wanted, own, strict=True):
        partners = [pair(first, second, at) for at in np.flatnonzero(first.scores >= SCORE)]
        hits = [overlap for overlap in partners if overlap >= OVERLAP]
        kept += len(hits)
        worst = min([worst, *hits])
        invented += sum(pair(second, first, at) < OVERLAP for at in np.flatnonzero(second.scores >= SCORE))
    return sum(int((one.scores >= SCORE).sum()) for one in wanted), kept, invented, worst


def pair(own: Boxes, others: Boxes, at: int) -> float:
    """The largest overlap of a box with one of the same class among others."""
    same = (others.classes == own.classes[at]) & (others.scores >= PARTNER)
    return float(overlaps(own.corners[[at]], others.corners[same]).max(initial=0.0))


if __name__ == "__main__":
    main()
