"""Programs of others that these tests run, and what is said where one is missing."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.requirements import PROJECT_ROOT, require

DEPLOY = PROJECT_ROOT / "deploy"
CHECKS = DEPLOY / "checks"
NPM_SECONDS = 180.0
PATIENCE_SECONDS = 120.0


def program(name: str, needed: str, hint: str) -> str:
    """The path of a program. Skips, or fails where `needed` is required, with the hint."""
    found = shutil.which(name) or shutil.which(name, path=Path(sys.executable).parent)
    if found is None:
        require(needed, f"no {name} on PATH: {hint}")
    return found


def run(
    command: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    input: str | None = None,  # noqa: A002 - as subprocess has it
    timeout: float = PATIENCE_SECONDS,
) -> subprocess.CompletedProcess[str]:
    """A command that is to end soon, with what it said."""
    return subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=env,
        input=input,
        timeout=timeout,
        capture_output=True,
        text=True,
        check=False,
    )


def assert_succeeds(
    command: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = PATIENCE_SECONDS,
) -> str:
    """The command's output; what it said where it fails."""
    done = run(command, cwd=cwd, env=env, timeout=timeout)
    assert done.returncode == 0, f"{' '.join(map(str, command))}:\n{done.stdout}{done.stderr}"
    return done.stdout


def node_modules() -> Path:
    """The packages of deploy/checks, at the versions of its lock; fetched once."""
    program("node", "npm", "install Node.js 20 or later")
    npm = program("npm", "npm", "install npm")
    installed = CHECKS / "node_modules" / ".package-lock.json"
    lock = CHECKS / "package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
        try:
            done = run([npm, "ci", "--no-audit", "--no-fund"], cwd=CHECKS, timeout=NPM_SECONDS)
        except subprocess.TimeoutExpired:
            require("npm", f"npm ci in deploy/checks did not end in {NPM_SECONDS:g} s")
        if done.returncode != 0:
            require("npm", f"npm ci in deploy/checks: {done.stderr.strip()[-300:]}")
        installed.touch()
    return installed.parent
