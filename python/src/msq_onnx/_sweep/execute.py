"""One run of a sweep: quantizes or searches, measures the result, and records both in a document.

Whatever a run writes is complete before it gets its name, the document last: a run that was killed has none, and is
repeated. Until then its files are in a folder named after the key of the run, so that a search that was killed goes on
from its journal.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from .. import _arguments, _process
from .._document import missed_target
from .._errors import RunError, TargetError
from .._executors import STOP
from .._options import OPTIONS
from .plan import RESOURCES, Run

SCHEMA_VERSION = 1
#: Exit codes of runs that left what was asked for.
DONE = (0, TargetError.exit_code)
#: Folders below that of the results.
DOCUMENTS, MODELS, PAGES, WORK = "runs", "models", "pages", ".work"


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a process that executes a run needs to know. Folders are the same on all machines.

    Attributes:
        run: the run.
        key: the hash of what it reads.
        folder: in which it runs, that of the plan.
        output: the folder for results.
        version: of the binary that has to execute it.
        models: whether the model is kept.
        pages: whether a page is written.
        threads: of the run.
        memory: in bytes; None for no limit.
        weights: bytes of the float model, files with its weights included.
    """

    run: Run
    key: str
    folder: Path
    output: Path
    version: str
    models: bool
    pages: bool
    threads: int
    memory: int | None
    weights: int

    def with_resources(self, threads: int, memory: int | None) -> Task:
        """The task with its threads and its memory."""
        return replace(self, threads=threads, memory=memory)

    def execute(self) -> dict[str, Any]:
        """The document of the run, which is written to `runs`."""
        return execute(self)

    def failed(self, message: str) -> dict[str, Any]:
        """The document of a run that could not be executed, which is not written."""
        return {**_head(self), "exit_code": RunError.exit_code, "message": message, "report": None, "judged": None}


def execute(task: Task) -> dict[str, Any]:
    """Executes a run and returns its document, which is written to `runs`.

    Raises:
        RunError: nothing could be executed on this machine.
        Stopped: the sweep was interrupted.
    """
    if not task.output.is_dir():
        raise RunError(f"`{task.output}` is no folder on `{socket.gethostname()}`: the machines have to share it")
    version = binary_version()
    if version != task.version:
        raise RunError(f"`{socket.gethostname()}` has {version}, and the sweep was started with {task.version}")
    work = task.output / WORK / task.key[:16]
    (work / "temporary").mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    document = _record(task, work)
    _publish(task, work, document)
    document["seconds"] = round(time.monotonic() - started, 3)
    _write_document(task, work, document)
    # The journal of a search that was killed is for the next time.
    shutil.rmtree(work / "temporary" if is_transient(document["exit_code"]) else work, ignore_errors=True)
    return document


def document_path(output: Path, name: str) -> Path:
    """The document of a run."""
    return output / DOCUMENTS / f"{name}.json"


def recorded(output: Path, name: str, key: str) -> dict[str, Any] | None:
    """The document of a run that has this key and does not have to be repeated."""
    try:
        document: dict[str, Any] = json.loads(document_path(output, name).read_text(encoding="utf-8"))
        whole = all((output / file).stat().st_size == size for file, size in document["files"].items())
    except (OSError, ValueError, KeyError, AttributeError):
        return None
    return document if whole and document.get("key") == key and not is_transient(document["exit_code"]) else None


def is_transient(exit_code: int) -> bool:
    """Whether the same run may well end in another way: it could not write, or was killed or interrupted."""
    return exit_code in (1, 130) or exit_code < 0 or exit_code > 130


@cache
def binary_version() -> str:
    """What `msq-onnx -V` prints."""
    binary = _process.find_binary()
    try:
        finished = subprocess.run([binary, "-V"], stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8")
    except OSError as error:
        raise RunError(f"the binary `{binary}` cannot be started: {error.strerror}") from error
    return finished.stdout.strip()


def _head(task: Task) -> dict[str, Any]:
    run, model = task.run, task.run.model
    return {
        "schema_version": SCHEMA_VERSION,
        "key": task.key,
        "name": run.name,
        "model": model.name,
        "setting": run.setting,
        "command": run.command,
        "path": model.path,
        "data": model.data,
        "judge": model.judge,
        "options": dict(run.options),
        "files": {},
    }


def _record(task: Task, work: Path) -> dict[str, Any]:
    finished, report = _run(task, _main_arguments(task, work), task.run.model.path, work)
    document = {**_head(task), "exit_code": finished.exit_code, "message": finished.error, "judged": None}
    if report is None and finished.exit_code == 0:
        document |= {"exit_code": RunError.exit_code, "message": "the binary printed no document"}
    document["report"] = report if document["exit_code"] in DONE else None
    if report and finished.exit_code == TargetError.exit_code and not document["message"]:
        document["message"] = missed_target(report)
    if document["report"] and task.run.model.judge and task.run.command == "quantize":
        judging, judged = _run(task, _judge_arguments(task), str(work / _file(task)), work)
        if judging.exit_code == 0:
            document["judged"] = judged
        else:
            document |= {"exit_code": judging.exit_code, "message": f"measuring the result: {judging.error}"}
    renamed: dict[str, Any] = _renamed(document, f"{work}{os.sep}")
    return renamed


def _run(task: Task, arguments: list[str], model: str, work: Path) -> tuple[_process.Finished, dict[str, Any] | None]:
    arguments = [*arguments, *_resources(task), "--json", "--", model]
    finished = _process.run(arguments, work / "temporary", working_folder=task.folder, stop=STOP)
    try:
        return finished, json.loads(finished.output)
    except ValueError:
        return finished, None


def _file(task: Task) -> str:
    """The model, or what a search found, as it is called beside its journal."""
    return Path(task.run.name).name + (".onnx" if task.run.command == "quantize" else ".search.json")


def _main_arguments(task: Task, work: Path) -> list[str]:
    run, model = task.run, task.run.model
    found = [] if run.command == "quantize" else [run.command]
    found += [f"--calib={model.data}"] if model.data else []
    found += [f"--labels={model.labels}"] if model.labels else []
    found += [f"--metric-command={model.metric}"] if model.metric else []
    found += [f"--output={work / _file(task)}"]
    if task.pages and run.command == "quantize":
        found.append(f"--report={work / 'page.html'}")
    return found + _option_arguments(run.command, run.options)


def _judge_arguments(task: Task) -> list[str]:
    run, model = task.run, task.run.model
    found = ["evaluate", f"--calib={model.judge}", f"--reference={model.path}"]
    found += [f"--labels={model.judge_labels}"] if model.judge_labels else []
    found += [f"--metric-command={model.metric}"] if model.metric else []
    known = {key: value for key, value in run.options.items() if key in OPTIONS["evaluate"] and key != "samples"}
    return found + _option_arguments("evaluate", known)


def _option_arguments(command: str, options: Mapping[str, Any]) -> list[str]:
    found = []
    for key, value in options.items():
        if key not in RESOURCES:
            found += _arguments.argument(key, key, OPTIONS[command][key], value)
    return found


def _resources(task: Task) -> list[str]:
    """Threads and memory: of the plan where it has them, else a share of the machine's."""
    memory = None if task.memory is None else f"{task.memory // 1_000_000}MB"
    found = {"threads": task.run.options.get("threads", task.threads), "memory": task.run.options.get("memory", memory)}
    return [f"--{key}={value}" for key, value in found.items() if value is not None]


def _renamed(value: Any, folder: str) -> Any:
    """The document without the folder that is gone when it is read."""
    if isinstance(value, str):
        return value.replace(folder, "")
    if isinstance(value, list):
        return [_renamed(each, folder) for each in value]
    if isinstance(value, dict):
        return {key: _renamed(each, folder) for key, each in value.items()}
    return value


def _publish(task: Task, work: Path, document: dict[str, Any]) -> None:
    """Moves what was written to where it belongs, and lists it in the document."""
    name = task.run.name
    # An earlier version of this run may have written what this one does not.
    for old in (document_path(task.output, name), *_targets(task).values()):
        old.unlink(missing_ok=True)
    if document["exit_code"] not in DONE:
        return
    for source, target in _targets(task).items():
        if (work / source).is_file() and (task.models or target.parts[-1].endswith(".html")):
            target.parent.mkdir(parents=True, exist_ok=True)
            (work / source).replace(target)
            document["files"][target.relative_to(task.output).as_posix()] = target.stat().st_size
    if document["report"].get("output"):
        document["report"]["output"] = next((file for file in document["files"] if file.endswith(".onnx")), None)


def _targets(task: Task) -> dict[str, Path]:
    """Files of the working folder that are kept, and where."""
    name, file = task.run.name, _file(task)
    if task.run.command != "quantize":
        return {}
    return {
        f"{file}.data": task.output / MODELS / f"{name}.onnx.data",
        file: task.output / MODELS / f"{name}.onnx",
        "page.html": task.output / PAGES / f"{name}.html",
    }


def _write_document(task: Task, work: Path, document: Mapping[str, Any]) -> None:
    (work / "document.json").write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    target = document_path(task.output, task.run.name)
    target.parent.mkdir(parents=True, exist_ok=True)
    (work / "document.json").replace(target)
