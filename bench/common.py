"""The benchmark tasks: data, preprocessing, decoding, and quality measures.

Importing this module loads numpy only, so that the measured onnxruntime process
(`ort_quantize.py`) pays for nothing it does not use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
IMAGENET_STD = np.array([0.229, 0.224, 0.225], np.float32)
CIFAR_CALIBRATION = 512
LITE_SHORT_SIDE = 256
LITE_CROP = 224
SMALLEST_PROBABILITY = 1e-12

Feed = dict[str, np.ndarray]
Decode = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class EvalSet:
    """Inputs with the right answers; `judged` are the rows that count for accuracy."""

    input_name: str
    inputs: np.ndarray
    labels: np.ndarray
    judged: np.ndarray
    decode: Decode


@dataclass(frozen=True)
class Task:
    """One model with its calibration and test data.

    `samples` yields calibration inputs one at a time; `msq_args` prepares what
    msq-onnx reads in a work folder and returns its calibration arguments. Both
    describe the same samples.
    """

    model: str
    batch: int
    samples: Callable[[Path], Iterator[Feed]]
    msq_args: Callable[[Path, Path], list[str]]
    evaluation: Callable[[Path], EvalSet]


def top1(outputs: np.ndarray) -> np.ndarray:
    """The best class of each row."""
    return outputs.argmax(-1)


def imagenet_normalized(images: np.ndarray) -> np.ndarray:
    """uint8 NHWC to float NCHW, (x / 255 - mean) / std."""
    scaled = (images.astype(np.float32) / 255 - IMAGENET_MEAN) / IMAGENET_STD
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))


def raw_pixels(images: np.ndarray) -> np.ndarray:
    """uint8 NHWC to float NCHW, values 0..255 kept."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2).astype(np.float32))


def cifar_task(model: str, prepare: Callable[[np.ndarray], np.ndarray], preset: str) -> Task:
    """A CIFAR-10 classifier with the given preprocessing."""

    def samples(data: Path) -> Iterator[Feed]:
        images = np.load(data / "cifar10/calib.npz")["x"][:CIFAR_CALIBRATION]
        for index in range(len(images)):
            yield {"input": prepare(images[index : index + 1])}

    def msq_args(data: Path, _: Path) -> list[str]:
        calib = str(data / "cifar10/calib.npz")
        return ["--calib", calib, "--input-array", "x", "--samples", str(CIFAR_CALIBRATION), "--preset", preset]

    def evaluation(data: Path) -> EvalSet:
        with np.load(data / "cifar10/test.npz") as test:
            images, labels = test["x"], test["y"]
        return EvalSet("input", prepare(images), labels, np.arange(len(labels)), top1)

    return Task(model, 100, samples, msq_args, evaluation)


def lite_files(data: Path) -> list[Path]:
    """The ImageNet sample images in sorted order; even positions calibrate, odd ones are judged."""
    return sorted((data / "imagenet/images").iterdir())


def lite_image(path: Path) -> np.ndarray:
    """Short side to 256 (bicubic), centre crop 224, (x - 127) / 128, shape [1,3,224,224]."""
    from PIL import Image

    with Image.open(path) as file:
        image = file.convert("RGB")
    short = min(image.size)
    width, height = (LITE_SHORT_SIDE * side // short for side in image.size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = round((width - LITE_CROP) / 2), round((height - LITE_CROP) / 2)
    pixels = np.asarray(image.crop((left, top, left + LITE_CROP, top + LITE_CROP)), np.float32)
    return np.ascontiguousarray(((pixels - 127) / 128).transpose(2, 0, 1)[None])


def lite_samples(data: Path) -> Iterator[Feed]:
    """The images at even positions."""
    for path in lite_files(data)[::2]:
        yield {"input": lite_image(path)}


def lite_msq_args(data: Path, work: Path) -> list[str]:
    """A folder of links to the images at even positions."""
    folder = work / "imagenet_calibration"
    folder.mkdir(parents=True, exist_ok=True)
    for path in lite_files(data)[::2]:
        link = folder / path.name
        link.unlink(missing_ok=True)
        link.symlink_to(path.resolve())
    return ["--calib", str(folder), "--preset", "lite"]


def lite_evaluation(data: Path) -> EvalSet:
    """The images that do not calibrate: those at odd positions, and the crops where there are any."""
    images = [(path, lite_image(path)) for path in lite_files(data)[1::2]]
    crops = data / "imagenet/crops"
    if crops.is_dir():
        images += [(path, lite_crop(path)) for path in sorted(crops.iterdir())]
    labels = lite_labels(data / "imagenet/labels.csv") | lite_labels(data / "imagenet/crops_labels.csv")
    wanted = np.array([labels[path.name] for path, _ in images])
    inputs = np.concatenate([image for _, image in images])
    return EvalSet("input", inputs, wanted, np.arange(len(images)), top1)


def lite_crop(path: Path) -> np.ndarray:
    """An image that is cropped already, (x - 127) / 128, shape [1,3,224,224]."""
    from PIL import Image

    with Image.open(path) as file:
        pixels = np.asarray(file.convert("RGB"), np.float32)
    return np.ascontiguousarray(((pixels - 127) / 128).transpose(2, 0, 1)[None])


def lite_labels(path: Path) -> dict[str, int]:
    """Labels by the names of files; none where there is no list."""
    if not path.is_file():
        return {}
    rows = (line.rsplit(",", 1) for line in path.read_text().splitlines()[1:])
    return {name: int(label) for name, label in rows}


def ocr_lines(data: Path, split: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Normalised lines [N,3,48,W], columns past each line's width at 0; their texts; the characters."""
    with np.load(data / "ocr/ocr_latin.npz") as archive:
        pick = archive["split"] == split
        pixels, width = archive["x"][pick], archive["width"][pick]
        labels, chars = archive["label"][pick], archive["chars"]
    lines = (pixels.astype(np.float32) / 255 - 0.5) / 0.5
    inside = np.arange(lines.shape[2]) < width[:, None]
    lines = np.where(inside[:, None, :, None], lines, np.float32(0))
    return np.ascontiguousarray(lines.transpose(0, 3, 1, 2)), labels, chars


def ctc_decoder(chars: np.ndarray) -> Decode:
    """Greedy CTC decoding: merge repeats, drop blanks (class 0), strip spaces at both ends."""

    def decode(outputs: np.ndarray) -> np.ndarray:
        texts = []
        for best in outputs.argmax(-1):
            kept = (best != 0) & (best != np.concatenate([[-1], best[:-1]]))
            texts.append("".join(chars[best[kept]]).strip())
        return np.array(texts, dtype=object)

    return decode


def ocr_samples(data: Path) -> Iterator[Feed]:
    """The calibration lines, all padded to one width."""
    lines, _, _ = ocr_lines(data, "cal")
    for line in lines:
        yield {"x": line[None]}


def ocr_msq_args(data: Path, work: Path) -> list[str]:
    """The same lines as a float npz."""
    path = work / "ocr_calibration.npz"
    np.savez(path, x=ocr_lines(data, "cal")[0])
    return ["--calib", str(path), "--input-array", "x"]


def ocr_evaluation(data: Path) -> EvalSet:
    """The test lines; an answer is right when the whole text is."""
    inputs, labels, chars = ocr_lines(data, "test")
    return EvalSet("x", inputs, labels.astype(object), np.arange(len(labels)), ctc_decoder(chars))


def magika_part(data: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Byte sequences and class indices of one part."""
    with np.load(data / "magika/magika_set.npz") as archive:
        pick = archive["split"] == split
        return archive["x"][pick], archive["y"][pick]


def magika_samples(data: Path) -> Iterator[Feed]:
    """The calibration files."""
    for row in magika_part(data, "cal")[0]:
        yield {"bytes": row[None]}


def magika_msq_args(data: Path, work: Path) -> list[str]:
    """The same files as an npz of their own."""
    path = work / "magika_calibration.npz"
    np.savez(path, x=magika_part(data, "cal")[0])
    return ["--calib", str(path), "--input-array", "x"]


def magika_evaluation(data: Path) -> EvalSet:
    """The test files."""
    inputs, labels = magika_part(data, "test")
    return EvalSet("bytes", inputs, labels, np.arange(len(labels)), top1)


TASKS = {
    "resnet20": cifar_task("models/resnet20_cifar10.onnx", imagenet_normalized, "imagenet"),
    "resnet8": cifar_task("models/resnet8_cifar10.onnx", raw_pixels, "raw"),
    "efficientnet": Task("models/efficientnet_lite0.onnx", 16, lite_samples, lite_msq_args, lite_evaluation),
    "ocr": Task("models/ch_PP-OCRv4_rec_infer.onnx", 10, ocr_samples, ocr_msq_args, ocr_evaluation),
    "magika": Task("models/magika_standard_v3_3.onnx", 67, magika_samples, magika_msq_args, magika_evaluation),
}


def are_probabilities(outputs: np.ndarray) -> bool:
    """Whether every row is non-negative and sums to one."""
    return bool((outputs >= 0).all() and np.allclose(outputs.sum(-1), 1, atol=1e-3))


def log_probabilities(outputs: np.ndarray, already_probabilities: bool) -> np.ndarray:
    """Log-softmax over the last axis, or the logarithm of what already are probabilities."""
    values = outputs.astype(np.float64)
    if already_probabilities:
        return np.log(np.maximum(values, SMALLEST_PROBABILITY))
    values -= values.max(-1, keepdims=True)
    return values - np.log(np.exp(values).sum(-1, keepdims=True))


def kl_sum(reference: np.ndarray, outputs: np.ndarray, already_probabilities: bool) -> tuple[float, int]:
    """Sum of KL(reference || outputs) over rows, and the number of rows."""
    log_p = log_probabilities(reference, already_probabilities)
    log_q = log_probabilities(outputs, already_probabilities)
    rows = (np.exp(log_p) * (log_p - log_q)).sum(-1)
    return float(rows.sum()), rows.size
