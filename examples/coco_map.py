r"""Mean average precision of a detector, as a metric of msq-onnx. Needs NumPy alone.

    msq-onnx detector.onnx -o small.onnx --calib images/ --preset yolo --max-drop 1% \
        --metric-command 'python coco_map.py {outputs} {labels} --truth annotations.json --size 640x640'

`{outputs}` and `{labels}` are what msq-onnx puts there. The truth is in COCO's format: boxes in pixels of the original
images, which are found by their file names and brought to the model's pixels by `--fit` as the images were:
`letterbox` for the preset `yolo`, `corner` for a letterbox at the top left, `stretch` for `--resize WxH`. Classes are
numbered in the order of the categories' ids. Annotations marked as crowds are left out.

Outputs are read in these forms: final boxes `[N, boxes, 6]` (corners, score, class), `[N, 4 + C, boxes]` (centre and
size, scores of classes), `[N, boxes, 5 + C]` (the same with a score of being a thing before the classes'), and
`[N, boxes, 4]` (corners) beside `[N, boxes, C]` in two outputs. All but final boxes go through non-maximum suppression.

The score is the mean over classes and over the overlaps of `--overlaps` of the average precision, by COCO's 101 points
of recall, from the 100 best boxes of each image.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

LEAST_SCORE = 0.001
BOXES_PER_IMAGE = 100
CANDIDATES = 2000


@dataclass
class Boxes:
    """Boxes of one image: corners `[n, 4]`, classes `[n]` and, of what a model finds, scores `[n]`."""

    corners: np.ndarray
    classes: np.ndarray
    scores: np.ndarray

    def best(self, count: int) -> Boxes:
        """Those of the highest scores, in falling order."""
        order = np.argsort(-self.scores, kind="stable")[:count]
        return Boxes(self.corners[order], self.classes[order], self.scores[order])


def overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of every box of `a` with every one of `b`."""
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    both = (high - low).clip(0).prod(-1)
    area = [(box[:, 2:] - box[:, :2]).clip(0).prod(-1) for box in (a, b)]
    return both / np.maximum(area[0][:, None] + area[1][None] - both, 1e-9)


def suppressed(found: Boxes, overlap: float) -> Boxes:
    """Without boxes that a better one of their class overlaps by more."""
    found = found.best(CANDIDATES)
    kept: list[int] = []
    for at in range(len(found.scores)):
        rivals = [other for other in kept if found.classes[other] == found.classes[at]]
        if not rivals or overlaps(found.corners[[at]], found.corners[rivals]).max() <= overlap:
            kept.append(at)
    return Boxes(found.corners[kept], found.classes[kept], found.scores[kept])


def classified(boxes: np.ndarray, scores: np.ndarray, centred: bool) -> Boxes:
    """Boxes of the best class of each row."""
    if centred:
        boxes = np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], 1)
    return Boxes(boxes, scores.argmax(1), scores.max(1))


def read(outputs: dict[str, np.ndarray], overlap: float) -> list[Boxes]:
    """The boxes that a model finds, image by image."""
    arrays = [array for array in outputs.values() if array.ndim == 3]
    four = [array for array in arrays if array.shape[2] == 4]
    found = []
    if len(arrays) == 2 and four:
        scores = next(array for array in arrays if array is not four[0])
        found = [classified(*pair, centred=False) for pair in zip(four[0], scores, strict=True)]
    elif len(arrays) != 1:
        shapes = {name: array.shape for name, array in outputs.items()}
        raise SystemExit(f"no boxes in outputs of shapes {shapes}")
    elif arrays[0].shape[2] == 6 and (arrays[0][..., 5] % 1 == 0).all():
        final = [Boxes(rows[:, :4], rows[:, 5].astype(int), rows[:, 4]) for rows in arrays[0]]
        kept = [one.scores >= LEAST_SCORE for one in final]
        return [Boxes(b.corners[k], b.classes[k], b.scores[k]) for b, k in zip(final, kept, strict=True)]
    elif arrays[0].shape[1] < arrays[0].shape[2]:
        found = [classified(image[:4].T, image[4:].T, centred=True) for image in arrays[0]]
    else:
        found = [classified(rows[:, :4], rows[:, 4:5] * rows[:, 5:], centred=True) for rows in arrays[0]]
    kept = [one.scores >= LEAST_SCORE for one in found]
    sure = [Boxes(b.corners[k], b.classes[k], b.scores[k]) for b, k in zip(found, kept, strict=True)]
    return [suppressed(one, overlap) for one in sure]


@dataclass
class Fit:
    """How images were brought to the model's size."""

    size: tuple[int, int]
    way: str
    multiple: int

    def of(self, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
        """What corners are multiplied with and moved by from an image of this size to the model's input."""
        ratios = (self.size[0] / width, self.size[1] / height)
        if self.way == "stretch":
            return np.array(ratios * 2), np.zeros(4)
        missing = [whole - round(own * min(ratios)) for whole, own in zip(self.size, (width, height), strict=True)]
        padded = [n % self.multiple if self.multiple else n for n in missing]
        return np.full(4, min(ratios)), np.array([0 if self.way == "corner" else n // 2 for n in padded] * 2, float)


def truth(path: Path, files: list[str], fit: Fit) -> list[Boxes]:
    """The true boxes of each file in the model's pixels."""
    document = json.loads(path.read_text())
    numbers = {id_: number for number, id_ in enumerate(sorted(entry["id"] for entry in document["categories"]))}
    images = {Path(image["file_name"]).name: image for image in document["images"]}
    of_image: dict[int, list[dict]] = {}
    for annotation in document["annotations"]:
        if not annotation.get("iscrowd"):
            of_image.setdefault(annotation["image_id"], []).append(annotation)
    found = []
    for file in files:
        image = images.get(Path(file).name)
        if image is None:
            raise SystemExit(f"`{path}` does not name the image `{file}`")
        scale, offset = fit.of(image["width"], image["height"])
        own = of_image.get(image["id"], [])
        boxes = np.array([entry["bbox"] for entry in own], float).reshape(-1, 4)
        corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1) * scale + offset
        classes = np.array([numbers[entry["category_id"]] for entry in own], int)
        found.append(Boxes(corners, classes, np.ones(len(own))))
    return found


def average_precision(found: list[Boxes], wanted: list[Boxes], class_: int, overlap: float) -> float:
    """Of one class at one overlap: the best boxes choose their partners first."""
    hits: list[tuple[float, bool]] = []
    total = 0
    for own, true in zip(found, wanted, strict=True):
        boxes, partners = own.corners[own.classes == class_], true.corners[true.classes == class_]
        scores = own.scores[own.classes == class_]
        free = np.ones(len(partners), bool)
        total += len(partners)
        shared = overlaps(boxes, partners) if len(partners) else np.zeros((len(boxes), 0))
        for at, score in enumerate(scores):
            candidates = np.where(free, shared[at], -1.0)
            best = int(candidates.argmax()) if len(candidates) else -1
            hit = best >= 0 and candidates[best] >= overlap
            if hit:
                free[best] = False
            hits.append((float(score), hit))
    hits.sort(key=lambda one: -one[0])
    right = np.cumsum([hit for _, hit in hits]) if hits else np.zeros(0)
    precision = right / np.arange(1, len(hits) + 1)
    # Precision at a recall is the best at this recall or a higher one.
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(right / max(total, 1), np.linspace(0, 1, 101), side="left")
    return float(np.mean([envelope[at] if at < len(envelope) else 0.0 for at in places]))


def mean_average_precision(found: list[Boxes], wanted: list[Boxes], thresholds: list[float]) -> float:
    """Over the classes that the truth has, and over overlaps."""
    found = [one.best(BOXES_PER_IMAGE) for one in found]
    classes = sorted({int(class_) for one in wanted for class_ in one.classes})
    if not classes:
        raise SystemExit("the truth has no boxes for these images")
    return float(np.mean([average_precision(found, wanted, c, t) for c in classes for t in thresholds]))


def stacked(path: Path) -> dict[str, np.ndarray]:
    """Outputs by name. One that changes its shape from sample to sample comes in parts, which are padded with zeros."""
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    parts: dict[str, list[tuple[int, np.ndarray]]] = {}
    for name in [name for name in arrays if name.rpartition(".")[2].isdigit() and name.rpartition(".")[0]]:
        parts.setdefault(name.rpartition(".")[0], []).append((int(name.rpartition(".")[2]), arrays.pop(name)))
    for name, found in parts.items():
        samples = [array for _, array in sorted(found, key=lambda one: one[0])]
        shape = np.max([array.shape[1:] for array in samples], 0)
        padded = [np.pad(a, [(0, 0), *((0, n - m) for n, m in zip(shape, a.shape[1:], strict=True))]) for a in samples]
        arrays[name] = np.concatenate(padded)
    return arrays


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("outputs", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--truth", type=Path, required=True, help="annotations in COCO's format")
    parser.add_argument("--size", default="640x640", help="WIDTHxHEIGHT of the model's input")
    parser.add_argument("--fit", choices=["letterbox", "corner", "stretch"], default="letterbox")
    parser.add_argument("--pad-multiple", type=int, default=0, help="as given to msq-onnx")
    parser.add_argument(
        "--overlaps", default="0.5:0.95", help="one intersection over union, or LOW:HIGH in steps of .05"
    )
    parser.add_argument("--suppression", type=float, default=0.7, help="overlap from which on the weaker box goes")
    args = parser.parse_args()
    width, _, height = args.size.partition("x")
    low, _, high = args.overlaps.partition(":")
    thresholds = list(np.arange(float(low), float(high or low) + 1e-6, 0.05))
    with np.load(args.labels) as labels:
        if "file" not in labels:
            sys.exit("the data are no image files: their true boxes cannot be found")
        files = [str(file) for file in labels["file"]]
    fit = Fit((int(width), int(height or width)), args.fit, args.pad_multiple)
    wanted = truth(args.truth, files, fit)
    found = read(stacked(args.outputs), args.suppression)
    if len(found) != len(wanted):
        sys.exit(f"boxes for {len(found)} images, and {len(wanted)} files")
    print(mean_average_precision(found, wanted, thresholds))


if __name__ == "__main__":
    main()
