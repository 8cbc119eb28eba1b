"""Where runs are executed: one after the other, by joblib, or by Ray."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import signal
import threading
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, TypeAlias, TypeVar

from ._errors import RunError, UsageError
from ._process import BINARY_VARIABLE, find_binary

_UNITS = {"": 1, "B": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KI": 2**10, "MI": 2**20, "GI": 2**30}

#: Ends the runs of this process.
STOP = threading.Event()

#: Share of the machine's memory that runs may take together.
_MEMORY_SHARE = 0.8
#: A layer may take this part of `--memory`.
_STAGES = 12
#: How often Ray gives a run to another worker after one has died with it.
_RETRIES = 5

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class Task(Protocol[R_co]):
    """Something to execute in any process, with a result of the type R.

    Attributes:
        weights: bytes of the float model, files with its weights included.
    """

    @property
    def weights(self) -> int:
        """See the class."""

    def with_resources(self, threads: int, memory: int | None) -> Task[R_co]:
        """The task with its threads, and its memory in bytes; None for no limit."""

    def execute(self) -> R_co:
        """Executes the task.

        Raises:
            RunError: nothing could be executed on this machine.
            Stopped: `STOP` was set.
        """

    def failed(self, message: str) -> R_co:
        """The result where the task could not be executed, for the reason in the message."""


#: What an executor yields: the place of a task, and its result.
Results: TypeAlias = Generator[tuple[int, R], None, None]


class Executor(Protocol):
    """Executes tasks, in any order."""

    def run(self, tasks: Sequence[Task[R]]) -> Results[R]:
        """Executes tasks, each with its share of threads and memory unless these were given."""


class Local:
    """Runs on this machine, `jobs` at once. Each gets its share of the cores and of the memory."""

    def __init__(self, jobs: int, threads: int | None, memory: int | None) -> None:
        if jobs < 1:
            raise UsageError(f"`jobs` is {jobs}; expected 1 or more")
        if jobs > 1:
            _joblib()
        self._jobs = jobs
        self._threads = threads or max(1, cores() // jobs)
        self._memory = memory
        self._share = int(available_memory() * _MEMORY_SHARE) // jobs if jobs > 1 else 0

    def run(self, tasks: Sequence[Task[R]]) -> Results[R]:
        """Executes tasks; an interruption ends those that run."""
        tasks = [_with_resources(task, self._threads, self._memory, self._share) for task in tasks]
        with _interruptible():
            if self._jobs == 1:
                for number, task in enumerate(tasks):
                    yield _execute(number, task)
            else:
                joblib = _joblib()
                # A run is a process, so threads that wait for it do. `joblib.parallel_config` can say otherwise.
                parallel = joblib.Parallel(n_jobs=self._jobs, prefer="threads", return_as="generator_unordered")
                yield from parallel(joblib.delayed(_execute)(number, task) for number, task in enumerate(tasks))


class Ray:
    """Runs on a cluster of Ray; runs whose worker or machine dies are executed again."""

    def __init__(self, address: str, threads: int | None, memory: int | None) -> None:
        try:
            ray = importlib.import_module("ray")
        except ImportError as error:
            raise UsageError("`ray` is not installed: pip install 'msq-onnx[ray]'") from error
        self._ray: Any = ray
        self._address = address
        self._threads = threads
        self._memory = memory

    def run(self, tasks: Sequence[Task[R]]) -> Results[R]:
        """Executes tasks; an interruption ends those that run."""
        if not tasks:
            return
        with self._connection():
            threads, share = self._shares(len(tasks))
            options: dict[str, Any] = {"num_cpus": threads, "max_retries": _RETRIES, "scheduling_strategy": "SPREAD"}
            if self._memory or share:
                options["memory"] = self._memory or share
            remote = self._ray.remote(**options)(_execute)
            waiting = {
                remote.remote(number, _with_resources(task, threads, self._memory, share)): (number, task)
                for number, task in enumerate(tasks)
            }
            try:
                while waiting:
                    (done,), _ = self._ray.wait(list(waiting), num_returns=1)
                    yield self._result(done, *waiting.pop(done))
            finally:
                for reference in waiting:
                    self._ray.cancel(reference)

    def _result(self, reference: Any, number: int, task: Task[R]) -> tuple[int, R]:
        try:
            result: tuple[int, R] = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            if "No module named 'msq_onnx'" not in str(error):
                raise
            raise RunError("a machine of the Ray cluster lacks this package: pip install 'msq-onnx[ray]'") from error
        except self._ray.exceptions.RayError as error:
            return number, task.failed(f"Ray gave up after {_RETRIES} retries: {str(error).splitlines()[0]}")
        return result

    @contextlib.contextmanager
    def _connection(self) -> Iterator[None]:
        """A connection to the cluster, that of the caller if there is one."""
        if self._ray.is_initialized():
            yield
            return
        environment = {BINARY_VARIABLE: str(find_binary().absolute())} if os.environ.get(BINARY_VARIABLE) else {}
        try:
            self._ray.init(
                address=self._address,
                runtime_env={"env_vars": environment},
                log_to_driver=False,
                logging_level=logging.WARNING,
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise UsageError(
                f"`ray`: there is no cluster at `{self._address}` ({reason}); start one with `ray start --head`"
            ) from error
        try:
            yield
        finally:
            self._ray.shutdown()

    def _shares(self, tasks: int) -> tuple[int, int]:
        """Threads and memory of a run: one core, or more where there are fewer runs than cores."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
        if not nodes:
            raise RunError("the Ray cluster has no CPUs")
        smallest = int(min(node["CPU"] for node in nodes))
        threads = self._threads or max(1, min(smallest, int(sum(node["CPU"] for node in nodes)) // tasks))
        per_core = min(node.get("memory", 0) / node["CPU"] for node in nodes)
        return threads, int(per_core * _MEMORY_SHARE) * min(threads, smallest)


def of(jobs: int, ray: str | None, threads: int | None, memory: str | int | None) -> Executor:
    """The executor for the parameters that functions have for it.

    Args:
        jobs: runs at once on this machine; above 1 needs the package `joblib`.
        ray: the address of a Ray cluster, `auto` or `local`; None for this machine.
        threads: of each run; None for a share of the cores.
        memory: of each run, in bytes or as `4GiB`; None for a share of what is free.

    Raises:
        UsageError: a value is wrong, or a package is missing.
    """
    size = None if memory is None else _bytes(memory)
    return Local(jobs, threads, size) if ray is None else Ray(ray, threads, size)


def _bytes(memory: str | int) -> int:
    """A number of bytes, as `--memory` reads it."""
    text = str(memory).strip()
    number = text.rstrip("BbKkMmGgIi ")
    unit = text[len(number) :].strip().upper()
    try:
        return int(float(number) * _UNITS[unit if unit in _UNITS else unit.removesuffix("B")])
    except (ValueError, KeyError):
        raise UsageError(f"`memory` is `{memory}`; expected a size such as `500MB` or `4GiB`") from None


def _with_resources(task: Task[R], threads: int, memory: int | None, share: int) -> Task[R]:
    """The task with its threads and memory, its share unless memory is given.

    Of a model whose layers are large for its limit the program quantizes weights alone. Results must not depend on what
    the machine has free, so such a model runs without a limit unless one is given.
    """
    if memory is None and share >= _STAGES * task.weights:
        memory = share or None
    return task.with_resources(threads, memory)


def cores() -> int:
    """Cores that this process may use; with joblib, no more than its container may."""
    with contextlib.suppress(ImportError):
        return int(importlib.import_module("joblib").cpu_count())
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def available_memory() -> int:
    """Bytes that are free now, or that the container may have; 0 where the system does not tell."""
    found = []
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found.append(1024 * int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]))
    with contextlib.suppress(OSError, ValueError):
        found.append(int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    return min(found, default=0)


def _execute(number: int, task: Task[R]) -> tuple[int, R]:
    try:
        return number, task.execute()
    except RunError as error:
        return number, task.failed(error.message)
    except OSError as error:
        return number, task.failed(f"`{error.filename}` cannot be written: {error.strerror}")


def _joblib() -> Any:
    try:
        return importlib.import_module("joblib")
    except ImportError as error:
        raise UsageError("`jobs` above 1 needs joblib: pip install 'msq-onnx[sweep]'") from error


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Lets Ctrl-C end the runs of all threads."""
    STOP.clear()
    in_main = threading.current_thread() is threading.main_thread()
    # Who ignores the signal or handles it in another way goes on doing so.
    if not in_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return

    def interrupted(number: int, frame: FrameType | None) -> None:
        STOP.set()
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, interrupted)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
