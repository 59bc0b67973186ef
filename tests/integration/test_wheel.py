"""The wheel in an empty environment: what arrives, what an import loads, how fast help is."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {
    "backtal",
    "backtal_training",
    "backtal_export",
    "backtal_serving",
    "backtal_indexing",
}
HELP_SECONDS = 0.5

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the tree, without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    ignored = shutil.ignore_patterns(".*", "var", "tests", "demo", "benchmarks", "__pycache__")
    shutil.copytree(ROOT, source, symlinks=True, ignore=ignored)
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel and nothing else: not even its dependencies."""
    folder = tmp_path_factory.mktemp("empty")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps"]
    subprocess.run(
        [*command, "--no-index", "--disable-pip-version-check", str(wheel)],
        check=True,
        capture_output=True,
    )
    return folder


def clean_variables() -> dict[str, str]:
    """The process's own, less what reaches into another environment or slows it down."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def installed(environment: Path) -> Path:
    (found,) = environment.glob("lib/python*/site-packages")
    return found


def test_only_our_names_arrive(environment: Path) -> None:
    names = {path.name for path in installed(environment).iterdir()}
    strangers = {name for name in names if not name.startswith("backtal")}
    assert strangers == set()
    assert names >= PACKAGES
    scripts = {path.name for path in (environment / "bin").iterdir()}
    assert "backtal" in scripts


def test_the_data_that_commands_need_travels_in_the_wheel(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for page in ("page.html", "page.css", "page.js"):
        assert f"backtal/page/{page}" in names
    templates = [name for name in names if name.startswith("backtal_export/model_repository/")]
    assert any(name.endswith("config.pbtxt") for name in templates), templates
    assert any(name.endswith("model.py") for name in templates), templates
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert any(name.endswith("licenses/NOTICE") for name in names)
    for package in PACKAGES:
        assert f"{package}/py.typed" in names


def test_the_installed_package_is_the_source_tree(environment: Path) -> None:
    """A file that the wheel forgets would only be missed by whoever installs it."""
    rooms = {"backtal": ROOT, "backtal_training": ROOT / "training"}
    rooms |= {"backtal_export": ROOT / "export", "backtal_serving": ROOT / "serving"}
    rooms |= {"backtal_indexing": ROOT / "indexing"}
    for package, room in rooms.items():
        tracked = subprocess.run(
            ["git", "ls-files", "--", package],
            cwd=room,
            capture_output=True,
            text=True,
            check=False,
        )
        if tracked.returncode != 0:
            pytest.skip("the project is no git checkout: what belongs to it is not known")
        for name in tracked.stdout.split():
            assert (installed(environment) / name).exists(), name


def test_import_backtal_needs_and_loads_nothing(environment: Path) -> None:
    code = "import backtal, sys; print('torch' in sys.modules, backtal.__file__)"
    answer = subprocess.run(
        [environment / "bin" / "python", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=environment,
        env=clean_variables(),
    )
    loads_torch, path = answer.stdout.split()
    assert loads_torch == "False"
    assert Path(path).is_relative_to(environment)


def test_help_answers_within_half_a_second(environment: Path) -> None:
    """In processor time of one thread: the wall clock's where nothing else runs."""

    def once() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        answer = subprocess.run(
            [environment / "bin" / "backtal", "--help"],
            capture_output=True,
            text=True,
            check=True,
            env=clean_variables(),
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert "detect" in answer.stdout
        assert "(not installed)" not in answer.stdout
        return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime

    assert min(once() for _ in range(4)) < HELP_SECONDS


def test_a_command_whose_extra_is_missing_says_which(environment: Path) -> None:
    answer = subprocess.run(
        [environment / "bin" / "backtal", "detect", "x.mp4"],
        capture_output=True,
        text=True,
        check=False,
        env=clean_variables(),
    )
    assert answer.returncode == 2
    assert answer.stderr.startswith("backtal: error: ")
    assert "Traceback" not in answer.stderr


def test_the_wheel_fits_this_python() -> None:
    assert sysconfig.get_python_version() in {"3.10", "3.11", "3.12"}
