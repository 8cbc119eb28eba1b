"""Forms of data: each gives what the arrays of a file give."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime.quantization
import pytest

import msq_onnx
from conftest import DIGITS, sequence_feed, sequence_model
from msq_onnx import _data


class Reader(onnxruntime.quantization.CalibrationDataReader):
    """The reader of onnxruntime's examples."""

    def __init__(self, images: Any) -> None:
        self.feeds = iter([{"image": image[None]} for image in images])

    def get_next(self) -> dict[str, Any] | None:
        return next(self.feeds, None)


def test_every_form_gives_the_same_model(model: Path, arrays: dict[str, Any]) -> None:
    images = arrays["image"]

    def batches() -> Iterator[dict[str, Any]]:
        for start in range(0, len(images), 100):
            yield {"image": images[start : start + 100]}

    forms: dict[str, Any] = {
        "array": images,
        "mapping": {"image": images},
        "mapping with labels": arrays,
        "path": DIGITS / "calib.npz",
        "list of arrays": [image[None] for image in images],
        "generator of batches": batches(),
        "reader": Reader(images),
    }
    written = {name: msq_onnx.quantize(model, form, verify=0).model_bytes for name, form in forms.items()}
    different = [name for name, content in written.items() if content != written["path"]]
    assert different == []


class Tensor:
    """Stands for the tensors of other libraries."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return self.array


def test_tensors_of_other_libraries(model: Path, arrays: dict[str, Any]) -> None:
    images = arrays["image"]
    results = {
        msq_onnx.quantize(model, form, verify=0).model_bytes
        for form in (images, Tensor(images), {"image": Tensor(images)}, [UserDict(image=Tensor(images))])
    }
    assert len(results) == 1


def test_whole_feeds_give_the_same_ranges(model: Path, arrays: dict[str, Any]) -> None:
    images = arrays["image"][:64]
    rows = msq_onnx.quantize(model, images, observer="min-max", verify=0)
    whole = msq_onnx.quantize(model, [{"image": images}], batched=False, observer="min-max", verify=0)
    assert (rows.samples, whole.samples) == (64, 1)
    assert rows.bytes == whole.bytes


def test_labels_of_batches_count(model: Path, arrays: dict[str, Any]) -> None:
    feeds = [{"image": arrays["image"][i : i + 64], "labels": arrays["label"][i : i + 64]} for i in (0, 64)]
    report = msq_onnx.evaluate(model, feeds)
    assert report.samples == 128
    assert report.accuracy is not None
    assert report.accuracy > 0.98


def test_no_more_is_drawn_than_samples_says(model: Path, arrays: dict[str, Any]) -> None:
    drawn = []

    def endless() -> Iterator[dict[str, Any]]:
        while True:
            drawn.append(1)
            yield {"image": arrays["image"][:10]}

    report = msq_onnx.quantize(model, endless(), samples=25)
    assert report.samples == 25
    assert len(drawn) == 3


def test_valid_takes_what_data_takes(model: Path, arrays: dict[str, Any]) -> None:
    """Half of the samples choose the plan, the other half state what it loses."""
    images = arrays["image"]
    feeds = [{"image": image[None]} for image in images[256:]]
    found = msq_onnx.search(model, images[:256], valid=feeds, target_bits=4, search="uniform")
    assert found.samples[1] == 128


def test_samples_of_different_shapes() -> None:
    rng = np.random.default_rng(1)
    feeds = [sequence_feed(rng, rows, length) for rows, length in ((1, 4), (2, 7), (3, 4), (1, 9))]
    report = msq_onnx.quantize(sequence_model(), feeds, placement="all")
    assert report.samples == 7
    assert len(report.layers) == 1
    assert msq_onnx.quantize(sequence_model(), feeds, batched=False, placement="all").samples == 4


def test_labels_of_samples_of_different_shapes(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    feeds = [{**sequence_feed(rng, 2, length), "label": np.array([length, 0])} for length in (4, 5)]
    stored = _data.store(feeds, tmp_path / "data")
    assert stored.labels is not None
    assert np.load(stored.labels).tolist() == [4, 0, 5, 0]
    assert sorted(path.name for path in stored.path.iterdir()) == [f"test_data_set_{i}" for i in range(4)]


def test_tensors_are_those_of_onnx() -> None:
    import onnx

    for dtype in ("float32", "float64", "float16", "int64", "uint8", "bool"):
        array = np.arange(300).reshape(3, 1, 100).astype(dtype)
        tensor = onnx.TensorProto.FromString(_data._tensor_proto("some name", array))
        assert tensor.name == "some name"
        assert np.array_equal(onnx.numpy_helper.to_array(tensor), array)
        assert onnx.numpy_helper.to_array(tensor).dtype == array.dtype


def test_arrays_are_those_of_numpy(tmp_path: Path) -> None:
    one = _data.store([np.zeros((2, 3), np.float32), np.ones((1, 3), np.float32)], tmp_path / "one")
    assert np.load(one.path).tolist() == [[0] * 3, [0] * 3, [1] * 3]
    two = _data.store([{"a/b": np.ones((2, 3)), "c": np.arange(2)}] * 2, tmp_path / "two")
    with np.load(two.path) as arrays:
        assert arrays["a/b"].shape == (4, 3)
        assert arrays["c"].tolist() == [0, 1, 0, 1]
    big = _data.store(np.arange(6, dtype=">i4").reshape(2, 3), tmp_path / "big")
    assert np.load(big.path).tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "data has no samples: the iterable ends before its first one"),
        ({}, "data is an empty mapping"),
        (7, "data is of type `int`; expected a path, an array"),
        ([(1, 2)], "an item of the data is of type `tuple`"),
        ([{"image": np.array(["text"])}], "array `image` has elements of type `<U4`"),
        ([{"a": np.zeros(1)}, {"b": np.zeros(1)}], "sample 1 has arrays `b`; the first has `a`"),
        (
            [{"a": np.zeros(1)}, {"a": np.zeros(1, np.float32)}],
            "array `a` has elements of type `float32` and of type `f",
        ),
        ({"image": np.zeros((4, 3, 8, 8), np.float32)}, "`data.npz`: array `image` has shape [4, 3, 8, 8]"),
        ([{"image": np.full((4, 1, 8, 8), np.nan, np.float32)}], "`data.npy`: the array, sample 0: element 0 is NaN"),
        ("nowhere.npz", "nowhere.npz"),
    ],
)
def test_data_that_does_not_fit(model: Path, data: Any, message: str) -> None:
    with pytest.raises(msq_onnx.DataError) as raised:
        msq_onnx.quantize(model, data)
    assert message in str(raised.value)
    assert raised.value.exit_code == 4
