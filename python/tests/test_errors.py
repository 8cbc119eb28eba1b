"""Exceptions, interruption, and the search for the binary."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import msq_onnx
from msq_onnx import _errors, _process


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight_bit": 4}, "`weight_bit` is no option of `quantize`; did you mean `weight_bits`?"),
        ({"weight-bits": 4}, "`weight-bits` is no option of `quantize`; did you mean `weight_bits`?"),
        ({"json": True}, "`json` is no option of `quantize`"),
        ({"format": "qdqq"}, "`format` is `qdqq`; expected `qdq`, `qlinear`, `integer`, `nbits`; did you mean `qdq`?"),
        ({"samples": "many"}, "`samples` is of type `str`; expected a whole number"),
        ({"samples": True}, "`samples` is of type `bool`; expected a whole number"),
        ({"half_scales": 1}, "`half_scales` is of type `int`; expected True or False"),
        ({"weight_bits": 9}, "invalid value '9' for '--weight-bits <BITS>'"),
        ({"target_bits": 3, "weight_bits": 4}, "cannot be used with"),
        ({"skip": "nothing"}, "nothing"),
        ({"plan": {"version": 1, "layers": {"none": {"weights": 4}}}}, "`plan.json`"),
    ],
)
def test_usage(model: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(msq_onnx.UsageError) as raised:
        msq_onnx.quantize(model, **options)
    assert message in raised.value.message
    assert "\n" not in raised.value.message
    assert raised.value.exit_code == 2


def test_models(model: Path) -> None:
    with pytest.raises(msq_onnx.ModelError, match=r"`nowhere[.]onnx`: cannot read it"):
        msq_onnx.inspect("nowhere.onnx")
    with pytest.raises(msq_onnx.ModelError, match=r"^`model[.]onnx`: it is not an ONNX model"):
        msq_onnx.quantize(model.read_bytes()[:-1000])
    with pytest.raises(msq_onnx.UsageError, match="the model is of type `int`; expected a path, bytes"):
        msq_onnx.inspect(7)  # type: ignore[arg-type]


def test_a_model_too_large_to_serialize() -> None:
    class Large:
        def SerializeToString(self) -> bytes:
            raise ValueError("exceeds maximum protobuf size of 2GB")

    with pytest.raises(msq_onnx.UsageError, match="save it with external data and give the path"):
        msq_onnx.inspect(Large())  # type: ignore[arg-type]


def test_outputs(model: Path) -> None:
    with pytest.raises(msq_onnx.RunError) as raised:
        msq_onnx.quantize(model, output=model)
    assert raised.value.exit_code == 1
    with pytest.raises(msq_onnx.RunError):
        msq_onnx.quantize(model, output="no/such/folder/small.onnx")


def test_a_target_out_of_reach_gives_the_nearest_model(model: Path, arrays: dict[str, Any]) -> None:
    with pytest.raises(msq_onnx.TargetError) as raised:
        msq_onnx.quantize(model, arrays, target_size="1KB", search="uniform")
    assert raised.value.exit_code == 5
    assert raised.value.report.bytes == len(raised.value.report.model_bytes)


def test_evaluate_needs_something_to_measure(model: Path, arrays: dict[str, Any]) -> None:
    with pytest.raises(msq_onnx.UsageError):
        msq_onnx.evaluate(model, arrays["image"])


def test_a_class_for_every_code() -> None:
    for code in (1, 2, 3, 4, 5, 130):
        error = _errors.error_of(code, "why")
        assert (error.exit_code, str(error), type(error).exit_code) == (code, "why", code)
    assert _errors.error_of(-9, "").exit_code == -9


def test_a_binary_that_is_not_there(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(_process.BINARY_VARIABLE, "nowhere")
    with pytest.raises(msq_onnx.RunError, match="the binary `nowhere` cannot be started"):
        msq_onnx.inspect(model)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell")
@pytest.mark.parametrize(
    ("script", "kind", "code", "message"),
    [
        ("echo 'error: cancelled' >&2; exit 130", msq_onnx.InterruptedRun, 130, "cancelled"),
        ("kill -9 $$", msq_onnx.RunError, -9, "the run ended with exit code -9"),
    ],
)
def test_a_run_that_something_else_ended(
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    script: str,
    kind: type[msq_onnx.Error],
    code: int,
    message: str,
) -> None:
    binary = tmp_path / "ended"
    binary.write_text(f"#!/bin/sh\n{script}\n")
    binary.chmod(0o755)
    monkeypatch.setenv(_process.BINARY_VARIABLE, str(binary))
    with pytest.raises(kind) as raised:
        msq_onnx.inspect(model)
    assert (raised.value.exit_code, raised.value.message) == (code, message)


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
def test_ctrl_c_ends_the_run_and_leaves_nothing(model: Path, arrays: dict[str, Any], tmp_path: Path) -> None:
    output = tmp_path / "small.onnx"
    timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    start = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            msq_onnx.quantize(model, arrays, output=output, weight_bits=4, solver="adaround", solver_steps=5_000)
    finally:
        timer.cancel()
    assert time.monotonic() - start < 60
    assert [path.name for path in tmp_path.iterdir()] == ["temporary"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
def test_ctrl_c_of_a_terminal_reaches_the_run_once(model: Path, tmp_path: Path) -> None:
    """A terminal signals the whole group; a second request would make the binary stop at once."""
    script = textwrap.dedent(
        """
        import sys
        import msq_onnx
        print("go", flush=True)
        try:
            msq_onnx.quantize(sys.argv[1], output=sys.argv[2], weight_bits=4, solver="adaround", solver_steps=5_000)
        except KeyboardInterrupt:
            sys.exit(7)
        """
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(tmp_path / "temporary")}
    command = [sys.executable, "-c", script, str(model), str(tmp_path / "small.onnx")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, start_new_session=True) as child:
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(1.5)
        os.killpg(child.pid, signal.SIGINT)
        assert child.wait(60) == 7
    assert [path.name for path in tmp_path.iterdir()] == ["temporary"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
def test_another_ctrl_c_ends_a_step_that_takes_long(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A program that takes no notice stands for a step that does not end.
    deaf = tmp_path / "deaf"
    deaf.write_text("#!/bin/sh\ntrap '' INT\nwhile :; do sleep 0.1; done\n")
    deaf.chmod(0o755)
    monkeypatch.setenv(_process.BINARY_VARIABLE, str(deaf))
    for seconds in (0.5, 1.0):
        threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        msq_onnx.inspect(model)
