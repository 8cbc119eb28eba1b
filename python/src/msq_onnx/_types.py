"""Types of parameters."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias, Union

import numpy as np
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    import onnx

PathLike: TypeAlias = Union[str, "os.PathLike[str]"]

#: A model: a path, the bytes of a file, or an `onnx.ModelProto`.
Model: TypeAlias = Union[PathLike, bytes, bytearray, memoryview, "onnx.ModelProto"]


class CalibrationDataReader(Protocol):
    """What onnxruntime calls so: feeds one after the other, then None."""

    def get_next(self) -> Any:
        """The next feed, arrays by the names of inputs; None after the last."""


#: Data: a path; an array, or a mapping from names to arrays, whose first axis counts samples; an iterable of feeds,
#: which are mappings from names to arrays, or arrays for a model with one input; or a `CalibrationDataReader`.
Data: TypeAlias = Union[
    PathLike,
    ArrayLike,
    Mapping[str, ArrayLike],
    Iterable[Mapping[str, ArrayLike]],
    Iterable[ArrayLike],
    CalibrationDataReader,
]


class Progress(NamedTuple):
    """Where a run is.

    Attributes:
        phase: what it does, as `calibrate`.
        done: steps of the phase that are done.
        steps: steps of the phase.
    """

    phase: str
    done: int
    steps: int


#: A function of outputs and labels. Outputs are arrays by name, stacked along the first axis; an output whose shape
#: changes from sample to sample is `NAME.0`, `NAME.1` and so on. Labels hold `index`, the number of each sample in the
#: data, and `y`, its label, where the data has labels. More is better.
Metric: TypeAlias = Callable[[dict[str, "np.ndarray[Any, Any]"], dict[str, "np.ndarray[Any, Any]"]], float]
