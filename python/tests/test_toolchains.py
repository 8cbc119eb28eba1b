"""The files that docs/toolchains.md shows: their syntax, and what they do as far as it can be run here."""

from __future__ import annotations

import ast
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

import msq_onnx
from conftest import DIGITS, PYTHON
from msq_onnx import _process

ROOT = PYTHON.parent
LINT = ROOT / "scripts" / "lint-models.sh"
OLIVE = PYTHON / "examples" / "olive"
posix = pytest.mark.skipif(os.name != "posix", reason="needs a shell")


def yaml_of(path: Path) -> Any:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed: YAML files are not checked")
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def lint(*arguments: str | Path) -> tuple[int, str]:
    environment = {**os.environ, _process.BINARY_VARIABLE: str(_process.find_binary())}
    line = ["sh", str(LINT), *map(str, arguments)]
    finished = subprocess.run(line, env=environment, capture_output=True, encoding="utf-8")
    return finished.returncode, finished.stdout + finished.stderr


@posix
def test_the_hook_fails_on_errors_alone(model: Path, tmp_path: Path) -> None:
    # A name with a space, and one that looks like an option to what does not look closely.
    small = tmp_path / "a small.onnx"
    msq_onnx.quantize(model, output=small, samples=4)
    assert lint(small) == (0, "")
    assert lint(small, model) == (0, "")
    code, said = lint("--profile=tensorrt", small, model)
    assert code == 1
    assert said.startswith(f"{small}:\nerror ")
    (tmp_path / "bad.onnx").write_bytes(bytes(50))
    code, said = lint(tmp_path / "bad.onnx", small)
    assert code == 1
    assert "it is not an ONNX model" in said
    (tmp_path / "pointer.onnx").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    code, said = lint(tmp_path / "pointer.onnx", small)
    assert (code, said) == (0, f"{tmp_path}/pointer.onnx: not linted, it is a pointer of Git LFS: git lfs pull\n")
    assert lint("--fix", small)[0] == 2


def test_the_hook_is_one_that_pre_commit_takes() -> None:
    (hook,) = yaml_of(ROOT / ".pre-commit-hooks.yaml")
    assert set(hook) >= {"id", "name", "entry", "language"}
    assert hook["language"] == "script"
    assert ROOT / hook["entry"] == LINT
    assert os.access(LINT, os.X_OK)
    assert re.search(hook["files"], "models/a.onnx")
    page = (ROOT / "docs" / "toolchains.md").read_text(encoding="utf-8")
    assert f"- id: {hook['id']}" in page


@posix
@pytest.mark.parametrize("script", [LINT, ROOT / "examples/ci/quantize.sh", ROOT / "scripts/release.sh"], ids=str)
def test_scripts_parse(script: Path) -> None:
    shell = script.read_text(encoding="utf-8").splitlines()[0].rsplit("/", 1)[1].split()[-1]
    subprocess.run([shell, "-n", str(script)], check=True)


def test_the_workflow_has_jobs_and_commands_with_flags_that_exist() -> None:
    workflow = yaml_of(ROOT / "examples/ci/quantize.yml")
    (job,) = workflow["jobs"].values()
    assert all("uses" in step or "run" in step for step in job["steps"])
    commands = [step["run"] for step in job["steps"] if "msq-onnx " in step.get("run", "")]
    helps = [
        subprocess.run([_process.find_binary(), *of, "--help"], capture_output=True, text=True).stdout
        for of in ((), ("lint",))
    ]
    assert len(commands) == 2
    for command, text in zip(commands, helps, strict=True):
        for flag in re.findall(r"--[a-z-]+", command):
            assert flag in text


@posix
def test_the_script_for_ci_says_what_codes_mean(tmp_path: Path) -> None:
    if shutil.which("jq") is None:
        pytest.skip("jq is not installed: the script for CI is parsed and not run")
    (tmp_path / "msq-onnx").symlink_to(_process.find_binary())
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}

    def run(model: Path, drop: str) -> tuple[int, str]:
        line = ["sh", str(ROOT / "examples/ci/quantize.sh"), str(model), str(DIGITS / "calib.npz"), str(tmp_path / "s")]
        finished = subprocess.run(line, env={**environment, "MAX_DROP": drop}, capture_output=True, encoding="utf-8")
        return finished.returncode, finished.stdout

    code, said = run(DIGITS / "digits.onnx", "50%")
    assert code == 0
    assert re.fullmatch(r"106497 → \d+ bytes, lost [\d.]+ %\n", said)
    assert run(DIGITS / "calib.npz", "1%") == (3, "the model cannot be quantized\n")


def test_the_dockerfile_names_what_is_there() -> None:
    text = (ROOT / "scripts/Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    known = ("FROM", "RUN", "WORKDIR", "COPY", "ENV", "ENTRYPOINT")
    assert all(line.split()[0] in known for line in lines)
    stages = re.findall(r"^FROM \S+(?: AS (\w+))?$", text, re.MULTILINE)
    assert stages == ["build", ""]
    for line in lines:
        if line.startswith("COPY --from="):
            assert line.split()[1] == "--from=build"
        elif line.startswith("COPY LICENSE"):
            assert all((ROOT / name).is_file() for name in line.split()[1:-1])
    assert json.loads(lines[-1].removeprefix("ENTRYPOINT ")) == ["/msq-onnx"]


def test_the_olive_files_belong_together() -> None:
    package = json.loads((OLIVE / "package.json").read_text(encoding="utf-8"))
    workflow = json.loads((OLIVE / "workflow.json").read_text(encoding="utf-8"))
    tree = ast.parse((OLIVE / "msq_pass.py").read_text(encoding="utf-8"))
    classes = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    ((name, entry),) = package["passes"].items()
    assert entry["module_path"] == f"msq_pass.{name}"
    assert classes == {name}
    (step,) = workflow["passes"].values()
    assert step["type"] == name


def test_the_olive_pass_quantizes(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against stand-ins for the little of Olive that the pass uses, whether or not Olive is installed."""

    class Pass:
        pass

    def module(name: str, **values: Any) -> None:
        made = types.ModuleType(name)
        vars(made).update(values)
        monkeypatch.setitem(sys.modules, name, made)

    class OliveError(Exception):
        pass

    simple = types.SimpleNamespace
    for name in ("olive", "olive.common", "olive.data", "olive.hardware", "olive.search"):
        module(name)
    module("olive.common.config_utils", validate_config=None)
    module("olive.data.config", DataConfig=dict)
    module("olive.exception", OlivePassError=OliveError)
    module("olive.hardware.accelerator", AcceleratorSpec=object)
    module("olive.model", ONNXModelHandler=simple)
    module("olive.model.utils", resolve_onnx_path=lambda folder, name: f"{folder}/{name}")
    module("olive.passes", Pass=Pass)
    module("olive.passes.pass_config", BasePassConfig=object, PassConfigParam=simple)
    module("olive.search.search_parameter", Categorical=list)
    monkeypatch.syspath_prepend(str(OLIVE))
    monkeypatch.delitem(sys.modules, "msq_pass", raising=False)
    made = importlib.import_module("msq_pass").MsqOnnx()
    config = {key: getattr(each, "default_value", None) for key, each in made._default_config(None).items()}
    config |= {"calib": str(DIGITS / "calib.npz"), "weight_bits": "4", "options": {"samples": 16}}
    result = made._run_for_config(simple(model_path=str(model)), simple(**config), str(tmp_path / "out"))
    assert result.model_path == str(tmp_path / "out" / "digits.onnx")
    alone = msq_onnx.quantize(model, DIGITS / "calib.npz", weight_bits="4", samples=16)
    assert Path(result.model_path).read_bytes() == alone.model_bytes
    config["options"] = {"weight_bit": 3}
    with pytest.raises(OliveError, match="exit code 2: `weight_bit` is no option"):
        made._run_for_config(simple(model_path=str(model)), simple(**config), str(tmp_path / "out"))
