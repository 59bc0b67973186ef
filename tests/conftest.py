"""Options of the whole suite. They must be known before a test is collected, hence here."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

from tests.figures import Figures

# A machine that is busy with other work is no finding.
settings.register_profile("backtal", deadline=None)
settings.load_profile("backtal")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--reference",
        type=Path,
        default=None,
        metavar="DIR",
        help="reference vectors for tests/conformance (default: ../shared/reference, if there)",
    )
    parser.addoption(
        "--figures",
        type=Path,
        default=None,
        metavar="FILE",
        help="write how each test ended, and what it measured, as a page",
    )


def pytest_configure(config: pytest.Config) -> None:
    path = config.getoption("--figures")
    if path is not None:
        config.pluginmanager.register(Figures(path))
