"""A test run as a page: how each test ended, and what it told by `record_property`.

Rows of tests that a run leaves out stay, with the day and the machine that they are of.
"""

from __future__ import annotations

import os
import platform
from datetime import datetime, timezone
from pathlib import Path

import pytest

INTRODUCTION = """# Long tests

Written by `make test-long`: how each test ended, what it took, and the figures that it measured.
"""


HEADER = ("| test | | seconds | figures | run |", "| --- | --- | --- | --- | --- |")


class Figures:
    """A plugin that writes the page at the end of the run."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: dict[str, str] = {}
        if path.exists():
            lines = [line for line in path.read_text().splitlines() if "::" in line]
            self._rows = {line.split(" | ")[0].removeprefix("| "): line for line in lines}
        self._run = _run()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep one row of each test: of its call, or of what kept it from being called."""
        if report.when != "call" and report.passed:
            return
        name = f"`{report.nodeid.removeprefix('tests/')}`".replace("|", "\\|")
        figures = "; ".join(f"{key} {value}".strip() for key, value in report.user_properties)
        if report.skipped and isinstance(report.longrepr, tuple):
            figures = report.longrepr[2].removeprefix("Skipped: ")
        cells = (name, report.outcome, f"{report.duration:.1f}", figures, self._run)
        self._rows[name] = f"| {' | '.join(cells)} |"

    def pytest_sessionfinish(self) -> None:
        """Write the page. A run that was interrupted tells what it had."""
        if self._rows:
            lines = [line for _, line in sorted(self._rows.items())]
            self._path.write_text("\n".join([INTRODUCTION, *HEADER, *lines]) + "\n")


def _run() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    now = datetime.now(timezone.utc)
    return (
        f"{now:%Y-%m-%d}, {os.cpu_count()} cores, {memory:.0f} GiB, "
        f"Python {platform.python_version()}"
    )
