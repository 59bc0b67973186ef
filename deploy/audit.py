"""``python -m deploy.audit``: known vulnerabilities of what the images install, as PyPI tells them.

Gives 1 where there is one. ``--daily``, for `make check`: what was found to have none is not asked
for again on that day, and where the advisories cannot be had a line says so, and it gives 0.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

IMAGE = Path(__file__).parent / "image"
FILES = tuple(IMAGE / name for name in ("embedded.txt", "triton.txt", "index.txt"))
# Advisories that do not concern us, each with the reason.
ACCEPTED: tuple[str, ...] = ()
STAMP = Path(sys.prefix) / ".audited"
ANSWER_SECONDS = 5
PATIENCE_SECONDS = 60.0
_PIN = re.compile(r"^([\w.-]+==[^\s;\\]+)", re.M)
# The last words of pip-audit where it had no answer, or none that it understands.
_UNREACHED = re.compile(r"requests\.exceptions\.|ServiceError|Could not connect|Tip: your network")


class Unreached(Exception):
    """The advisories cannot be had, and why."""


@dataclass(frozen=True)
class Problem:
    """A pin that has a known vulnerability, or that could not be audited."""

    package: str
    reason: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Audit; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m deploy.audit", description=__doc__)
    parser.add_argument("files", nargs="*", type=Path, default=FILES, help="pins")
    parser.add_argument("--daily", action="store_true", help="as `make check` does")
    parser.add_argument("--stamp", type=Path, default=STAMP, help="what --daily remembers")
    options = parser.parse_args(arguments)
    wanted = _stamp(options.files)
    if options.daily and options.stamp.exists() and options.stamp.read_text() == wanted:
        return 0
    has_problem = False
    try:
        for pins in _apart(options.files):
            for problem in _audit(pins):
                has_problem = True
                print(f"audit: {problem.package}: {problem.reason}", file=sys.stderr)
    except Unreached as error:
        what = "the rest was not" if has_problem else "nothing was"
        print(f"audit: {what} audited, no advisories: {error}", file=sys.stderr)
        return 0 if options.daily and not has_problem else 1
    if has_problem:
        return 1
    options.stamp.write_text(wanted)
    return 0


def _stamp(files: Sequence[Path]) -> str:
    content = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    return f"{date.today()} {content}\n"


def _apart(files: Sequence[Path]) -> Iterator[list[str]]:
    """Each pin once. Two versions of a package are in two lists: pip-audit wants that."""
    seen: set[str] = set()
    for file in files:
        pins = [pin for pin in _PIN.findall(file.read_text()) if pin not in seen]
        seen.update(pins)
        if pins:
            yield pins


def _audit(pins: Sequence[str]) -> list[Problem]:
    """What pip-audit says of pins. Raises Unreached."""
    with tempfile.TemporaryDirectory() as folder:
        wanted, told = Path(folder) / "pins.txt", Path(folder) / "told.json"
        wanted.write_text("\n".join(pins))
        command = [sys.executable, "-m", "pip_audit", "--progress-spinner=off", "--disable-pip"]
        command += ["--strict", "--no-deps", f"--timeout={ANSWER_SECONDS}", "--format=json"]
        command += [f"--output={told}", f"--requirement={wanted}"]
        command += [f"--ignore-vuln={name}" for name in ACCEPTED]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            raise Unreached(f"they take more than {PATIENCE_SECONDS:g} s") from None
        # It is written only where there is something to tell.
        if told.exists():
            return _problems(json.loads(told.read_text())["dependencies"])
    if done.returncode == 0:
        return []
    last = done.stderr.strip().splitlines()[-1]
    # A mirror that has the packages, and not what is known of them, fails at the first.
    is_mirror = f"{pins[0].partition('==')[0]}: Dependency not found on PyPI" in last
    if is_mirror or _UNREACHED.search(done.stderr):
        raise Unreached(last.rpartition("_cli:")[2][:300])
    return [Problem("pip-audit", done.stderr.strip())]


def _problems(dependencies: Sequence[dict[str, Any]]) -> list[Problem]:
    """Of pip-audit's report."""
    return [
        Problem(f"{package['name']} {package['version']}", _described(vulnerability))
        for package in dependencies
        for vulnerability in package["vulns"]
    ]


def _described(vulnerability: dict[str, Any]) -> str:
    names = ", ".join([vulnerability["id"], *sorted(vulnerability["aliases"])])
    return f"{names}, mended in {', '.join(vulnerability['fix_versions']) or 'no version'}"


if __name__ == "__main__":
    sys.exit(main())
