"""Sweeps: the table, what is repeated, what is left after a process was killed, mistakes in plans."""

from __future__ import annotations

import csv
import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import msq_onnx
from conftest import DIGITS, PYTHON
from msq_onnx import _executors, _options, _process
from msq_onnx._sweep import fingerprint, pending
from msq_onnx._sweep.plan import read_plan

PLAN = """
output = "out"

[options]
samples = 32
no-repair = true

[models.digits]
path = "digits.onnx"
data = "calib.npz"

[settings.int8]

[settings.low]
solver = "round"
weight-bits = [4, 3, 2]
"""
NAMES = ["int8", "low.weight-bits=4", "low.weight-bits=3", "low.weight-bits=2"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the digits and a plan of four runs."""
    made = tmp_path / "sweep"
    made.mkdir()
    for name in ("digits.onnx", "calib.npz", "test.npz"):
        shutil.copy(DIGITS / name, made)
    (made / "plan.toml").write_text(PLAN, encoding="utf-8")
    return made


class CountedBinary:
    """The binary in a script that counts its runs, and once kills the process that started it."""

    def __init__(self, folder: Path) -> None:
        self._log, self._trap = folder / "log", folder / "trap"
        self.path = folder / "binary"
        kills = (
            f'[ -e {self._trap} ] && case "$*" in *--weight-bits=3*) rm {self._trap}; kill -9 $PPID; sleep 20;; esac'
        )
        lines = ["#!/bin/sh", f'[ "$1" = -V ] || echo "$*" >>{self._log}', kills]
        self.path.write_text("\n".join([*lines, f'exec {_process.find_binary()} "$@"', ""]), encoding="utf-8")
        self.path.chmod(0o755)

    def set_trap(self) -> None:
        """Lets the next run of 3 bits kill its parent."""
        self._trap.touch()

    @property
    def is_trap_set(self) -> bool:
        return self._trap.exists()

    def runs(self) -> list[str]:
        """The settings of the runs since this was last asked."""
        text = self._log.read_text(encoding="utf-8") if self._log.exists() else ""
        self._log.unlink(missing_ok=True)
        return re.findall(r"--output=\S+/(\S+)\.onnx", text)


@pytest.fixture
def counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CountedBinary:
    if os.name != "posix":
        pytest.skip("the script that counts runs is one of the shell")
    binary = CountedBinary(tmp_path)
    monkeypatch.setenv(_process.BINARY_VARIABLE, str(binary.path))
    return binary


def command(*arguments: str | Path, **options: Any) -> subprocess.Popen[str]:
    """Starts the command line of sweeps."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONIOENCODING": "utf-8"}
    line = [sys.executable, "-m", "msq_onnx.sweep", *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(line, env=environment, stdout=pipe, stderr=pipe, encoding="utf-8", **options)


def written(folder: Path) -> dict[str, bytes]:
    """The table and the models, by path."""
    files = [folder / "sweep.csv", folder / "sweep.html", *folder.rglob("*.onnx")]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_a_sweep_gives_models_documents_and_one_table(folder: Path, arrays: dict[str, Any]) -> None:
    result = msq_onnx.sweep(folder / "plan.toml")
    assert result.exit_code == 0
    assert [run.setting for run in result.runs] == NAMES
    with (folder / "out" / "sweep.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["weight-bits"] for row in rows] == ["", "4", "3", "2"]
    for row, run in zip(rows, result.runs, strict=True):
        assert isinstance(run.report, msq_onnx.Report)
        assert run.report.quality is not None
        assert run.output is not None
        onnx.checker.check_model(str(run.output))
        assert int(row["bytes"]) == run.output.stat().st_size == run.report.bytes
        assert float(row["accuracy"]) == run.report.quality.accuracy
        assert run.output == folder / "out" / row["file"]
        assert json.loads(run.document.read_text(encoding="utf-8"))["report"] == run.report.raw
        # A run of its own with these options gives the same model.
        alone = msq_onnx.quantize(folder / "digits.onnx", folder / "calib.npz", samples=32, **plain(run.options))
        assert alone.model_bytes == run.output.read_bytes()
    sizes = [run.report.bytes for run in result.runs if isinstance(run.report, msq_onnx.Report)]
    assert sizes == sorted(sizes, reverse=True)
    text = result.table().splitlines()
    assert len(text) == 5
    assert "low.weight-bits=4" in text[2]
    assert {path.name for path in (folder / "out").iterdir() if not path.name.startswith(".")} == {
        "models",
        "runs",
        "sweep.csv",
        "sweep.html",
    }
    assert not (folder / "out" / ".work").exists()


def plain(options: Any) -> dict[str, Any]:
    return {key.replace("-", "_"): value for key, value in options.items() if key != "samples"}


def test_results_are_measured_on_judging_data(folder: Path, held_out: Path) -> None:
    plan = {"models": {"d": {"path": str(folder / "digits.onnx"), "data": str(folder / "calib.npz")}}}
    plan["models"]["d"]["judge"] = str(held_out)
    (run,) = msq_onnx.sweep({**plan, "settings": {"s": {"samples": 16}}}, folder / "out").runs
    assert run.judged is not None
    assert run.output is not None
    alone = msq_onnx.evaluate(run.output, held_out, reference=folder / "digits.onnx")
    assert run.judged.accuracy == alone.accuracy == run.figures["accuracy"]
    assert run.figures["measured"] == 600
    assert run.figures["measured_on"] == str(held_out)


def test_patterns_placeholders_and_several_data(folder: Path) -> None:
    for name in ("a", "b"):
        (folder / "zoo" / name).mkdir(parents=True)
        shutil.copy(folder / "digits.onnx", folder / "zoo" / name / "net.onnx")
        shutil.copy(folder / "calib.npz", folder / "zoo" / name / "net.npz")
    plan = """
[models.zoo]
path = "zoo/*/*.onnx"
data = ["{folder}/{stem}.npz", "test.npz"]
[settings."odd name/../x"]
samples = 8
weight-bits = "ternary"
solver = "round"
verify = 4
[write]
models = false
html = false
pages = true
"""
    (folder / "plan.toml").write_text(plan, encoding="utf-8")
    result = msq_onnx.sweep(folder / "plan.toml")
    assert [(run.model, run.data) for run in result.runs] == [
        ("a/net", "zoo/a/net.npz"),
        ("a/net", "test.npz"),
        ("b/net", "zoo/b/net.npz"),
        ("b/net", "test.npz"),
    ]
    # The plan names no folder, so it is called after the plan. Nothing is written outside of it.
    assert result.folder == folder / "plan.sweep"
    assert result.html is None
    assert all(run.output is None for run in result.runs)
    assert len(list(result.folder.rglob("*.json"))) == 4 + 1
    assert len(list((result.folder / "pages" / "a").rglob("*.html"))) == 2
    assert not list(result.folder.rglob("*.onnx"))


def test_long_values_make_names_that_file_systems_take(folder: Path) -> None:
    plan = {
        "models": {"d": {"path": str(folder / "digits.onnx")}},
        "settings": {"s": {"skip": [["a" * 300, "b"], ["a" * 300, "c"]], "samples": 4}},
    }
    result = msq_onnx.sweep(plan, folder / "out")
    assert [run.exit_code for run in result.runs] == [2, 2]
    assert len({run.document for run in result.runs}) == 2
    assert all(run.document.is_file() for run in result.runs)


def test_failed_runs_are_rows(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    plan = PLAN.replace("[4, 3, 2]", "[4]") + '[settings.broken]\nskip = ["nothing"]\n'
    (folder / "plan.toml").write_text(plan, encoding="utf-8")
    process = command(folder / "plan.toml")
    said, log = process.communicate()
    assert process.returncode == 1, log
    assert "no layer matches `nothing`" in said
    result = msq_onnx.sweep(folder / "plan.toml")
    assert [run.exit_code for run in result.runs] == [0, 0, 2]
    assert not any(run.executed for run in result.runs)
    assert result.runs[2].report is None
    assert result.runs[2].output is None
    again = msq_onnx.sweep(folder / "plan.toml", retry=True)
    assert [run.executed for run in again.runs] == [False, False, True]


def test_a_target_out_of_reach_is_a_code_of_its_own(folder: Path) -> None:
    plan = PLAN.split("[settings.low]")[0] + '[settings.tiny]\ntarget-size = "1KB"\nsearch = "uniform"\n'
    (folder / "plan.toml").write_text(plan, encoding="utf-8")
    result = msq_onnx.sweep(folder / "plan.toml")
    assert result.exit_code == 5
    tiny = result.runs[1]
    assert tiny.figures["state"] == "missed"
    assert tiny.message.startswith("the target is out of reach: a file of 1000 bytes; the nearest is ")
    assert tiny.output is not None
    assert tiny.output.exists()


def test_rows_may_be_searches(folder: Path) -> None:
    plan = PLAN.split("[settings.int8]")[0]
    plan += '[settings.find]\ncommand = "search"\nsearch = "uniform"\ntarget-bits = [4, 3]\nladder = [8, 4, 3]\n'
    (folder / "plan.toml").write_text(plan, encoding="utf-8")
    result = msq_onnx.sweep(folder / "plan.toml")
    assert result.exit_code == 0
    for run, bits in zip(result.runs, (4, 3), strict=True):
        assert isinstance(run.report, msq_onnx.SearchReport)
        assert run.figures["bits"] == run.report.bits <= bits
        assert run.report.raw["plan"]


def test_only_what_changed_is_repeated(folder: Path, counted: CountedBinary) -> None:
    plan = folder / "plan.toml"
    msq_onnx.sweep(plan)
    assert counted.runs() == NAMES
    before = written(folder / "out")
    msq_onnx.sweep(plan, threads=1, memory="1GiB")
    assert counted.runs() == []
    assert pending(plan) == [(f"digits/{name}", False) for name in NAMES]

    # Another time of modification alone is no change; a model that was removed is.
    (folder / "calib.npz").touch()
    (folder / "out/models/digits/int8.onnx").unlink()
    msq_onnx.sweep(plan)
    assert counted.runs() == ["int8"]

    plan.write_text(PLAN.replace("[4, 3, 2]", "[4, 3]").replace('"round"', '["round", "cosine"]'), encoding="utf-8")
    assert len(msq_onnx.sweep(plan).runs) == 5
    assert len(counted.runs()) == 4

    plan.write_text(PLAN, encoding="utf-8")
    model = onnx.load(folder / "digits.onnx")
    model.doc_string = "another"
    onnx.save(model, folder / "digits.onnx")
    msq_onnx.sweep(plan)
    assert counted.runs() == NAMES
    shutil.copy(DIGITS / "digits.onnx", folder)
    msq_onnx.sweep(plan)
    assert counted.runs() == NAMES
    assert written(folder / "out").items() >= before.items()


def test_a_killed_sweep_goes_on_and_gives_the_same_bytes(folder: Path, counted: CountedBinary) -> None:
    whole = msq_onnx.sweep(folder / "plan.toml", folder / "whole")
    counted.runs()
    counted.set_trap()
    process = command(folder / "plan.toml")
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert counted.runs() == NAMES[:3]
    assert not (folder / "out" / "sweep.csv").exists()
    process = command(folder / "plan.toml", "--quiet")
    assert process.communicate() == ("", "")
    assert process.returncode == 0
    assert counted.runs() == NAMES[2:]
    assert written(folder / "out") == written(whole.folder)


@pytest.mark.skipif(sys.platform != "linux", reason="finds the process in /proc")
def test_a_search_that_was_killed_goes_on_from_its_journal(folder: Path) -> None:
    plan = PLAN.split("[settings.int8]")[0] + '[settings.find]\nsearch = "ilp"\ntarget-bits = 3\nsamples = 160\n'
    (folder / "plan.toml").write_text(plan, encoding="utf-8")
    process = command(folder / "plan.toml", "--threads", "1")
    journal = f"{folder / 'out' / '.work'}/"
    while sum(len(path.read_bytes()) for path in Path(journal).rglob("*.search.jsonl")) < 2000:
        assert process.poll() is None
        time.sleep(0.02)
    (runner,) = [
        int(path.parent.name) for path in Path("/proc").glob("[0-9]*/cmdline") if journal.encode() in read(path)
    ]
    os.kill(runner, signal.SIGKILL)
    process.communicate()
    assert process.returncode == 1
    (run,) = msq_onnx.sweep(folder / "plan.toml").runs
    assert run.executed
    assert isinstance(run.report, msq_onnx.Report)
    assert run.report.search is not None
    assert run.report.search.resumed > 0
    assert not Path(journal).exists()
    (whole,) = msq_onnx.sweep(folder / "plan.toml", folder / "whole").runs
    assert written(folder / "out") == written(folder / "whole")
    assert whole.raw["report"]["search"]["resumed"] == 0


def read(path: Path) -> bytes:
    """The contents of a file that may be gone."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


@pytest.mark.parametrize("jobs", [1, 2])
def test_ctrl_c_ends_runs_and_keeps_what_is_done(folder: Path, counted: CountedBinary, jobs: int) -> None:
    if jobs > 1:
        pytest.importorskip("joblib", reason="joblib is not installed: sweeps with several jobs are not tested")
    slow = PLAN.replace("[4, 3, 2]", "[4]") + '[settings.slow]\nweight-bits = 3\nsolver = "adaround"\nsamples = 512\n'
    (folder / "plan.toml").write_text(slow.replace("[settings.slow]", "solver-steps = 10\n[settings.slow]"))
    process = command(folder / "plan.toml", "--jobs", str(jobs), start_new_session=True)
    while not (folder / "out/.work").exists() or not list((folder / "out/runs/digits").glob("low*.json")):
        assert process.poll() is None
        time.sleep(0.02)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, log = process.communicate(timeout=30)
    assert process.returncode == 130, log
    assert "the same command goes on from there" in log
    assert not running(counted.path.name, str(folder))
    assert {path.stem for path in (folder / "out/runs").rglob("*.json")} == {"int8", "low.weight-bits=4"}


def running(*words: str) -> list[str]:
    """Command lines of processes that have all these words."""
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, encoding="utf-8").stdout.splitlines()
    return [line for line in listed if all(word in line for word in words)]


def test_two_sweeps_keep_out_of_each_other_s_folder(folder: Path) -> None:
    errors: list[msq_onnx.Error] = []

    def second(*_: Any) -> None:
        try:
            msq_onnx.sweep(folder / "plan.toml")
        except msq_onnx.Error as error:
            errors.append(error)

    msq_onnx.sweep(folder / "plan.toml", progress=second)
    assert len(errors) == 4
    assert "another sweep is writing to" in errors[0].message


def test_jobs_give_the_same_bytes_and_share_the_cores(folder: Path) -> None:
    pytest.importorskip("joblib", reason="joblib is not installed: sweeps with several jobs are not tested")
    one = msq_onnx.sweep(folder / "plan.toml", folder / "one")
    done: list[tuple[int, int]] = []
    two = msq_onnx.sweep(
        folder / "plan.toml", folder / "two", jobs=2, progress=lambda _, number, total: done.append((number, total))
    )
    assert written(one.folder) == written(two.folder)
    assert done == [(number, 4) for number in range(1, 5)]
    for run in two.runs:
        assert f"--threads={max(1, _executors.cores() // 2)}" in run.raw["report"]["arguments"]
        assert any(argument.startswith("--memory=") for argument in run.raw["report"]["arguments"])


def test_large_models_have_no_limit_of_memory_that_was_not_given(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("joblib", reason="joblib is not installed: sweeps with several jobs are not tested")
    size = (folder / "digits.onnx").stat().st_size
    plan = folder / "plan.toml"

    def limits(free: int, **given: Any) -> set[bool]:
        monkeypatch.setattr(_executors, "available_memory", lambda: free)
        shutil.rmtree(folder / "out", ignore_errors=True)
        arguments = [run.raw["report"]["arguments"] for run in msq_onnx.sweep(plan, jobs=2, **given).runs]
        return {any(each.startswith("--memory=") for each in line) for line in arguments}

    assert limits(40 * size) == {True}
    assert limits(20 * size) == {False}
    assert limits(20 * size, memory="100MB") == {True}
    assert limits(0) == {False}


def test_a_cluster_that_loses_a_worker_and_a_machine_gives_the_same_bytes(
    folder: Path, counted: CountedBinary, cluster: Any
) -> None:
    whole = msq_onnx.sweep(folder / "plan.toml", folder / "whole")
    counted.runs()
    counted.set_trap()
    nodes = list(cluster.worker_nodes)

    def lose_a_machine(_: msq_onnx.SweepRun, done: int, total: int) -> None:
        if not counted.is_trap_set and len(nodes) == 2:
            cluster.remove_node(nodes.pop(), allow_graceful=False)

    spread = msq_onnx.sweep(folder / "plan.toml", ray=cluster.address, progress=lose_a_machine)
    assert not counted.is_trap_set
    assert len(nodes) == 1
    assert counted.runs().count("low.weight-bits=3") >= 2
    assert all(run.executed and run.exit_code == 0 for run in spread.runs)
    assert written(spread.folder) == written(whole.folder)
    assert not (spread.folder / ".work").exists()


def test_a_wrong_address_is_one_line(folder: Path) -> None:
    pytest.importorskip("ray", reason="ray is not installed: sweeps on a cluster are not tested")
    with pytest.raises(msq_onnx.UsageError, match=r"`ray`: there is no cluster at `auto`.*`ray start --head`"):
        msq_onnx.sweep(folder / "plan.toml", ray="auto")


def test_missing_packages_are_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "joblib", None)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(msq_onnx.UsageError, match=r"pip install 'msq-onnx\[sweep\]'"):
        msq_onnx.sweep(folder / "plan.toml", jobs=2)
    with pytest.raises(msq_onnx.UsageError, match=r"pip install 'msq-onnx\[ray\]'"):
        msq_onnx.sweep(folder / "plan.toml", ray="auto")
    assert _executors.cores() >= 1


MISTAKES = [
    ("output = 3", "`output` is `3`; expected a string"),
    ("modles = {}", "`modles` is no key of a plan; did you mean `models`?"),
    ("[models.digits]\npath = 'no.onnx'", "`models.digits.path` is `no.onnx`, which does not exist in"),
    ("[models.digits]\ndata = 'x.npz'", "`models.digits.path` is missing; name a model"),
    ("[models.digits]\npath = 'zoo/*.onnx'", "`models.digits.path` is `zoo/*.onnx`, which matches no file in"),
    ("[models.digits]\npath = 'digits.onnx'\ndata = 'x'", "`models.digits.data` is `x`, which does not exist in"),
    (
        "[models.digits]\npath = 'digits.onnx'\njudges = 'x'",
        "`judges` is no key of `models.digits`; did you mean `judge`?",
    ),
    ("[settings]", "`settings` is missing; add a table `[settings.NAME]`"),
    ("[settings.a]\nweight-bit = 4", "`settings.a.weight-bit` is no option of `quantize`; did you mean `weight-bits`?"),
    (
        "[settings.a]\nweight_bits = 4",
        "`settings.a.weight_bits` is no option of `quantize`; did you mean `weight-bits`?",
    ),
    ("[settings.a]\nsolver = ['gram', 'grm']", "`settings.a.solver` is `grm`; expected `round`"),
    ("[settings.a]\nseed = 'x'", "`settings.a.seed` is of type `str`; expected a whole number"),
    ("[settings.a]\nseed = []", "`settings.a.seed` is an empty list; give values, or leave the key out"),
    ("[settings.a]\ncommand = 'lint'", "`settings.a.command` is `lint`; expected `quantize` or `search`"),
    ("[settings.a]\nreport = 'x.html'", "`settings.a.report`: a sweep names the files it writes; say `pages = true`"),
    ("[settings.a]\nlabels = 'x.csv'", "`settings.a.labels` belongs to a model; move it to `[models.NAME]`"),
    ("[settings.a]\nplan = 'x.json'", "`settings.a.plan` is `x.json`, which does not exist in"),
    ("[settings.a]\n[settings.A]", "two runs would write the files of `digits/A`"),
    ("[options]\nsedd = 3\n[settings.a]", "`options.sedd` is no option of `quantize`; did you mean `seed`?"),
    ("[write]\nhtml = 'x'\n[settings.a]", "`write.html` is `x`; expected true or false"),
    ("[settings.a", "is not TOML: "),
]


@pytest.mark.parametrize(("text", "message"), MISTAKES)
def test_mistakes_in_plans_name_the_file_and_the_key(folder: Path, text: str, message: str) -> None:
    models = "" if "models" in text or "modles" in text else "[models.digits]\npath = 'digits.onnx'\n"
    top = text if text.startswith(("output", "modles")) else ""
    (folder / "plan.toml").write_text("\n".join([top, models, "" if top else text]), encoding="utf-8")
    with pytest.raises(msq_onnx.UsageError) as raised:
        msq_onnx.sweep(folder / "plan.toml")
    assert message in raised.value.message
    assert raised.value.message.startswith("`plan.toml`")
    assert "\n" not in raised.value.message
    assert not (folder / "out").exists()


def test_every_option_may_be_in_a_plan_or_is_refused_with_a_reason(folder: Path) -> None:
    values: dict[str, Any] = {
        "flag": True,
        "count": 1,
        "integer": 1,
        "number": 0.5,
        "text": "x",
        "path": "calib.npz",
        "size": "1KB",
        "bits": 4,
    }
    refused: list[str] = []
    for key, option in _options.OPTIONS["quantize"].items():
        value = option.choices[0] if option.choices else values[option.kind]
        if option.kind == "path":
            value = str(folder / "calib.npz")
        plan = {"models": {"d": {"path": str(folder / "digits.onnx")}}, "settings": {"s": {key: value}}}
        try:
            assert len(read_plan(plan).runs) == 1
        except msq_onnx.UsageError:
            refused.append(key)
    assert sorted(refused) == ["dump-after", "labels", "report", "save-plan"]


def test_weights_in_other_files_count_as_part_of_the_model(folder: Path) -> None:
    assert fingerprint.external_files(folder / "digits.onnx") == set()
    assert fingerprint.external_files(folder / "calib.npz") == set()
    model = onnx.load(folder / "digits.onnx")
    (folder / "w").mkdir()
    onnx.save(model, folder / "apart.onnx", save_as_external_data=True, location="w/apart.bin", size_threshold=64)
    assert fingerprint.external_files(folder / "apart.onnx") == {"w/apart.bin"}
    plan = {"models": {"d": {"path": str(folder / "apart.onnx")}}, "settings": {"s": {"samples": 4}}}
    msq_onnx.sweep(plan, folder / "out")
    assert pending(plan, folder / "out") == [("d/s", False)]
    weights = bytearray((folder / "w" / "apart.bin").read_bytes())
    weights[0] ^= 1
    (folder / "w" / "apart.bin").write_bytes(weights)
    assert pending(plan, folder / "out") == [("d/s", True)]


def test_constants_of_nodes_and_sub_graphs_may_be_in_other_files(tmp_path: Path) -> None:
    def tensor(location: str) -> onnx.TensorProto:
        made = onnx.numpy_helper.from_array(np.zeros(4, np.float32), location)
        made.ClearField("raw_data")
        made.data_location = onnx.TensorProto.EXTERNAL
        made.external_data.add(key="location", value=location)
        return made

    helper = onnx.helper
    inner = helper.make_graph([helper.make_node("Constant", [], ["c"], value=tensor("inner.bin"))], "g", [], [])
    nodes = [helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)]
    graph = helper.make_graph(nodes, "g", [], [], [tensor("outer.bin")])
    function = helper.make_function(
        "local", "F", [], ["f"], [helper.make_node("Constant", [], ["f"], value=tensor("function.bin"))], []
    )
    path = tmp_path / "model.onnx"
    path.write_bytes(helper.make_model(graph, functions=[function]).SerializeToString())
    assert fingerprint.external_files(path) == {"inner.bin", "outer.bin", "function.bin"}


def test_the_page_is_one_file_with_every_run(folder: Path) -> None:
    plan = {
        "models": {'<b>&"': {"path": str(folder / "digits.onnx")}},
        "settings": {"a": {"samples": 4}, "b": {"skip": ["x<"]}},
    }
    result = msq_onnx.sweep(plan, folder / "out")
    assert result.html is not None
    page = result.html.read_text(encoding="utf-8")
    assert "<!--" not in page
    assert "&lt;b&gt;&amp;&quot;" in page
    assert "<b>&" not in page
    assert "x&lt;" in page
    assert page.count('<tr class="') == 2
    assert not re.search(r"(?:src|href)=\"(?:https?:)?//", page)
    for link in re.findall(r'<td[^>]*><a href="([^"]+)"', page):
        assert (result.folder / link).is_file()


def test_the_name_is_the_function_after_the_module_was_imported() -> None:
    importlib.import_module("msq_onnx.sweep")
    assert callable(msq_onnx.sweep)
    assert msq_onnx.sweep.__doc__ is not None


def test_a_run_in_a_thread_can_be_stopped(tmp_path: Path, model: Path) -> None:
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    arguments = [f"--output={tmp_path / 'x.onnx'}", "--solver=adaround", "--weight-bits=3", "--", str(model)]
    with pytest.raises(_process.Stopped):
        _process.run(arguments, tmp_path, stop=stop)
    assert not (tmp_path / "x.onnx").exists()


def test_the_plan_in_the_documentation_runs(folder: Path) -> None:
    page = (PYTHON.parent / "docs" / "sweep.md").read_text(encoding="utf-8")
    (plan,) = re.findall(r"^```toml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    for name in ("zoo/digits.onnx", "zoo/digits.npz", "resnet.onnx", "photos.npz", "held-out.npz"):
        (folder / name).parent.mkdir(exist_ok=True)
        source = "digits.onnx" if name.endswith(".onnx") else "calib.npz"
        shutil.copy(DIGITS / source, folder / name)
    (folder / "documented.toml").write_text(plan, encoding="utf-8")
    assert len(pending(folder / "documented.toml")) == 2 * 8
