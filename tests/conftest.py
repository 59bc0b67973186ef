"""Options of the whole suite. They must be known before a test is collected, hence here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from multiprocessing.util import get_temp_dir
from pathlib import Path
from tempfile import TemporaryDirectory

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


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Say a measured figure, for whoever looks on (`-s`) and for the page of `--figures`."""

    def say(figure: str) -> None:
        print(figure)
        record_property("", figure)

    return say


@pytest.fixture(scope="session", autouse=True)
def temporary_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A folder that goes with the run: what is killed here cannot tidy up after itself."""
    # Beside it lie pytest's own, which stays for a look, and multiprocessing's, which goes last.
    tmp_path_factory.getbasetemp()
    get_temp_dir()
    # Short: the path of a socket has 107 characters at most.
    with (
        TemporaryDirectory(prefix="tests-", ignore_cleanup_errors=True) as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("TMPDIR", folder)
        patch.setattr("tempfile.tempdir", folder)
        yield


def pytest_configure(config: pytest.Config) -> None:
    path = config.getoption("--figures")
    if path is not None:
        config.pluginmanager.register(Figures(path))
