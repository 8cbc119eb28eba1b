"""Plan files: models × data × settings, multiplied out to runs.

A plan is a TOML file, or a mapping of the same form. Every path in it is relative to the file. Options are keys of
`msq-onnx config --defaults`, checked here against the table in `_options.py`; what else can be wrong with a value is
told by the run.
"""

from __future__ import annotations

import difflib
import glob
import hashlib
import itertools
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import _arguments
from .._errors import UsageError
from .._options import OPTIONS, Option

COMMANDS = ("quantize", "search")
_TOP_KEYS = ("output", "options", "models", "settings", "write")
_MODEL_KEYS = ("path", "data", "labels", "judge", "judge-labels", "metric", "options")
_WRITE_KEYS = ("models", "pages", "csv", "html")
#: Options that are keys of models.
_KEYS_OF_MODELS = ("labels",)
#: Options that name files to write, with what a plan has in their place.
_WRITTEN = {
    "report": "say `pages = true` under `[write]`",
    "save-plan": "each document in `runs` holds the plan of its run",
    "front": "run `msq-onnx search --front` for that",
    "dump-after": "run `msq-onnx --dump-after` for that",
}
#: Options that an executor sets where a plan does not.
RESOURCES = ("threads", "memory")
_LONGEST_NAME = 150
_WILDCARDS = re.compile(r"[*?\[]")


@dataclass(frozen=True, kw_only=True)
class Write:
    """What a sweep writes beside the documents: models, pages, and the table in two forms."""

    models: bool = True
    pages: bool = False
    csv: bool = True
    html: bool = True


@dataclass(frozen=True, kw_only=True)
class ModelEntry:
    """A model with its data; paths are relative to the folder of the plan.

    Attributes:
        name: unique within the plan; may have `/`.
        path: of the float model.
        data: of the calibration data; None for synthetic inputs.
        data_name: of the data, where a model has several.
        labels: of labels beside the data.
        judge: of the data that results are measured on; None for what the run itself measures.
        judge_labels: of labels beside it.
        metric: a metric command.
        options: of every run of this model.
    """

    name: str
    path: str
    data: str | None
    data_name: str | None
    labels: str | None
    judge: str | None
    judge_labels: str | None
    metric: str | None
    options: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of a plan.

    Attributes:
        model: the model with its data.
        setting: name of the setting.
        chosen: values of this run where the setting gives several, by option.
        command: `quantize` or `search`.
        setting_options: the options of the setting, one value each.
        options: these with the options of the plan and of the model.
        name: `MODEL/SETTING`, unique within the plan, and made of characters that file names may have.
    """

    model: ModelEntry
    setting: str
    chosen: Mapping[str, Any]
    command: str
    setting_options: Mapping[str, Any]
    options: Mapping[str, Any]
    name: str

    @property
    def title(self) -> str:
        """The run in words."""
        return f"{self.model.name} {self.name.rsplit('/', 1)[1]}"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A plan, read and checked.

    Attributes:
        name: of the file.
        folder: that paths are relative to.
        output: the folder for results that the plan names.
        runs: all runs, model by model.
        write: what is written.
    """

    name: str
    folder: Path
    output: Path
    runs: tuple[Run, ...]
    write: Write


def read_plan(plan: str | Path | Mapping[str, Any]) -> Plan:
    """Reads a plan.

    Raises:
        UsageError: the file cannot be read, or holds a mistake; the message names the file and the key.
    """
    if isinstance(plan, Mapping):
        return _Reader("the plan", Path.cwd()).plan(plan, "sweep")
    path = Path(plan)
    try:
        content = _toml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"the plan `{plan}` cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"`{path.name}` is not TOML: {error}") from error
    return _Reader(f"`{path.name}`", path.resolve().parent).plan(content, path.stem + ".sweep")


def _toml(text: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        try:
            import tomli as tomllib
        except ImportError as error:
            raise UsageError("plans need `tomli` before Python 3.11: pip install 'msq-onnx[sweep]'") from error
    return tomllib.loads(text)


@dataclass(frozen=True)
class _Reader:
    """Reads the parts of a plan; messages begin with its name."""

    name: str
    folder: Path

    def plan(self, content: Mapping[str, Any], default_output: str) -> Plan:
        self.known_keys("", content, _TOP_KEYS)
        output = self.text("output", content.get("output", default_output))
        shared = self.table("options", content.get("options", {}))
        models = self.models(self.table("models", content.get("models", {})))
        settings = self.table("settings", content.get("settings", {}))
        if not models:
            raise self.wrong("`models` is missing", "add a table `[models.NAME]` with `path` and `data`")
        if not settings:
            raise self.wrong("`settings` is missing", "add a table `[settings.NAME]`; it may be empty, for 8 bits")
        runs = [run for model in models for run in self.runs(model, shared, settings)]
        self.unique(runs)
        write = self.table("write", content.get("write", {}))
        self.known_keys("write", write, _WRITE_KEYS)
        for key, value in write.items():
            self.expect(isinstance(value, bool), f"write.{key}", value, "true or false")
        return Plan(
            name=self.name, folder=self.folder, output=self.folder / output, runs=tuple(runs), write=Write(**write)
        )

    def models(self, tables: Mapping[str, Any]) -> list[ModelEntry]:
        found: dict[tuple[str, str | None], ModelEntry] = {}
        for key, value in tables.items():
            for entry in self.model(f"models.{key}", key, self.table(f"models.{key}", value)):
                other = found.setdefault((entry.name, entry.data), entry)
                if other is not entry:
                    raise self.wrong(
                        f"`models.{key}.path`: `{entry.path}` and `{other.path}` are both called `{entry.name}`",
                        "name them apart, each by a table of its own",
                    )
        return list(found.values())

    def model(self, at: str, key: str, table: Mapping[str, Any]) -> Iterator[ModelEntry]:
        self.known_keys(at, table, _MODEL_KEYS)
        if "path" not in table:
            raise self.wrong(f"`{at}.path` is missing", "name a model, a pattern such as `zoo/*.onnx`, or a list")
        options = self.table(f"{at}.options", table.get("options", {}))
        several = isinstance(table["path"], list) or _WILDCARDS.search(str(table["path"])) is not None
        for path, name in self.paths(f"{at}.path", table["path"]):
            data = table.get("data")
            for each in data if isinstance(data, list) else [data]:
                filled = self.existing(f"{at}.data", each, path)
                yield ModelEntry(
                    name=name if several else key,
                    path=path,
                    data=filled,
                    data_name=Path(filled).stem if filled and isinstance(data, list) else None,
                    labels=self.existing(f"{at}.labels", table.get("labels"), path),
                    judge=self.existing(f"{at}.judge", table.get("judge"), path),
                    judge_labels=self.existing(f"{at}.judge-labels", table.get("judge-labels"), path),
                    metric=self.filled(f"{at}.metric", table.get("metric"), path),
                    options=options,
                )

    def filled(self, at: str, value: Any, model: str) -> str | None:
        """Text in which `{stem}` and `{folder}` stand for those of the model's path."""
        if value is None:
            return None
        path = Path(model)
        return self.text(at, value).replace("{stem}", path.stem).replace("{folder}", path.parent.as_posix())

    def existing(self, at: str, value: Any, model: str) -> str | None:
        filled = self.filled(at, value, model)
        if filled is not None and not (self.folder / filled).exists():
            raise self.missing(at, filled)
        return filled

    def paths(self, at: str, value: Any) -> Iterator[tuple[str, str]]:
        """Paths of models, with names for those that a pattern or a list gives."""
        for pattern in value if isinstance(value, list) else [value]:
            text = self.text(at, pattern)
            if not _WILDCARDS.search(text):
                if not (self.folder / text).is_file():
                    raise self.missing(at, text)
                yield text, Path(text).stem
                continue
            # `Path.glob` takes no absolute patterns.
            matches = sorted(glob.glob(text, root_dir=self.folder, recursive=True))  # noqa: PTH207
            matches = [match for match in matches if (self.folder / match).is_file()]
            if not matches:
                raise self.wrong(f"`{at}` is `{text}`, which matches no file in `{self.folder}`", "correct the pattern")
            fixed = Path(*itertools.takewhile(lambda part: not _WILDCARDS.search(part), Path(text).parts))
            for match in matches:
                yield match, Path(match).relative_to(fixed).with_suffix("").as_posix()

    def runs(self, model: ModelEntry, shared: Mapping[str, Any], settings: Mapping[str, Any]) -> Iterator[Run]:
        for name, value in settings.items():
            at = f"settings.{name}"
            table = dict(self.table(at, value))
            command = table.pop("command", "quantize")
            self.expect(command in COMMANDS, f"{at}.command", command, "`quantize` or `search`")
            known = OPTIONS[command]
            common = {key: each for key, each in {**shared, **model.options}.items() if key in known}
            for where, options in (("options", shared), (f"models.{model.name}.options", model.options)):
                self.check(where, "quantize", options)
            for chosen in self.multiplied(at, command, table):
                own = {key: chosen.get(key, each) for key, each in table.items()}
                self.check(at, command, own)
                parts = [name, *(f"{key}={_plain(each)}" for key, each in chosen.items())]
                if model.data_name:
                    parts.insert(0, model.data_name)
                yield Run(
                    model=model,
                    setting=name,
                    chosen=chosen,
                    command=command,
                    setting_options=own,
                    options=common | own,
                    name=f"{_file_name(model.name)}/{_file_name('.'.join(parts))}",
                )

    def multiplied(self, at: str, command: str, table: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """All choices of one value where a setting gives several."""
        lists: dict[str, list[Any]] = {}
        for key, value in table.items():
            option = self.option(f"{at}.{key}", command, key)
            if isinstance(value, list) and (not option.many or any(isinstance(each, list) for each in value)):
                if not value:
                    raise self.wrong(f"`{at}.{key}` is an empty list", "give values, or leave the key out")
                lists[key] = value
        for values in itertools.product(*lists.values()):
            yield dict(zip(lists, values, strict=True))

    def check(self, at: str, command: str, options: Mapping[str, Any]) -> None:
        for key, value in options.items():
            option = self.option(f"{at}.{key}", command, key)
            try:
                _arguments.argument(f"{at}.{key}", key, option, value)
            except UsageError as error:
                raise UsageError(f"{self.name}: {error.message}") from error
            values = [value] if option.kind == "path" and not isinstance(value, list) else []
            for path in values:
                if not (self.folder / path).exists():
                    raise self.missing(f"{at}.{key}", path)

    def option(self, at: str, command: str, key: str) -> Option:
        """An option that a plan may have."""
        if key in _WRITTEN:
            raise self.wrong(f"`{at}`: a sweep names the files it writes", _WRITTEN[key])
        if key in _KEYS_OF_MODELS:
            raise self.wrong(f"`{at}` belongs to a model", f"move it to `[models.NAME]` as `{key}`")
        if key not in OPTIONS[command]:
            close = difflib.get_close_matches(key.replace("_", "-"), OPTIONS[command], 1)
            advice = f"did you mean `{close[0]}`?" if close else f"`msq-onnx config --defaults {command}` lists them"
            raise self.wrong(f"`{at}` is no option of `{command}`", advice.replace(" quantize`", "`"))
        return OPTIONS[command][key]

    def unique(self, runs: list[Run]) -> None:
        seen: dict[str, Run] = {}
        for run in runs:
            other = seen.setdefault(run.name.lower(), run)
            if other is not run:
                raise self.wrong(
                    f"two runs would write the files of `{run.name}`: `{other.title}` and `{run.title}`",
                    "give the models, data or settings other names",
                )

    def table(self, at: str, value: Any) -> dict[str, Any]:
        self.expect(isinstance(value, Mapping), at, value, "a table")
        return dict(value)

    def text(self, at: str, value: Any) -> str:
        self.expect(isinstance(value, (str, Path)) and str(value) != "", at, value, "a string")
        return str(value)

    def known_keys(self, at: str, table: Mapping[str, Any], known: tuple[str, ...]) -> None:
        for key in table:
            if key not in known:
                close = difflib.get_close_matches(key, known, 1)
                of = f"`{at}`" if at else "a plan"
                advice = f"did you mean `{close[0]}`?" if close else "expected " + ", ".join(f"`{k}`" for k in known)
                raise self.wrong(f"`{key}` is no key of {of}", advice)

    def expect(self, holds: bool, at: str, value: Any, expected: str) -> None:
        if not holds:
            shown = f"`{value}`" if isinstance(value, (str, int, float)) else f"of type `{type(value).__name__}`"
            raise self.wrong(f"`{at}` is {shown}", f"expected {expected}")

    def missing(self, at: str, path: str) -> UsageError:
        what = f"`{at}` is `{path}`, which does not exist in `{self.folder}`"
        return self.wrong(what, "correct the path; it is relative to the plan")

    def wrong(self, what: str, advice: str) -> UsageError:
        return UsageError(f"{self.name}: {what}; {advice}")


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return "+".join(map(_plain, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _file_name(text: str) -> str:
    """Text as a path below a folder: letters, digits and a few signs."""
    parts = re.sub(r"[^\w.=,+/-]", "_", text, flags=re.ASCII).split("/")
    return "/".join(_shortened(part.strip(".") or "_") for part in parts if part) or "_"


def _shortened(name: str) -> str:
    """A name that leaves room for suffixes where file systems take 255 bytes."""
    if len(name) <= _LONGEST_NAME:
        return name
    return f"{name[: _LONGEST_NAME - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
