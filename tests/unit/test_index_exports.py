"""Every export, opened by what its own people open it with."""

from __future__ import annotations

import csv
import io
import json
import re
import xml.etree.ElementTree as ElementTree
from fractions import Fraction
from pathlib import Path
from typing import Any

import opentimelineio as otio
import pytest
import webvtt
from hypothesis import given
from hypothesis import strategies as st
from opentimelineio.opentime import from_timecode

from backtal import cli
from backtal.errors import InvalidArgument, MissingDependency
from backtal.evaluation import read_results
from backtal.segments import Segment
from backtal_indexing.compact import compact
from backtal_indexing.exports import FORMATS
from backtal_indexing.exports.chapters import Chapter, chapters, uncrossed
from backtal_indexing.exports.fiftyone import fiftyone
from backtal_indexing.exports.label_studio import label_studio
from backtal_indexing.exports.rows import rows
from backtal_indexing.exports.selection import select_videos
from backtal_indexing.exports.timeline import edl, fcpxml, otio_json
from backtal_indexing.exports.video import IndexedVideo, video_names
from backtal_indexing.layout import Index
from backtal_indexing.reading import open_tables
from backtal_indexing.search import Query
from backtal_indexing.subcommands import export
from backtal_indexing.timecode import DROP_FRAME_RATES, TIMECODE_RATES, frame_at, timecode
from tests.made_index import append, new_index, row, segment

NTSC_30 = Fraction(30000, 1001)
SEGMENTS = (Segment(60.06, 63.0, "High <Jump>", 0.9), Segment(62.0, 70.0, "é & run", 0.5))


def video(frames_per_second: float | None = 29.97, *segments: Segment) -> IndexedVideo:
    uri = "file:///films/b%20c.mp4"
    return IndexedVideo(uri, "tiny", 1200.0, frames_per_second, 1920, 1080, segments or SEGMENTS)


@pytest.fixture
def index(tmp_path: Path) -> Index:
    made = new_index(tmp_path / "index")
    append(
        made,
        [
            row("file:///2026/a.mp4", segment(1, 4, "jump", 0.9), segment(9, 11, "run", 0.25)),
            row("file:///2025/a.mp4", segment(2, 3, "run", 0.5)),
            row("file:///2025/empty.mp4"),
            row("file:///2025/bad.mp4", status="failed"),
        ],
    )
    return made


def test_the_videos_of_an_export_are_those_that_are_done(index: Index) -> None:
    with open_tables(index) as tables:
        found = select_videos(tables, Query())
        assert [one.uri[8:] for one in found] == ["2025/a.mp4", "2025/empty.mp4", "2026/a.mp4"]
        assert [len(one.segments) for one in found] == [1, 0, 2]
        assert found[2].segments[0] == Segment(1, 4, "jump", 0.9)
        assert found[2].rate == 25
        best = select_videos(tables, Query(labels=("run",), limit=1))
        assert [len(one.segments) for one in best] == [1, 0, 0]
        below = select_videos(tables, Query(under="file:///2025"))
        assert [one.uri[8:] for one in below] == ["2025/a.mp4", "2025/empty.mp4"]
        with pytest.raises(InvalidArgument, match="did you mean 'jump'"):
            select_videos(tables, Query(labels=("jmp",)))


def test_an_export_is_of_one_bundle(index: Index) -> None:
    append(index, [row("file:///2026/a.mp4", segment(0, 1, "swim", 1.0), bundle="other")])
    with open_tables(index) as tables:
        with pytest.raises(InvalidArgument, match="--bundle: other, tiny"):
            select_videos(tables, Query())
        (one,) = select_videos(tables, Query(bundle="other"))
        assert [found.label for found in one.segments] == ["swim"]
        with pytest.raises(InvalidArgument, match="bundle 'tny'; did you mean 'tiny'"):
            select_videos(tables, Query(bundle="tny"))


def test_videos_of_one_name_are_told_apart() -> None:
    names = video_names(["s3://b/x/a.b.mp4", "s3://b/y/a.b.mp4", "file:///c%20d.mp4", "s3://b/q?#"])
    first, second, third, fourth = names.values()
    assert first.startswith("a.b-")
    assert second.startswith("a.b-")
    assert first != second
    assert (third, fourth) == ("c d", "q?#")
    long = video_names([f"s3://b/{'é' * 300}{end}.mp4" for end in "xy"]).values()
    assert len(set(long)) == 2
    assert all(len(name.encode()) < 180 for name in long)


def run_export(index: Index, *words: object) -> int:
    return cli.main(["index", "export", index.url, *map(str, words)])


def test_activitynet_is_read_by_its_evaluator(index: Index, tmp_path: Path) -> None:
    target = tmp_path / "new" / "results.json"
    assert run_export(index, "--as", "activitynet", "--to", target) == 0
    results = read_results(target)
    assert sorted(len(found) for found in results.values()) == [0, 1, 2]
    assert results["empty"] == ()
    (two,) = (found for found in results.values() if len(found) == 2)
    assert [(one.label, one.score) for one in two] == [("jump", 0.9), ("run", 0.25)]


def test_csv_has_seconds_and_timecode() -> None:
    odd = Segment(1.0, 2.0, 'a "quoted", label\nof two lines', 0.1)
    text = rows([video(29.97, odd, *SEGMENTS), video(19.6, odd), video(None, odd)])
    found = list(csv.DictReader(io.StringIO(text, newline="")))
    assert found[0]["label"] == odd.label
    assert found[1]["start_timecode"] == "00:01:00;02"
    assert float(found[1]["start_seconds"]) == 60.06
    assert [one["start_timecode"] for one in found[3:]] == ["", ""]
    chosen = rows([video(19.6, odd)], Fraction(25))
    assert "00:00:01:00" in chosen


def test_chapters_are_read_by_webvtt() -> None:
    cues = webvtt.from_string(chapters(video()))
    # The first crosses the second, and ends where it starts.
    assert [(cue.start, cue.end, cue.text) for cue in cues] == [
        ("00:01:00.060", "00:01:02.000", "High &lt;Jump&gt;"),
        ("00:01:02.000", "00:01:10.000", "é &amp; run"),
    ]
    strange = webvtt.from_string(chapters(video(25, Segment(1.0, 1.0, "a\n\n--> b", 0.1))))
    assert [(cue.end, cue.text) for cue in strange] == [("00:00:01.001", "a --&gt; b")]


CHAPTERS = st.lists(
    st.builds(
        lambda start, length: Chapter(start, start + length, "x"),
        st.integers(0, 30),
        st.integers(1, 30),
    ),
    max_size=12,
)


@given(CHAPTERS)
def test_no_chapter_crosses_another_or_vanishes(cues: list[Chapter]) -> None:
    found = uncrossed(cues)
    starts = sorted(cue.start_milliseconds for cue in cues)
    assert [cue.start_milliseconds for cue in found] == starts
    for number, one in enumerate(found):
        assert one.end_milliseconds > one.start_milliseconds
        for other in found[number + 1 :]:
            apart = other.start_milliseconds >= one.end_milliseconds
            assert apart or other.end_milliseconds <= one.end_milliseconds


@given(CHAPTERS)
def test_chapters_that_do_not_cross_stay_as_they_are(cues: list[Chapter]) -> None:
    once = uncrossed(cues)
    assert uncrossed(once) == once


def test_opentimelineio_reads_its_own() -> None:
    timeline = otio.adapters.read_from_string(otio_json(video()), "otio_json")
    (clip,) = timeline.find_clips()
    assert clip.media_reference.target_url == "file:///films/b%20c.mp4"
    first, second = clip.markers
    assert first.metadata["backtal"]["start_seconds"] == 60.06
    assert first.marked_range.start_time.value == 1800
    assert first.marked_range.start_time.rate == pytest.approx(float(NTSC_30), abs=1e-12)
    assert second.marked_range.start_time.to_timecode() == "00:01:02;00"


@pytest.mark.parametrize("rate", TIMECODE_RATES)
def test_an_edl_has_each_marker_at_its_timecode(rate: Fraction) -> None:
    text = edl(video(float(rate)))
    mode = "DROP FRAME" if rate in DROP_FRAME_RATES else "NON-DROP FRAME"
    assert text.splitlines()[1] == f"FCM: {mode}"
    timeline = otio.adapters.read_from_string(text, "cmx_3600", rate=float(rate))
    (clip,) = timeline.find_clips()
    assert clip.duration().to_frames() == frame_at(1200.0, rate)
    expected = [frame_at(one.start_seconds, rate) for one in SEGMENTS]
    codes = re.findall(r"^\* LOC: (\S+)", text, re.M)
    assert [from_timecode(code, float(rate)).to_frames() for code in codes] == expected
    assert codes == [timecode(frame, rate) for frame in expected]
    # Of drop-frame timecode the adapter writes the markers but reads none.
    if rate not in DROP_FRAME_RATES:
        found = [(one.marked_range.start_time.to_frames(), one.name) for one in clip.markers]
        names = [f"{one.label.upper()} {one.score:.2f}" for one in SEGMENTS]
        assert found == list(zip(expected, names, strict=True))


@pytest.mark.parametrize("rate", TIMECODE_RATES)
def test_fcpxml_counts_in_exact_frames(rate: Fraction) -> None:
    document = ElementTree.fromstring(fcpxml(video(float(rate))))

    def seconds(text: str) -> Fraction:
        return Fraction(text.removesuffix("s"))

    (form,) = document.iter("format")
    assert 1 / seconds(form.attrib["frameDuration"]) == rate
    (asset,) = document.iter("asset")
    assert asset.attrib["src"] == "file:///films/b%20c.mp4"
    (sequence,) = document.iter("sequence")
    assert sequence.attrib["tcFormat"] == ("DF" if rate in DROP_FRAME_RATES else "NDF")
    markers = list(document.iter("marker"))
    assert [one.attrib["value"] for one in markers] == ["High <Jump> 0.90", "é & run 0.50"]
    for one, segment_ in zip(markers, SEGMENTS, strict=True):
        assert seconds(one.attrib["start"]) == frame_at(segment_.start_seconds, rate) / rate
        # With it, Final Cut shows a task.
        assert "completed" not in one.attrib


def test_fcpxml_is_read_by_its_adapter() -> None:
    # At a whole rate: of 29.97 the adapter reads 29.
    read = otio.adapters.read_from_string(fcpxml(video(25)), "fcpx_xml")
    markers = [one for clip in read.find_clips() for one in clip.markers]
    found = {(one.name, one.marked_range.start_time.value) for one in markers}
    assert found == {("High <Jump> 0.90", 1502), ("é & run 0.50", 1550)}


@pytest.mark.parametrize("write", [edl, fcpxml])
def test_a_rate_without_timecode_wants_a_chosen_one(write: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"19\.6 frames a second.*--rate"):
        write(video(19.6))
    with pytest.raises(InvalidArgument, match="does not say how many frames.*--rate"):
        write(video(None))
    assert write(video(19.6), Fraction(25))


def test_label_studio_s_tasks_fit_its_interface() -> None:
    files = label_studio([video(25, Segment(0.0, 0.01, 'a "b" & c', 0.25), *SEGMENTS)])
    (task,) = json.loads(files["tasks.json"])
    view = ElementTree.fromstring(files["interface.xml"])
    control, shown = view.find("TimelineLabels"), view.find("Video")
    assert control is not None
    assert shown is not None
    known = {one.attrib["value"] for one in control}
    for name in (shown.attrib["value"], shown.attrib["frameRate"]):
        assert name.removeprefix("$") in task["data"]
    (prediction,) = task["predictions"]
    assert prediction["score"] == 0.9
    for region in prediction["result"]:
        assert region["type"] == control.tag.lower()
        assert region["from_name"] == control.attrib["name"]
        assert region["to_name"] == control.attrib["toName"] == shown.attrib["name"]
        assert set(region["value"]["timelinelabels"]) <= known
    ranges = [region["value"]["ranges"] for region in prediction["result"]]
    # Frames from 1 on, the last one included, never none.
    assert ranges == [
        [{"start": 1, "end": 1}],
        [{"start": 1503, "end": 1575}],
        [{"start": 1551, "end": 1750}],
    ]


def test_fiftyone_finds_each_video_by_its_name() -> None:
    other = IndexedVideo("s3://b/v.1", "tiny", 1.0, 25.0, None, None, ())
    files = fiftyone([video(25), other])
    labels, places = json.loads(files["labels.json"]), json.loads(files["data.json"])
    assert labels["classes"] == ["High <Jump>", "é & run"]
    assert labels["labels"]["b c"][0] == {
        "label": "High <Jump>",
        "support": [1503, 1575],
        "confidence": 0.9,
    }
    # As FiftyOne does: the key without its suffix is the name.
    by_name = {Path(key).with_suffix("").name: place for key, place in places.items()}
    assert by_name["b c"] == "/films/b c.mp4"
    assert set(by_name) == set(labels["labels"])


def test_the_command_writes_a_file_a_folder_or_standard_output(
    index: Index, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compact(index)
    assert run_export(index, "--as", "csv", "--to", "-", "--label", "run") == 0
    assert capsys.readouterr().out.count(",run,") == 2
    assert run_export(index, "--as", "webvtt", "--to", tmp_path / "vtt") == 0
    assert "3 segments of 3 videos in 2 files" in capsys.readouterr().err
    found = sorted(path.name for path in (tmp_path / "vtt").iterdir())
    assert [name[:2] + name[-4:] for name in found] == ["a-.vtt", "a-.vtt"]
    for form in FORMATS:
        assert run_export(index, "--as", form, "--to", tmp_path / form) == 0
        assert list((tmp_path / form).iterdir())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "give --as"),
        (("--as", "csv"), "go together"),
        (("--as", "webvtt", "--to", "-"), "2 files do not go to standard output"),
        (("--as", "edl", "--to", "x", "--rate", "19.6"), "no timecode"),
        (("--as", "edl", "--to", "x", "--rate", "-1"), "finite number above 0"),
    ],
)
def test_wrong_words_are_an_error(
    index: Index, words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_export(index, *words) == cli.EXIT_MENDABLE
    assert message in capsys.readouterr().err


def test_the_formats_of_the_command_are_those_there_are() -> None:
    assert tuple(FORMATS) == export.FORMATS


def test_a_missing_adapter_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otio.adapters, "available_adapter_names", lambda: ["otio_json"])
    for write in (edl, fcpxml):
        with pytest.raises(MissingDependency, match=r"pip install 'backtal\[timeline\]'"):
            write(video(25))
