"""The examples run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import onnx

from conftest import DIGITS, PYTHON


def run(example: str, *arguments: Path) -> str:
    command = [sys.executable, str(PYTHON / "examples" / example), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONIOENCODING": "utf-8"}
    finished = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8")
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_port(tmp_path: Path) -> None:
    said = run("port.py", DIGITS / "digits.onnx", DIGITS / "calib.npz", tmp_path / "small.onnx")
    assert "106497 → " in said
    onnx.checker.check_model(str(tmp_path / "small.onnx"))


def test_batches() -> None:
    said = run("batches.py", DIGITS / "digits.onnx", DIGITS / "calib.npz", DIGITS / "test.npz")
    assert [line.split(":")[0] for line in said.splitlines()] == ["8 bits", "4 bits", "3 bits"]


def test_the_page_about_the_module_is_right(tmp_path: Path) -> None:
    """The examples of docs/python.md run one behind the other."""
    for name, source in (("model.onnx", "digits.onnx"), ("calib.npz", "calib.npz"), ("test.npz", "test.npz")):
        (tmp_path / name).write_bytes((DIGITS / source).read_bytes())
    page = (PYTHON.parent / "docs" / "python.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 5
    (tmp_path / "page.py").write_text("\n".join(blocks), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, "page.py"]
    finished = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8")
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.startswith("106497 ")
