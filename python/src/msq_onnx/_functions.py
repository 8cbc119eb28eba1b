"""The functions of the module: each runs the binary once."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

from . import _arguments, _data, _document, _executors, _parts, _process
from ._document import Document
from ._errors import Error, RunError, TargetError, UsageError, error_of
from ._metric import MetricServer
from ._reports import CompareReport, EvaluateReport, InspectReport, LintReport, Report, SearchReport
from ._sweep.fingerprint import stored_bytes
from ._types import Data, Metric, Model, PathLike, Progress

T = TypeVar("T", bound=Document)


def quantize(
    model: Model,
    data: Data | None = None,
    *,
    output: PathLike | None = None,
    metric: Metric | str | None = None,
    progress: Callable[[Progress], None] | None = None,
    batched: bool = True,
    **options: Any,
) -> Report:
    """Quantizes a float model, to 8 bits unless options say otherwise.

    Args:
        model: a path, the bytes of a file, or an `onnx.ModelProto`.
        data: calibration samples, which may have labels in an array `y`, `label` or `labels`; None for synthetic
            inputs. A path of any form that `--calib` reads; an array of shape [N, ...] for a model with one input; a
            mapping from names of inputs to arrays of shape [N, ...]; an iterable of feeds, which are mappings from
            names to arrays as `InferenceSession.run` takes them; or an object with `get_next()`, such as an
            onnxruntime `CalibrationDataReader`. Samples may differ in shape. Iterables are read once, and with
            `samples=N` no further than N.
        output: where the model goes; None keeps it in memory, as `model_bytes` of the report.
        metric: what `max_drop`, repairs and figures go by, in the place of accuracy and agreement; more is better. A
            function of two mappings from names to arrays, the outputs with samples along the first axis and the
            labels (`index`, the number of each sample in the data, `y` where there are labels, and `file`, the
            names of images). It runs in this thread. Or a command as of `--metric-command`.
        progress: called in this thread with where the run is, some times a second; what it raises ends the run.
        batched: whether the rows of a feed whose arrays share their first axis are samples; with False each feed is
            one sample, given to the model as it stands.
        **options: the long flags of `msq-onnx`, with underscores: `weight_bits=4`, `max_drop="1%"`, `skip=["head"]`.
            `valid` takes what `data` takes, `labels` a path or N whole numbers, `plan` a path or the `plan` of a
            report's `raw`, and `report` a path or True, which keeps the page in the report's `html`.

    Returns:
        What the run did and measured. Sizes are in bytes, times in seconds, `sqnr` in decibels, divergences in nats,
        `lost`, `accuracy` and `agreement` are shares of 1.

    Raises:
        UsageError: an option does not exist, has no such value, or does not fit the model.
        ModelError: the model cannot be read or quantized.
        DataError: the data does not fit the model.
        TargetError: the target is out of reach; the nearest model is written, or in the `report` of the exception.
        RunError: the output cannot be written, or the model cannot be run.
        KeyboardInterrupt: the run was ended; no file is left.
    """
    with _Run("quantize", options) as run:
        given = None if output is None else os.fspath(output)
        run.data(data, batched)
        run.metric(metric)
        run.progress(progress)
        path = Path(given) if given is not None else run.folder / "quantized.onnx"
        run.arguments += [f"--output={path}", "--", run.model(model)]
        return run.finish(Report, kept=path if given is None else None)


def search(
    model: Model,
    data: Data,
    *,
    output: PathLike | None = None,
    metric: Metric | str | None = None,
    progress: Callable[[Progress], None] | None = None,
    batched: bool = True,
    **options: Any,
) -> SearchReport:
    """Searches for the bits of every layer, and returns sizes against accuracies without writing a model.

    Args:
        model: as of `quantize`.
        data: as of `quantize`; a quarter of it is left out of calibration and measured on, unless `valid` is given.
        output: where the JSON document goes, if anywhere.
        metric: as of `quantize`.
        progress: as of `quantize`.
        batched: as of `quantize`.
        **options: the long flags of `msq-onnx search`, with underscores; `front=FOLDER` writes the models of the front.

    Returns:
        The plan chosen and the front. Sizes are in bytes, bits per weight are averages.

    Raises:
        Error: as `quantize` does.
    """
    with _Run("search", options) as run:
        run.data(data, batched)
        run.metric(metric)
        run.progress(progress)
        if output is not None:
            run.arguments.append(f"--output={os.fspath(output)}")
        run.arguments += ["--", run.model(model)]
        return run.finish(SearchReport)


def calibrate(
    model: Model,
    data: Data,
    output: PathLike,
    *,
    shards: int,
    jobs: int = 1,
    ray: str | None = None,
    progress: Callable[[int, int], None] | None = None,
    batched: bool = True,
    **options: Any,
) -> list[Path]:
    """Looks at the activations of a float model part by part of the data, several at once.

    `quantize` takes the files as `statistics`, with the same data and options, and writes the bytes of a single run.

    Args:
        model: as of `quantize`; for `ray` a path that is the same on all machines.
        data: as of `quantize`; for `ray` a path that is the same on all machines.
        output: the folder for the files.
        shards: the number of parts.
        jobs: parts at once on this machine; above 1 needs the package `joblib`.
        ray: the address of a Ray cluster to run on, or `auto`, or `local` for one that is started here. A part whose
            worker or machine is lost is done again.
        progress: called after each part with the number of parts done, and that of all.
        batched: as of `quantize`.
        **options: those of `quantize` that choose what is quantized, and how ranges are chosen. Unless given, each part
            has its share of the machine's `threads` and `memory`.

    Returns:
        The files, in the order of the parts.

    Raises:
        UsageError: an option is wrong, or there is no Ray cluster at the address.
        Error: a part failed; as `quantize` does.
    """
    files = _parts.files(Path(output), shards, "stats")
    with _Run("quantize", options) as run:
        _parts.execute(
            run.executor(jobs, ray, model, data), run.parts("calibrate", model, data, batched, files), progress
        )
    return files


def measure(
    model: Model,
    data: Data,
    output: PathLike,
    *,
    shards: int,
    jobs: int = 1,
    ray: str | None = None,
    progress: Callable[[int, int], None] | None = None,
    batched: bool = True,
    **options: Any,
) -> list[Path]:
    """Measures what every layer costs alone at every width, part by part, several at once.

    `search` and `quantize` take the files as `measurements`, with the same data and options, and find what a single run
    finds. The searches `sensitivity`, `ilp` and `auto` begin with such costs.

    Args:
        model: as of `calibrate`.
        data: as of `calibrate`.
        output: the folder for the files. A part that was interrupted goes on where it was, if its journal is there.
        shards: as of `calibrate`.
        jobs: as of `calibrate`.
        ray: as of `calibrate`.
        progress: as of `calibrate`.
        batched: as of `quantize`.
        **options: those of `search`.

    Returns:
        The files, in the order of the parts.

    Raises:
        Error: as `calibrate` does.
    """
    files = _parts.files(Path(output), shards, "costs")
    with _Run("search", options) as run:
        _parts.execute(run.executor(jobs, ray, model, data), run.parts("search", model, data, batched, files), progress)
    return files


def evaluate(
    model: Model,
    data: Data,
    *,
    reference: Model | None = None,
    metric: Metric | str | None = None,
    progress: Callable[[Progress], None] | None = None,
    batched: bool = True,
    **options: Any,
) -> EvaluateReport:
    """Measures a model: accuracy with labels, and with a reference agreement and the error of inner values.

    Args:
        model: as of `quantize`, float or quantized.
        data: as of `quantize`. All of it is used unless `samples` is given.
        reference: the model to compare with, usually the float one.
        metric: as of `quantize`.
        progress: as of `quantize`.
        batched: as of `quantize`.
        **options: the long flags of `msq-onnx evaluate`, with underscores; `save_outputs=PATH` writes an `.npz`.

    Returns:
        Accuracies, agreement and `lost` as shares of 1, `sqnr` in decibels.

    Raises:
        UsageError: there are neither labels nor a reference, a metric or `save_outputs`, or an option is wrong.
        Error: as `quantize` does.
    """
    with _Run("evaluate", options) as run:
        run.data(data, batched)
        run.metric(metric)
        run.progress(progress)
        if reference is not None:
            run.arguments.append(f"--reference={run.model(reference, 'reference.onnx')}")
        run.arguments += ["--", run.model(model)]
        return run.finish(EvaluateReport)


def compare(
    reference: Model,
    model: Model,
    data: Data,
    *,
    metric: Metric | str | None = None,
    progress: Callable[[Progress], None] | None = None,
    batched: bool = True,
    **options: Any,
) -> CompareReport:
    """Compares two models, usually a float one and what became of it by any tool.

    Args:
        reference: as of `quantize`.
        model: as of `quantize`.
        data: as of `quantize`. All of it is used unless `samples` is given.
        metric: as of `quantize`.
        progress: as of `quantize`.
        batched: as of `quantize`.
        **options: the long flags of `msq-onnx compare`, with underscores.

    Returns:
        Sizes in bytes, agreement as a share of 1, for each layer bits and `sqnr` in decibels, and in `starts` the
        layer at which most of the error comes in.

    Raises:
        Error: as `quantize` does.
    """
    with _Run("compare", options) as run:
        run.data(data, batched)
        run.metric(metric)
        run.progress(progress)
        run.arguments += ["--", run.model(reference, "reference.onnx"), run.model(model)]
        return run.finish(CompareReport)


def inspect(model: Model) -> InspectReport:
    """Lists inputs, outputs and layers of a model, and the nodes that would stay in float with the reason for each.

    Args:
        model: as of `quantize`, float or quantized.

    Raises:
        ModelError: the model cannot be read.
    """
    with _Run("inspect", {}) as run:
        run.arguments += ["--", run.model(model)]
        return run.finish(InspectReport)


def lint(model: Model, *, profile: str | None = None) -> LintReport:
    """Checks a quantized model of any tool for what a target refuses, runs slowly, or leaves in float.

    Args:
        model: as of `quantize`.
        profile: the target, `ort-cpu` unless given.

    Returns:
        The findings; `errors` counts those for which the command line ends with exit code 1. They raise nothing here.

    Raises:
        UsageError: there is no such profile.
        ModelError: the model cannot be read.
    """
    with _Run("lint", {}) as run:
        if profile is not None:
            run.arguments.append(f"--profile={profile}")
        run.arguments += ["--", run.model(model)]
        return run.finish(LintReport)


class _Run:
    """One run of the binary, with a temporary folder that is removed at its end."""

    def __init__(self, command: str, options: Mapping[str, Any]) -> None:
        self._command = command
        self._options = dict(options)
        self._stack = ExitStack()
        self._metric: MetricServer | None = None
        self._progress: Callable[[Progress], None] | None = None
        self._page: Path | None = None
        self.arguments: list[str] = [] if command == "quantize" else [command]

    def __enter__(self) -> _Run:
        # A folder that is still in use, as it may be on Windows, is no reason to lose the result.
        folder = tempfile.TemporaryDirectory(prefix="msq-onnx-", ignore_cleanup_errors=True)
        self.folder = Path(self._stack.enter_context(folder))
        try:
            self._own_options()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def _own_options(self) -> None:
        """Replaces the values that are no text, of options whose names are known to be right."""
        options = self._options
        _arguments.check_names(self._command, options)
        if isinstance(options.get("plan"), Mapping):
            options["plan"] = self._written("plan.json", json.dumps(options["plan"]).encode())
        if options.get("labels") is not None:
            options["labels"] = _data.store_labels(options["labels"], self.folder, "labels")
        if "report" in options:
            self._report(options)

    def _report(self, options: dict[str, Any]) -> None:
        if options["report"] is True:
            options["report"] = self.folder / "report.html"
        elif options["report"] in (False, None):
            del options["report"]
            return
        self._page = Path(options["report"])

    def _written(self, name: str, content: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(content)
        return path

    def model(self, model: Model, name: str = "model.onnx") -> str:
        """The path of a model, which is written if it is none."""
        if isinstance(model, (str, os.PathLike)):
            return os.fspath(model)
        if isinstance(model, (bytes, bytearray, memoryview)):
            return str(self._written(name, bytes(model)))
        if not hasattr(model, "SerializeToString"):
            kind = type(model).__name__
            raise UsageError(f"the model is of type `{kind}`; expected a path, bytes or `onnx.ModelProto`")
        try:
            content = model.SerializeToString()
        except Exception as error:
            # Each version of protobuf raises another class. `onnx.save_model` could write the weights to a file of
            # their own, but would take them out of the caller's model.
            raise UsageError(
                "the model cannot be serialized, as those of more than 2 GB cannot: save it with external data and "
                "give the path"
            ) from error
        return str(self._written(name, content))

    def data(self, data: Data | None, batched: bool) -> None:
        """Adds the data, that of the option `valid`, and all other options."""
        samples = self._options.get("samples")
        samples = samples if isinstance(samples, int) else None
        if data is not None:
            stored = _data.store(data, self.folder / "data", batched=batched, samples=samples)
            self.arguments.append(f"--calib={stored.path}")
            if stored.labels is not None:
                self._options.setdefault("labels", stored.labels)
        if self._options.get("valid") is not None:
            valid = _data.store(self._options["valid"], self.folder / "valid", batched=batched)
            self._options["valid"] = valid.path
        self.arguments += _arguments.arguments(self._command, self._options)

    def metric(self, metric: Metric | str | None) -> None:
        """Adds the metric."""
        if metric is None:
            return
        if isinstance(metric, str):
            self.arguments.append(f"--metric-command={metric}")
            return
        self._metric = self._stack.enter_context(MetricServer(metric))
        self.arguments.append(f"--metric-command={self._metric.command}")

    def progress(self, progress: Callable[[Progress], None] | None) -> None:
        """Adds the function that is told where the run is."""
        if progress:
            self._progress = progress
            self.arguments.append("--progress=lines")

    def finish(self, kind: type[T], kept: Path | None = None) -> T:
        """Runs the binary and reads what it prints; `kept` is a model that goes into memory."""
        before_model = self.arguments.index("--")
        arguments = [*self.arguments[:before_model], "--json", *self.arguments[before_model:]]
        finished = _process.run(arguments, self.folder, self._metric, progress=self._progress)
        # A failed run prints no document, but one that misses its target does, and one in which `lint` finds errors.
        document = json.loads(finished.output) if finished.output.strip() else None
        if document is None or finished.exit_code not in (0, 1, TargetError.exit_code):
            raise self._error(finished)
        report = self._read(kind, document, kept)
        if finished.exit_code == TargetError.exit_code:
            missed = TargetError(finished.error or _document.missed_target(document))
            missed.report = report
            raise missed
        if finished.exit_code and kind is not LintReport:
            raise self._error(finished)
        return report

    def executor(self, jobs: int, ray: str | None, model: Model, data: Data) -> _executors.Executor:
        """What executes parts, with the options for the resources of each, which are no options of the runs then."""
        for name, value in (("model", model), ("data", data)):
            if ray is not None and not isinstance(value, (str, os.PathLike)):
                kind = type(value).__name__
                raise UsageError(f"`{name}` is of type `{kind}`; with `ray` it is a path, which all machines read")
        return _executors.of(jobs, ray, self._options.pop("threads", None), self._options.pop("memory", None))

    def parts(self, command: str, model: Model, data: Data, batched: bool, files: Sequence[Path]) -> list[_parts.Part]:
        """The parts of a command's work, one for each file."""
        self.arguments = []
        self.data(data, batched)
        path = self.model(model)
        return [
            _parts.Part(
                arguments=(command, *self.arguments, f"--shard={number}/{len(files)}", f"--output={file}"),
                model=path,
                folder=Path.cwd(),
                weights=stored_bytes(Path(path)),
            )
            for number, file in enumerate(files, 1)
        ]

    def _read(self, kind: type[T], document: dict[str, Any], kept: Path | None) -> T:
        model_bytes = None
        if kept is not None and kept.is_file():
            if kept.with_name(f"{kept.name}.data").exists():
                raise RunError("the weights of the quantized model need a file beside it: give `output`")
            model_bytes = kept.read_bytes()
        page = _document.read_page(self._page) if self._page else None
        # The file of a model that is kept in memory is gone when the caller gets the report.
        shown = {**document, "output": None} if kept is not None else document
        return _document.from_json(kind, shown, raw=document, html=page, model_bytes=model_bytes)

    def _error(self, finished: _process.Finished) -> Error:
        # Files of the temporary folder are called by their names: the caller never sees the folder.
        message = finished.error
        for folder in (self.folder / "data", self.folder / "valid", self.folder):
            message = message.replace(f"{folder}{os.sep}", "")
        return error_of(finished.exit_code, message)
