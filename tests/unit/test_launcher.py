from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from backtal.errors import InvalidFile, MissingDependency
from backtal_serving import launcher
from backtal_serving.launcher import Installation, find_installation, find_libpython, lay_out
from backtal_serving.numpy_version import check_numpy
from backtal_serving.settings import SETTINGS_VARIABLE, ServingSettings


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    wheel = tmp_path / "wheel"
    for name in (
        "bin/tritonserver",
        "python/libtriton_python.so",
        "python/triton_python_backend_utils.py",
        "stub/triton_python_backend_stub",
        "libs/libpython3.11.so.1.0",
    ):
        (wheel / name).parent.mkdir(parents=True, exist_ok=True)
        (wheel / name).write_text(name)
    return Installation(
        tritonserver=wheel / "bin/tritonserver",
        python_backend=wheel / "python",
        stub=wheel / "stub/triton_python_backend_stub",
        libraries=wheel / "libs",
        libpython=wheel / "libs/libpython3.11.so.1.0",
    )


def test_the_stub_lies_beside_the_python_backend(
    installation: Installation, tmp_path: Path
) -> None:
    layout = lay_out(installation, tmp_path / "layout")
    python = layout.backends / "python"
    assert sorted(path.name for path in python.iterdir()) == [
        "libtriton_python.so",
        "triton_python_backend_stub",
        "triton_python_backend_utils.py",
    ]
    # Triton refuses what leads out of its backend directory.
    assert not any(path.is_symlink() for path in layout.backends.rglob("*"))


def test_our_onnxruntime_backend_is_laid_out(installation: Installation, tmp_path: Path) -> None:
    layout = lay_out(installation, tmp_path / "layout")
    assert (layout.backends / "onnxruntime" / "model.py").is_file()


def test_the_first_python3_is_this_interpreter(installation: Installation, tmp_path: Path) -> None:
    layout = lay_out(installation, tmp_path / "layout")
    python3 = shutil.which("python3", path=layout.environment["PATH"])
    assert python3 is not None
    said = subprocess.run(
        [python3, "-c", "import sys; print(sys.prefix, sys.version_info[:2])"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.strip() == f"{sys.prefix} {sys.version_info[:2]}"


def test_an_interpreter_that_is_not_called_python3_gets_a_link(
    installation: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lonely = tmp_path / "lonely" / "python3.11"
    lonely.parent.mkdir()
    lonely.write_text("")
    monkeypatch.setattr(sys, "executable", str(lonely))
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)
    layout = lay_out(installation, tmp_path / "layout")
    first = Path(layout.environment["PATH"].split(os.pathsep)[0])
    assert (first / "python3").resolve() == lonely


def test_only_libpython_is_put_before_the_systems_libraries(
    installation: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", "/already/there")
    layout = lay_out(installation, tmp_path / "layout")
    ours, wheel, inherited = layout.environment["LD_LIBRARY_PATH"].split(os.pathsep)
    assert [path.name for path in Path(ours).iterdir()] == ["libpython3.11.so.1.0"]
    assert (wheel, inherited) == (str(installation.libraries), "/already/there")


def test_pythonhome_does_not_reach_the_stub(
    installation: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONHOME", "/elsewhere")
    assert "PYTHONHOME" not in lay_out(installation, tmp_path / "layout").environment


def test_the_interpreters_own_libpython_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "libpython3.11.so.1.0"
    own.write_text("")
    monkeypatch.setattr(sysconfig, "get_config_var", {"LIBDIR": str(tmp_path)}.get)
    assert find_libpython("3.11") == own


def test_without_libpython_the_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing: Callable[[str], list[Path]] = lambda name: []  # noqa: E731
    monkeypatch.setattr(launcher, "_libpython_candidates", nothing)
    with pytest.raises(MissingDependency) as caught:
        find_libpython("3.12")
    for hint in (
        "libpython3.12.so.1.0",
        "apt-get install libpython3.12",
        "dnf install python3.12-libs",
    ):
        assert hint in caught.value.message


def test_a_library_that_the_linker_knows_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = tmp_path / "libpython3.11.so.1.0"
    known.write_text("")
    listing = (
        f"2 libs found\n\tlibpython3.11.so.1.0 (libc6) => /lib32/{known.name}\n"
        f"\tlibpython3.11.so.1.0 (libc6,x86-64) => {known}\n"
    )
    ldconfig = tmp_path / "ldconfig"
    ldconfig.write_text(f"#!/bin/sh\ncat <<'END'\n{listing}END\n")
    ldconfig.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda *_, **__: str(ldconfig))
    assert list(launcher._known_to_linker("libpython3.11.so.1.0")) == [known]


def test_without_the_wheel_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match=r"pip install 'backtal\[serving\]'"):
        find_installation()


def test_a_python_that_the_wheel_has_no_stub_for_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    triton = tmp_path / "tritonserver"
    (triton / "python_backend_stubs" / "3.8").mkdir(parents=True)
    monkeypatch.setattr(launcher, "_package_folder", lambda: tmp_path)
    with pytest.raises(MissingDependency, match=r"only for 3\.8"):
        find_installation()


def test_settings_reach_the_models_as_they_are() -> None:
    settings = ServingSettings(allowed_roots=(Path("/videos/a b"), Path("/ü")))
    assert ServingSettings.from_environment(settings.to_environment()) == settings
    assert ServingSettings.from_environment({}) == ServingSettings()


@pytest.mark.parametrize(
    ("text", "says"),
    [("{", "no JSON"), ('{"allowed_root": []}', "did you mean allowed_roots"), ("3", "3")],
)
def test_settings_that_are_none_are_refused(text: str, says: str) -> None:
    with pytest.raises(InvalidFile, match=says):
        ServingSettings.from_environment({SETTINGS_VARIABLE: text})


def test_numpy_2_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    check_numpy()
    monkeypatch.setattr(np, "__version__", "2.1.0")
    with pytest.raises(MissingDependency, match=r"needs numpy<2, this environment has 2\.1\.0"):
        check_numpy()
