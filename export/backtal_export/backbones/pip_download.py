"""Fetch one package's archive from the package index by pip, behind its hash."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import venv
from pathlib import Path

from backtal.errors import InvalidFile, MissingDependency, Unavailable

_TIMEOUT_SECONDS = 900
_SUFFIXES = (".tar.gz", ".whl")


def download_archive(requirement: str, sha256: str, folder: Path) -> Path:
    """Download the wheel or source archive of `requirement` (``name==version``) into `folder`.

    The hash says which of a version's archives it is. pip runs a source archive's setup.py to read
    its metadata, and does so only after the hash has been found right. Mirrors and proxies are
    those that pip is configured for.

    Raises:
        Unavailable: pip found no network or no such archive; its last words are in the message.
        InvalidFile: the archive that the index gave has another hash.
        MissingDependency: this Python has neither pip nor ensurepip.
    """
    wanted = folder / "requirements.txt"
    wanted.write_text(f"{requirement} --hash=sha256:{sha256}\n")
    target = folder / "archives"
    options = ["--no-deps", "--require-hashes", "--progress-bar", "off"]
    if importlib.util.find_spec("setuptools") is not None:
        # Else pip installs a setuptools of its own first, which takes longer than the download.
        options.append("--no-build-isolation")
    command = [*_pip(folder), "download", *options, "-r", str(wanted), "-d", str(target)]
    output = _run(command, requirement)
    archives = sorted(path for suffix in _SUFFIXES for path in target.glob(f"*{suffix}"))
    if len(archives) != 1:
        raise Unavailable(f"pip downloaded no archive of {requirement}: {_last_words(output)}")
    return archives[0]


def _run(command: list[str], requirement: str) -> str:
    try:
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(
            f"pip did not finish downloading {requirement} in {_TIMEOUT_SECONDS} s"
        ) from None
    if done.returncode == 0:
        return done.stdout
    if "DO NOT MATCH THE HASHES" in done.stdout:
        raise InvalidFile(f"the archive of {requirement} has another hash: it was not opened")
    if "No space left on device" in done.stdout:
        raise Unavailable(f"the disk is full: pip could not download {requirement}")
    raise Unavailable(
        f"pip could not download {requirement} (is there a network?): {_last_words(done.stdout)}"
    )


def _pip(folder: Path) -> list[str]:
    """The command of a pip: this Python's own, else one in a throw-away environment."""
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    try:
        environment = folder / "pip"
        venv.create(environment, with_pip=True, symlinks=True)
    except (subprocess.CalledProcessError, OSError, ImportError) as error:
        raise MissingDependency(
            f"the download needs pip, and {sys.executable} has none: install pip ({error})"
        ) from error
    return [str(environment / "bin" / "python"), "-m", "pip"]


def _last_words(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")]
    return " ".join((errors or lines)[-2:]) or "it said nothing"
