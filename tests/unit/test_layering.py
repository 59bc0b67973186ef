"""Which package may import which, and what an import loads."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "onnx", "onnxruntime", "tritonclient", "grpc", "av", "pydantic", "rich", "yaml")


def loaded_by(statement: str) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after `statement`."""
    code = f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return set(answer.stdout.split())


def test_the_contracts_hold() -> None:
    linter = shutil.which("lint-imports", path=Path(sys.executable).parent)
    assert linter is not None
    answer = subprocess.run(
        [linter, "--no-cache"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "NO_COLOR": "1"},
        check=False,
    )
    assert answer.returncode == 0, answer.stdout


def test_importing_backtal_loads_nothing_but_itself() -> None:
    new = loaded_by("import backtal") - loaded_by("pass")
    assert new <= {"backtal", "numpy", "__future__"}


def test_the_command_line_needs_nothing_heavy() -> None:
    assert not loaded_by("import backtal.cli").intersection(HEAVY)


@pytest.mark.parametrize(
    "module",
    [
        "backtal.pipeline",
        "backtal.client",
        "backtal.runtime",
        "backtal_serving.wire",
        "backtal_serving.embedded",
        "backtal_serving.server",
    ],
)
def test_serving_and_the_pipeline_load_no_torch(module: str) -> None:
    loaded = loaded_by(f"import {module}")
    assert not loaded & {"torch", "backtal_training", "backtal_export"}


@pytest.mark.parametrize(
    "command",
    [
        "backtal.commands.detect",
        "backtal.commands.evaluate",
        "backtal.commands.features",
        "backtal_serving.commands.serve",
        "backtal_training.commands.corpus",
        "backtal_training.commands.train",
        "backtal_training.commands.tune",
        "backtal_export.commands.export",
        "backtal_export.commands.engine",
    ],
)
def test_a_command_is_cheap_to_import(command: str) -> None:
    assert not loaded_by(f"import {command}") & {"torch", "onnx", "onnxruntime", "tritonclient"}
