from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from backtal import cli
from backtal.client import DetectionOptions
from backtal.commands import detect
from backtal.detection import DetectionAnswer
from backtal.detectors import default_bundle, is_uri
from backtal.errors import InvalidArgument, NotFound
from backtal.segments import Segment

ANSWER = DetectionAnswer(
    segments=(
        Segment(5.8234, 16.2, "clean and jerk", 0.93),
        Segment(0.0, 1.0, "[bold]squat[/bold]", 0.1),
    ),
    duration_seconds=18.1,
    provenance={"bundle": "kinetics400", "warnings": ["the stream ends [early]"]},
)


def test_the_table_shows_labels_as_they_are() -> None:
    console = Console(record=True, width=100, file=io.StringIO())
    detect.show(console, "a/b/x.mp4", ANSWER)
    text = console.export_text()
    assert "0:05.8" in text
    assert "0:16.2" in text
    assert "0.930" in text
    assert "[bold]squat[/bold]" in text
    assert "warning: the stream ends [early]" in text
    assert "x.mp4" in text
    assert "a/b" not in text


def test_an_empty_answer_says_so() -> None:
    console = Console(record=True, width=100, file=io.StringIO())
    detect.show(console, "x.mp4", DetectionAnswer((), 3.0))
    assert "no action found" in console.export_text()


def test_options_that_are_not_given_are_not_sent() -> None:
    assert DetectionOptions().as_parameters() == {}
    options = DetectionOptions(0.25, 3, ("a", "b, c"), 0.5, allow_partial=True)
    parameters = options.as_parameters()
    assert parameters == {
        "score_threshold": 0.25,
        "max_segments": 3,
        "classes": '["a", "b, c"]',
        "nms": 0.5,
        "allow_partial": True,
    }


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (None, ()),
        ("squat", ("squat",)),
        ("squat, yoga ,", ("squat", "yoga")),
        ('["a, b", "c"]', ("a, b", "c")),
    ],
)
def test_classes_by_comma_or_json(text: str | None, names: tuple[str, ...]) -> None:
    assert detect._class_names(text) == names


@pytest.mark.parametrize("text", ["[squat]", "[1, 2]"])
def test_classes_that_are_no_list_of_names_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="--classes"):
        detect._class_names(text)


def test_uris() -> None:
    assert is_uri("file:///x.mp4")
    assert is_uri("s3://bucket/x.mp4")
    assert not is_uri("x.mp4")
    assert not is_uri("files/x.mp4")


def make_bundles(repository: Path, *names: str) -> None:
    for name in names:
        for model in (name, f"{name}_stream"):
            (repository / model / "1").mkdir(parents=True)
            (repository / model / "1" / "manifest.json").write_text("{}")


def test_the_default_bundle(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="backtal export kinetics400 --repository"):
        default_bundle(tmp_path / "none")
    make_bundles(tmp_path, "mine")
    assert default_bundle(tmp_path) == "mine"
    make_bundles(tmp_path, "other")
    with pytest.raises(InvalidArgument, match="mine, other"):
        default_bundle(tmp_path)
    make_bundles(tmp_path, "kinetics400")
    assert default_bundle(tmp_path) == "kinetics400"


@pytest.mark.parametrize("place", [[], ["--local"]])
def test_without_a_repository_it_says_how_to_make_one(
    place: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    video = tmp_path / "x.mp4"
    video.write_bytes(b"x")
    monkeypatch.setenv("BACKTAL_REPOSITORY", str(tmp_path / "nowhere"))
    assert cli.main(["detect", str(video), *place]) == 2
    error = capsys.readouterr().err
    assert "backtal export kinetics400 --repository" in error
    assert "nowhere" in error


def test_a_video_that_is_not_there_is_named_before_a_server_is_started(tmp_path, capsys) -> None:
    assert cli.main(["detect", str(tmp_path / "no.mp4"), "--repository", str(tmp_path)]) == 2
    assert "no such file" in capsys.readouterr().err


def test_no_server_at_the_address(capsys) -> None:
    pytest.importorskip("tritonclient.grpc")
    assert cli.main(["detect", "x.mp4", "--server", "127.0.0.1:1", "--timeout", "5"]) == 1
    error = capsys.readouterr().err
    assert "no server answers at 127.0.0.1:1" in error
    assert len(error.splitlines()) == 1


def test_json_and_pages_are_written(tmp_path: Path, capsys, monkeypatch) -> None:
    class Fake:
        bundle = "kinetics400"

        def detect(self, source, options, on_progress):
            on_progress(1.0, 2.0)
            return ANSWER

    class Context:
        def __enter__(self):
            return Fake()

        def __exit__(self, *_):
            return None

    monkeypatch.setattr(detect, "_detector", lambda *_: Context())
    video = tmp_path / "x.mp4"
    video.write_bytes(b"\0\1")
    words = ["detect", str(video), "--json", "-", "--html", str(tmp_path / "out" / "x.html")]
    assert cli.main(words) == 0
    captured = capsys.readouterr()
    results = json.loads(captured.out)
    assert set(results) == {"version", "results", "external_data"}
    assert results["results"]["x"][0] == {
        "label": "clean and jerk",
        "score": 0.93,
        "segment": [5.8234, 16.2],
    }
    assert "clean and jerk" in captured.err
    assert "x.mp4" in (tmp_path / "out" / "x.html").read_text()
