"""`backtal index` against a service behind its front door."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from backtal import cli
from backtal_indexing.layout import Index
from tests.index_runs import rows_of, write_library
from tests.integration.door.conftest import Fronted
from tests.integration.tiny_repository import BUNDLE
from tests.integration.videos import truncated

pytestmark = pytest.mark.slow


def index(*words: str | Path) -> int:
    return cli.main(["index", *map(str, words)])


def answers_of(url: Path) -> list[dict[str, Any]]:
    """The rows without what tells where the videos lie."""
    return [{**row, "uri": Path(row["uri"]).name} for row in rows_of(Index.open(str(url)))]


@pytest.fixture
def service(fronted: Fronted) -> list[str]:
    return ["--server", fronted.grpc, "--http", fronted.http, "--workers", "2"]


def test_a_video_is_streamed_where_the_service_may_not_read_it(
    fronted: Fronted, service: list[str], tmp_path: Path
) -> None:
    inside, outside = fronted.root / "library", tmp_path / "library"
    for folder in (inside, outside):
        write_library(folder, 3)
    assert index("run", inside, "--to", tmp_path / "by uri", *service) == 0
    assert index("run", outside, "--to", tmp_path / "streamed", *service) == 0
    assert index("run", inside, "--to", tmp_path / "as told", *service, "--send", "bytes") == 0
    expected = answers_of(tmp_path / "by uri")
    assert len(expected) == 3
    assert all(row["status"] == "done" for row in expected)
    assert all((row["codec"], row["width"]) == ("h264", 128) for row in expected)
    assert answers_of(tmp_path / "streamed") == expected
    assert answers_of(tmp_path / "as told") == expected
    # Only by name: what may not be read is not done, and is tried by the next run.
    assert index("run", outside, "--to", tmp_path / "named", *service, "--send", "uri") == 1
    refused = answers_of(tmp_path / "named")
    assert {(row["status"], row["error_code"]) for row in refused} == {
        ("failed", "PERMISSION_DENIED")
    }


def test_an_index_from_its_first_run_to_its_table(
    service: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    library, to = tmp_path / "library", tmp_path / "index"
    write_library(library, 3)
    sound = (library / "video 001.mp4").read_bytes()
    damaged = library / "video 001.mp4"
    damaged.write_bytes(truncated(sound))
    assert index("run", library, "--to", to, *service) == 1
    assert "quarantined" in capsys.readouterr().err
    files = Index.open(str(to)).videos_names()
    assert index("run", library, "--to", to, *service) == 0
    assert Index.open(str(to)).videos_names() == files
    assert index("retry", to, "--failed", *service) == 1
    # What was mended is another video; what is gone is marked.
    damaged.write_bytes(sound)
    (library / "video 002.mp4").unlink()
    assert index("run", library, "--to", to, *service) == 0
    capsys.readouterr()
    assert index("status", to, "--json") == 0
    assert json.loads(capsys.readouterr().out)["videos"] == {BUNDLE: {"done": 2, "deleted": 1}}
    assert index("compact", to) == 0
    assert "of 2 videos" in capsys.readouterr().out
    assert index("verify", to) == 0
    assert "0 problems; the table of segments is current" in capsys.readouterr().out
    assert index("retry", to, "--failed", *service) == 0


def test_what_verify_finds(
    service: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    library, to = tmp_path / "library", tmp_path / "index"
    write_library(library, 2)
    assert index("run", library, "--to", to, *service) == 0
    first, second = sorted((to / "videos").iterdir())
    content = first.read_bytes()
    # A file of another part, one that was cut, and one whose forerunner is missing.
    first.write_bytes(second.read_bytes())
    second.write_bytes(content[:-7])
    part = first.name.partition("-")[0]
    (to / "videos" / f"{part}-0000002.parquet").write_bytes(content)
    capsys.readouterr()
    assert index("verify", to) == 1
    told = capsys.readouterr().out
    assert "is in part" in told
    assert "is no Parquet file of an index" in told
    assert f"{part}-0000001.parquet of its log is missing" in told


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--workers", "0"], "--workers is 0, allowed is 1 or more"),
        (["--timeout", "nan"], "--timeout is nan"),
        (["--address", "auto"], "--address goes with --engine ray"),
        (["--features", "x"], "--features is for a run without --server"),
    ],
)
def test_options_that_cannot_be(
    service: list[str], words: list[str], message: str, tmp_path: Path, capsys: Any
) -> None:
    write_library(tmp_path / "library", 1)
    assert index("run", tmp_path / "library", "--to", tmp_path / "x", *service, *words) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
