"""Find the Triton of the nvidia-pytriton wheel and lay out what it needs to run in place.

Nothing is written into site-packages. A folder of ours holds copies, since Triton refuses a link
that leaves its backend directory: the Python backend beside the stub of this interpreter's version
(3 MB) and our own backends; and links to libpython and, outside a virtual environment, to python3.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from backtal.errors import MissingDependency

OWN_BACKENDS = Path(__file__).parent / "backends"
STUB_NAME = "triton_python_backend_stub"


@dataclass(frozen=True)
class Installation:
    """Where the parts of a runnable Triton are.

    tritonserver: the server's binary.
    python_backend: the folder of libtriton_python.so.
    stub: the Python backend's child process for this interpreter's version.
    libraries: the folder of the wheel's own shared libraries.
    libpython: the shared library of this interpreter, which the stub links.
    """

    tritonserver: Path
    python_backend: Path
    stub: Path
    libraries: Path
    libpython: Path


@dataclass(frozen=True)
class Layout:
    """What `lay_out` made: the backend directory, and the environment to start Triton in."""

    backends: Path
    environment: Mapping[str, str]


def find_installation() -> Installation:
    """The Triton of this environment. MissingDependency says what to install."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    package = _package_folder()
    triton = package / "tritonserver"
    stub = triton / "python_backend_stubs" / version / STUB_NAME
    if not stub.is_file():
        known = sorted(entry.name for entry in (triton / "python_backend_stubs").glob("3.*"))
        raise MissingDependency(
            f"nvidia-pytriton has no Python backend for Python {version}, only for "
            f"{', '.join(known) or 'none'}"
        )
    return Installation(
        tritonserver=triton / "bin" / "tritonserver",
        python_backend=triton / "backends" / "python",
        stub=stub,
        libraries=package.parent / "nvidia_pytriton.libs",
        libpython=find_libpython(version),
    )


def find_libpython(version: str) -> Path:
    """libpython of `version`, say 3.11: this interpreter's own, else the one the linker finds.

    MissingDependency names the package of Debian, Ubuntu and Fedora that has it.
    """
    name = f"libpython{version}.so.1.0"
    for candidate in _libpython_candidates(name):
        if candidate.is_file():
            return candidate
    raise MissingDependency(
        f"Triton's Python backend needs the shared library {name}, which this Python "
        f"({sys.executable}) does not come with. Debian or Ubuntu: apt-get install "
        f"libpython{version}. Fedora: dnf install python{version}-libs, or python3-libs where "
        f"{version} is the system's own Python. A Python managed by uv has it too."
    )


def lay_out(installation: Installation, folder: Path) -> Layout:
    """Put all that Triton is to find into `folder`, which must be empty and outlive the server."""
    python_backend = folder / "backends" / "python"
    python_backend.mkdir(parents=True)
    for part in ("libtriton_python.so", "triton_python_backend_utils.py"):
        shutil.copy2(installation.python_backend / part, python_backend)
    shutil.copy2(installation.stub, python_backend)
    for backend in OWN_BACKENDS.iterdir():
        if (backend / "model.py").is_file():
            shutil.copytree(backend, folder / "backends" / backend.name)
    # Only libpython, not its folder: that may hold other libraries that would shadow the system's.
    libraries = folder / "lib"
    libraries.mkdir()
    (libraries / installation.libpython.name).symlink_to(installation.libpython)
    environment = dict(os.environ)
    environment.pop("PYTHONHOME", None)
    environment["PATH"] = _prepend(_interpreter_folder(folder), environment.get("PATH"))
    environment["LD_LIBRARY_PATH"] = _prepend(
        libraries, _prepend(installation.libraries, environment.get("LD_LIBRARY_PATH"))
    )
    return Layout(backends=folder / "backends", environment=environment)


def _package_folder() -> Path:
    # Found, not imported: importing pytriton costs a second and starts its own logging.
    spec = importlib.util.find_spec("pytriton")
    if spec is None or spec.origin is None:
        raise MissingDependency(
            "Triton is not installed here: pip install 'backtal[serving]' (Linux on x86-64; "
            "elsewhere `backtal detect --local` needs no Triton)"
        )
    folder = Path(spec.origin).parent
    if not (folder / "tritonserver" / "bin" / "tritonserver").is_file():
        raise MissingDependency(
            f"{folder} holds no tritonserver; nvidia-pytriton==0.7.0 is the wheel that does"
        )
    return folder


def _libpython_candidates(name: str) -> Iterator[Path]:
    for folder in (sysconfig.get_config_var("LIBDIR"), Path(sys.base_prefix) / "lib"):
        if folder:
            yield Path(folder) / name
            yield Path(folder) / (sysconfig.get_config_var("MULTIARCH") or "") / name
    yield from _known_to_linker(name)
    for system_folder in ("/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/local/lib"):
        yield Path(system_folder) / name


def _known_to_linker(name: str) -> Iterator[Path]:
    ldconfig = shutil.which("ldconfig", path=_prepend(Path("/sbin"), "/usr/sbin:/usr/bin"))
    if ldconfig is None:
        return
    listing = subprocess.run([ldconfig, "-p"], capture_output=True, text=True, check=False)
    for found in re.finditer(
        rf"^\s*{re.escape(name)} \(.*x86-64.*\) => (?P<path>.+)$", listing.stdout, re.MULTILINE
    ):
        yield Path(found["path"])


def _interpreter_folder(folder: Path) -> Path:
    """A folder whose `python3` is this interpreter: the stub takes its packages from it."""
    executable = Path(sys.executable)
    if sys.prefix != sys.base_prefix:
        return Path(sys.prefix) / "bin"
    own = executable.parent / "python3"
    if own.exists() and own.resolve() == executable.resolve():
        return executable.parent
    binaries = folder / "bin"
    binaries.mkdir()
    (binaries / "python3").symlink_to(executable.resolve())
    return binaries


def _prepend(folder: Path, path: str | None) -> str:
    return f"{folder}{os.pathsep}{path}" if path else str(folder)
