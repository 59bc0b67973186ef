"""A test run as a page: how each test ended, and what it told by `record_property`."""

from __future__ import annotations

import os
import platform
from datetime import datetime, timezone
from pathlib import Path

import pytest

INTRODUCTION = """# Long tests

Written by `make test-long`: how each test ended, what it took, and the figures that it measured.
"""


class Figures:
    """A plugin that writes the page at the end of the run."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: list[tuple[str, str, str, str]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep one row of each test: of its call, or of what kept it from being called."""
        if report.when != "call" and report.passed:
            return
        name = report.nodeid.removeprefix("tests/").replace("|", "\\|")
        figures = "; ".join(f"{key} {value}" for key, value in report.user_properties)
        if report.skipped and isinstance(report.longrepr, tuple):
            figures = report.longrepr[2].removeprefix("Skipped: ")
        self._rows.append((name, report.outcome, f"{report.duration:.1f}", figures))

    def pytest_sessionfinish(self) -> None:
        """Write the page. A run that was interrupted tells what it had."""
        if not self._rows:
            return
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
        now = datetime.now(timezone.utc)
        machine = (
            f"{now:%Y-%m-%d}, {os.cpu_count()} cores, {memory:.0f} GiB, {platform.machine()}, "
            f"Python {platform.python_version()}."
        )
        header = ("| test | | seconds | figures |", "| --- | --- | --- | --- |")
        lines = [f"| `{name}` | {' | '.join(rest)} |" for name, *rest in sorted(self._rows)]
        self._path.write_text("\n".join([INTRODUCTION, machine, "", *header, *lines]) + "\n")
