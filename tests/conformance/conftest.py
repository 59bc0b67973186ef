"""A directory of reference vectors, and one of its vectors a test.

A test that asks for ``reference`` runs once for every ``DATASET_SEED.npz`` of ``--reference DIR``.
Files that are no vectors of the network (``detections_*``, ``map_*``) have tests of their own,
which take ``reference_folder``.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.requirements import require

DEFAULT_FOLDER = Path(__file__).resolve().parents[2].parent / "shared" / "reference"
OTHER_KINDS = ("detections_", "map_")


@dataclass(frozen=True, eq=False)
class Reference:
    """One vector: the arrays of its .npz and the sizes and answers of its .json."""

    name: str
    arrays: dict[str, NDArray[Any]]
    meta: dict[str, Any]

    @property
    def dataset(self) -> str:
        """THUMOS14, ActivityNet1.2 or HACS."""
        return str(self.meta["dataset"])

    def weights(self) -> dict[str, NDArray[np.float32]]:
        """The seeded parameters by their released names, as the directory's README has it."""
        random = np.random.RandomState(self.meta["seed"])
        weights = {}
        for name, shape in self.meta["weights"]:
            fan_in = math.prod(shape[1:]) if len(shape) > 1 else shape[0]
            drawn = random.standard_normal(shape) / np.sqrt(fan_in)
            weights[name] = drawn.astype(np.float32)
        return weights


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "reference" not in metafunc.fixturenames:
        return
    folder = _folder(metafunc.config)
    stems = [] if folder is None else _stems(folder)
    # Without vectors the test still runs once, so that the fixture can say what is missing.
    metafunc.parametrize("reference", stems or [None], indirect=True, scope="module")


@pytest.fixture(scope="session")
def reference_folder(pytestconfig: pytest.Config) -> Path:
    folder = _folder(pytestconfig)
    return folder or require("shared", "no reference vectors in ../shared, see --reference")


@pytest.fixture(scope="module")
def reference(request: pytest.FixtureRequest, reference_folder: Path) -> Reference:
    if request.param is None:
        pytest.fail(f"{reference_folder} holds no reference vectors (DATASET_SEED.npz)")
    with np.load(reference_folder / f"{request.param}.npz", allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    meta = json.loads((reference_folder / f"{request.param}.json").read_text())
    return Reference(request.param, arrays, meta)


def _folder(config: pytest.Config) -> Path | None:
    chosen: Path | None = config.getoption("--reference")
    if chosen is None:
        return DEFAULT_FOLDER if DEFAULT_FOLDER.is_dir() else None
    if not chosen.is_dir():
        raise pytest.UsageError(f"--reference {chosen} is no directory")
    return chosen.resolve()


def _stems(folder: Path) -> list[str]:
    return sorted(
        path.stem for path in folder.glob("*_*.npz") if not path.name.startswith(OTHER_KINDS)
    )
