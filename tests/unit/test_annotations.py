from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtal.annotations import Click, Clicks, GroundTruth, Instance
from backtal.errors import InvalidArgument, InvalidFile, NotFound
from tests.requirements import shared_folder

HEADER = "URLID,URL,TagID,Tag,Start,End,Time,State"
ROW = "v1,v1.mp4,20,background_background,{},{},1,1"
ENTRY: dict[str, Any] = {
    "subset": "val",
    "duration": 20.5,
    "annotations": [{"segment": [1, 2.5], "label": "run"}],
}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


def _document(**changes: Any) -> bytes:
    return json.dumps({"database": {"v1": {**ENTRY, **changes}}}).encode()


def test_ground_truth_of_activitynet() -> None:
    truth = GroundTruth.parse(b"\xef\xbb\xbf" + _document(fps=30))
    video = truth.videos["v1"]
    assert (video.subset, video.duration_seconds, video.frames_per_second) == ("val", 20.5, 30)
    assert video.instances == (Instance(1.0, 2.5, "run"),)
    assert video.labels == ("run",)
    assert truth.classes == ("run",)
    assert GroundTruth.parse(_document()).videos["v1"].frames_per_second is None


def test_a_list_of_classes_keeps_its_order() -> None:
    document = {"database": {"v1": ENTRY}, "activity_list": ["swim", "run"]}
    assert GroundTruth.parse(json.dumps(document).encode()).classes == ("swim", "run")
    document["activity_list"] = ["swim"]
    with pytest.raises(InvalidFile, match="activity_list lacks 'run'"):
        GroundTruth.parse(json.dumps(document).encode())


def test_ground_truth_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "truth.json"
    truth = GroundTruth.parse(_document(fps=12.5), str(path))
    truth.save(path)
    assert GroundTruth.load(path) == truth


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"subset": 3}, "file: database.v1.subset is 3, expected a text"),
        ({"duration": None}, "database.v1.duration is None, expected a number"),
        ({"duration": -1}, "database.v1.duration is -1, expected a number above 0"),
        ({"duration": float("nan")}, "duration is nan, expected a finite number"),
        ({"fps": 0}, "database.v1.fps is 0, expected a number above 0"),
        ({"annotations": {}}, "database.v1.annotations is {}, expected a list"),
        ({"annotations": [{"label": "a"}]}, r"annotations\[0\].segment is None"),
        ({"annotations": [{"segment": [2, 1], "label": "a"}]}, r"\[2, 1\], which ends before"),
        ({"annotations": [{"segment": [0, 1]}]}, r"annotations\[0\].label is None"),
    ],
)
def test_damaged_ground_truth(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidFile, match=message):
        GroundTruth.parse(_document(**changes), "file")


def test_no_json_names_the_place() -> None:
    with pytest.raises(InvalidFile, match="file is no JSON: .*line 2 column 1"):
        GroundTruth.parse(b"{\n!", "file")
    with pytest.raises(InvalidFile, match="no JSON"):
        GroundTruth.parse(b"\xff\xfe")
    with pytest.raises(InvalidFile, match="no JSON"):
        GroundTruth.parse(b"[" * 100_000)


@given(st.binary(max_size=300))
def test_any_bytes_are_ground_truth_or_an_error(content: bytes) -> None:
    try:
        GroundTruth.parse(content)
    except InvalidFile:
        pass


@given(st.dictionaries(st.sampled_from([*ENTRY, "fps"]), json_values), json_values)
def test_any_json_is_ground_truth_or_an_error(changes: dict[str, Any], listed: Any) -> None:
    for document in (
        {"database": {"v": {**ENTRY, **changes}}},
        {"database": {"v": ENTRY}, "activity_list": listed},
        {"database": listed},
        listed,
    ):
        try:
            GroundTruth.parse(json.dumps(document).encode())
        except InvalidFile:
            pass


def _clicks(*rows: str) -> bytes:
    return "\n".join([HEADER, *rows]).encode()


def test_clicks_of_thumos14() -> None:
    content = _clicks(ROW.format(79, 79), ROW.format(21.5, 21.5), ROW.format(30, 31.5))
    for mark in (b"", b"\xef\xbb\xbf"):
        clicks = Clicks.parse(mark + content)
        assert clicks.of("v1") == (Click(21.5, 21.5), Click(30, 31.5), Click(79, 79))
        assert clicks.of("v2") == ()
        assert clicks.num_clicks == 3


def test_clicks_of_the_plain_form() -> None:
    clicks = Clicks.parse(b"\xef\xbb\xbfvideo,seconds\r\na,3.5\r\n\r\nb,1\r\na,0\r\n")
    assert clicks.videos == {"a": (Click.at(0), Click.at(3.5)), "b": (Click.at(1),)}


def test_clicks_are_read_back(tmp_path: Path) -> None:
    path = tmp_path / "clicks.txt"
    clicks = Clicks({"a": (Click.at(0.04), Click(2, 3.25)), "b": (Click.at(7),)}, str(path))
    clicks.save(path, background_index=5)
    assert path.read_bytes().startswith(b"\xef\xbb\xbf" + HEADER.encode())
    assert Clicks.load(path) == clicks


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "file, line 1: '', expected 'URLID"),
        (b"video;seconds\n", "line 1: 'video;seconds'"),
        (b"video,seconds\na,1\na\n", "line 3: 1 columns, expected 2"),
        (b"video,seconds\na,soon\n", "line 2: seconds is 'soon', expected seconds from 0 on"),
        (b"video,seconds\na,-1\n", "line 2: seconds is '-1'"),
        (b"video,seconds\na,nan\n", "line 2: seconds is 'nan'"),
        (b"video,seconds\na,inf\n", "line 2: seconds is 'inf'"),
        (b"video,seconds\n ,1\n", "line 2: video is empty"),
        (b'video,seconds\na,"1\n', "line 2: unexpected end"),
        (b"video,seconds\na,\xff\n", "file is no UTF-8 text"),
        (_clicks(ROW.format(3, 2)), "line 2: End 2 is before Start 3"),
        (_clicks(ROW.format(3, "")), "line 2: End is ''"),
        (_clicks(ROW.format(1, 1).replace("background_b", "foreground_b")), "line 2: Tag is"),
    ],
)
def test_damaged_clicks(content: bytes, message: str) -> None:
    with pytest.raises(InvalidFile, match=message):
        Clicks.parse(content, "file")


def test_no_file_of_clicks(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no such file"):
        Clicks.load(tmp_path / "none")


rows_of_anything = st.lists(st.text(alphabet='v1,."\n\r-e\x00 ', max_size=20), max_size=5)


@given(st.sampled_from([HEADER, "video,seconds", ""]), rows_of_anything, st.binary(max_size=20))
def test_any_bytes_are_clicks_or_an_error(header: str, rows: list[str], end: bytes) -> None:
    try:
        Clicks.parse("\n".join([header, *rows]).encode() + end)
    except InvalidFile:
        pass


def test_clicked_positions() -> None:
    clicks = Clicks({"v": (Click.at(0.2), Click.at(0.9), Click.at(2.0), Click(3.4, 5.1))})
    assert clicks.positions("v", 1.0, 10).tolist() == [0, 2, 3, 4, 5]
    assert clicks.positions("v", 1.0, 4).tolist() == [0, 2, 3]
    assert clicks.positions("v", 1.0, 2).tolist() == [0, 1]
    assert clicks.positions("v", 1.0, 1).tolist() == [0]
    assert clicks.positions("w", 1.0, 9).tolist() == []
    with pytest.raises(InvalidArgument, match="no grid of 0 positions"):
        clicks.positions("v", 1.0, 0)


@given(st.floats(0, 1e300), st.floats(0, 1e300), st.floats(1e-3, 1e3), st.integers(1, 50))
def test_clicked_positions_are_on_the_grid(
    start: float, more: float, position_seconds: float, num_positions: int
) -> None:
    clicks = Clicks({"v": (Click(start, start + more),)})
    clicked = clicks.positions("v", position_seconds, num_positions)
    assert ((clicked >= 0) & (clicked < num_positions)).all()
    if start < num_positions * position_seconds * 0.999:
        assert int(start / position_seconds) in clicked


@pytest.mark.parametrize(
    ("annotator", "num_clicks", "num_videos", "num_stretches", "inside"),
    [("A1", 2264, 200, 4, 0.077), ("A2", 2323, 199, 0, 0.022), ("A3", 2344, 199, 2, 0.075)],
)
def test_the_published_clicks(
    annotator: str, num_clicks: int, num_videos: int, num_stretches: int, inside: float
) -> None:
    folder = shared_folder() / "thumos14"
    clicks = Clicks.load(folder / f"THUMOS14_Background-Click-Annotation_{annotator}.txt")
    videos = GroundTruth.load(folder / "gt_thumos14.json").subset("val").videos
    every = [(name, one) for name, ones in clicks.videos.items() for one in ones]
    assert len(every) == clicks.num_clicks == num_clicks
    assert len(clicks.videos) == num_videos
    assert sum(one.start_seconds != one.end_seconds for _, one in every) == num_stretches
    within = [
        any(i.start_seconds <= one.start_seconds <= i.end_seconds for i in videos[name].instances)
        for name, one in every
    ]
    assert sum(within) / num_clicks == pytest.approx(inside, abs=5e-4)
