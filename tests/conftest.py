"""Options of the whole suite. They must be known before a test is collected, hence here."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

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
