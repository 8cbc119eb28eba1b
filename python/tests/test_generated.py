"""Files that `generate.py` writes are those of the binary under test, and say what the module does."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys

import msq_onnx
from conftest import PYTHON
from msq_onnx import _options, _process


def test_generated_files_are_up_to_date() -> None:
    command = [sys.executable, str(PYTHON / "generate.py"), str(_process.find_binary()), "--check"]
    checked = subprocess.run(command, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_stubs_have_the_parameters_of_functions() -> None:
    stubs = ast.parse((PYTHON / "src" / "msq_onnx" / "__init__.pyi").read_text(encoding="utf-8"))
    functions = {node.name: node for node in stubs.body if isinstance(node, ast.FunctionDef)}
    commands = {"quantize", "search", "evaluate", "compare", "inspect", "lint"}
    assert set(functions) == {*commands, "calibrate", "measure"}
    for name, node in functions.items():
        real = inspect.signature(getattr(msq_onnx, name)).parameters
        command = {"calibrate": "quantize", "measure": "search"}.get(name, name)
        options = [key.replace("-", "_") for key in _options.OPTIONS.get(command, {})]
        own = [parameter for parameter in real if parameter != "options"]
        assert [each.arg for each in node.args.args + node.args.kwonlyargs] == own + options


def test_functions_say_what_they_take_return_and_raise() -> None:
    for name in ("quantize", "search", "calibrate", "measure", "evaluate", "compare", "inspect", "lint"):
        text = inspect.getdoc(getattr(msq_onnx, name)) or ""
        assert "Args:" in text
        assert "Raises:" in text
