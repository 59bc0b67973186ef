"""What some tests need beyond the package, and what happens where it is missing.

A test that lacks something is skipped with the reason. Where BACKTAL_REQUIRE names that thing
(a comma list, as CI sets it), it fails instead, so that nothing is left out in silence.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

import pytest

PROJECT_ROOT = Path(__file__).resolve().parent.parent


def required_names() -> frozenset[str]:
    """The things that BACKTAL_REQUIRE says must be there."""
    listed = os.environ.get("BACKTAL_REQUIRE", "").split(",")
    return frozenset(name.strip() for name in listed if name.strip())


def require(name: str, reason: str) -> NoReturn:
    """Skip the running test because `name` is missing, or fail where it is required."""
    if name in required_names():
        pytest.fail(f"{name} is required by BACKTAL_REQUIRE but missing: {reason}", pytrace=False)
    pytest.skip(f"needs {name}: {reason}")


def shared_folder() -> Path:
    """The folder of shared material beside the project, `../shared`."""
    folder = PROJECT_ROOT.parent / "shared"
    if not folder.is_dir():
        require("shared", "no folder ../shared beside the project")
    return folder
