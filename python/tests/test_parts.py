"""Calibration and searches in parts, here and on a cluster, and where a run is."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

import msq_onnx
from msq_onnx import _process

SEARCH: dict[str, Any] = {"search": "sensitivity", "samples": 96}


def searched(model: Path, data: Path, output: Path, **options: Any) -> bytes:
    """The file of a search."""
    msq_onnx.quantize(model, data, output=output, target_bits=3, **SEARCH, **options)
    return output.read_bytes()


def test_statistics_of_parts_give_the_bytes_of_one_run(model: Path, arrays: dict[str, Any], tmp_path: Path) -> None:
    done: list[tuple[int, int]] = []
    parts = msq_onnx.calibrate(
        model, arrays, tmp_path / "parts", shards=3, jobs=2, progress=lambda *step: done.append(step)
    )
    assert [path.name for path in parts] == ["1-of-3.stats", "2-of-3.stats", "3-of-3.stats"]
    assert done == [(1, 3), (2, 3), (3, 3)]
    whole = msq_onnx.quantize(model, arrays).model_bytes
    assert msq_onnx.quantize(model, arrays, statistics=parts).model_bytes == whole


def test_a_cluster_that_loses_a_worker_measures_what_one_machine_does(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cluster: Any
) -> None:
    data = model.parent / "calib.npz"
    whole = searched(model, data, tmp_path / "whole.onnx")
    # The second part kills the worker that runs it, once.
    trap, log, script = tmp_path / "trap", tmp_path / "log", tmp_path / "binary"
    trap.touch()
    lines = [
        "#!/bin/sh",
        f'echo "$*" >>{log}',
        f'[ -e {trap} ] && case "$*" in *--shard=2/*) rm {trap}; kill -9 $PPID; sleep 20;; esac',
        f'exec {_process.find_binary()} "$@"',
    ]
    script.write_text("\n".join([*lines, ""]), encoding="utf-8")
    script.chmod(0o755)
    monkeypatch.setenv(_process.BINARY_VARIABLE, str(script))
    parts = msq_onnx.measure(model, data, tmp_path / "parts", shards=3, ray=cluster.address, **SEARCH)
    assert not trap.exists()
    runs = log.read_text(encoding="utf-8").splitlines()
    assert sum("--shard=2/3" in run for run in runs) == 2
    assert len(runs) == 4
    # Nothing is measured again: the search has as many measurements as the parts.
    log.unlink()
    report = msq_onnx.quantize(model, data, output=tmp_path / "parts.onnx", target_bits=3, measurements=parts, **SEARCH)
    assert (tmp_path / "parts.onnx").read_bytes() == whole
    assert report.search is not None
    assert report.search.resumed > 0
    assert [path.name for path in (tmp_path / "parts").iterdir() if path not in parts] == []


def test_parts_that_fail_say_which(model: Path, arrays: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(msq_onnx.UsageError, match="`shards` is 0; expected 1 or more"):
        msq_onnx.calibrate(model, arrays, tmp_path / "parts", shards=0)
    with pytest.raises(msq_onnx.UsageError, match="`solvr` is no option of `search`; did you mean `solver`"):
        msq_onnx.measure(model, arrays, tmp_path / "parts", shards=2, solvr="gram")  # type: ignore[call-arg]
    with pytest.raises(msq_onnx.DataError, match=r"part 1 of 2: .*nothing\.npz"):
        msq_onnx.measure(model, tmp_path / "nothing.npz", tmp_path / "parts", shards=2)
    with pytest.raises(msq_onnx.UsageError, match="`data` is of type `dict`; with `ray` it is a path"):
        msq_onnx.measure(model, arrays, tmp_path / "parts", shards=2, ray="auto")
    (tmp_path / "file").touch()
    with pytest.raises(msq_onnx.RunError, match="file` cannot be written"):
        msq_onnx.calibrate(model, arrays, tmp_path / "file", shards=2)


def test_progress_is_told_to_its_end(model: Path, arrays: dict[str, Any]) -> None:
    told: list[msq_onnx.Progress] = []
    msq_onnx.quantize(model, arrays, progress=told.append)
    phases = list(dict.fromkeys(step.phase for step in told))
    assert phases[0] == "calibrate"
    assert len(phases) > 1
    for phase in phases:
        steps = [step for step in told if step.phase == phase]
        assert steps[0].done == 0
        assert steps[-1].done == steps[-1].steps
        assert all(before.done <= after.done for before, after in itertools.pairwise(steps))
    told.clear()
    msq_onnx.evaluate(model, arrays, progress=told.append, metric=lambda outputs, labels: 1.0)
    assert told[-1].done == 512


class Enough(Exception):
    """What a caller raises who has seen enough."""


def test_what_progress_raises_ends_the_run(model: Path, arrays: dict[str, Any], tmp_path: Path) -> None:
    def stop(_: msq_onnx.Progress) -> None:
        raise Enough

    with pytest.raises(Enough):
        msq_onnx.quantize(model, arrays, output=tmp_path / "small.onnx", progress=stop)
    assert not (tmp_path / "small.onnx").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["temporary"]
