from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtal import report as report_module
from backtal.detection import DetectionAnswer
from backtal.report import Report, clock, render, write_report
from backtal.segments import Segment

EVIL = "</script><script>alert('x')</script><img src=x onerror=alert(1)>\"'&$title"


class Page(HTMLParser):
    """The tags of a page, with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)

    def with_class(self, name: str) -> list[dict[str, str | None]]:
        return [attrs for _, attrs in self.tags if name in (attrs.get("class") or "").split()]


def answer(num_classes: int = 3, length: int = 40, **changes) -> DetectionAnswer:
    cas = np.linspace(0, 1, num_classes * length, dtype=np.float32).reshape(num_classes, length)
    given = {
        "segments": (Segment(2.0, 4.0, "class 0", 0.9), Segment(5.0, 6.0, "class 1", 0.4)),
        "duration_seconds": 10.0,
        "cas": cas,
        "position_seconds": (np.arange(length, dtype=np.float32) + 0.5) * 10 / length,
        "classes": tuple(f"class {index}" for index in range(num_classes)),
        "provenance": {"bundle": "kinetics400", "classes": ["hidden name"]},
    }
    return DetectionAnswer(**{**given, **changes})


def page(report: Report) -> Page:
    return Page(render(report, Path()))


def test_segments_are_buttons_and_bars_at_their_place() -> None:
    shown = page(Report("x.mp4", answer()))
    spans = [(a["data-start"], a["data-end"]) for a in shown.with_class("segment")]
    assert spans == [("2.000", "4.000"), ("5.000", "6.000")]
    bars = shown.with_class("bar")
    assert "left:20.000%;width:20.000%" in (bars[0]["style"] or "")
    assert bars[0]["aria-label"] == "Play class 0, 2.0 to 4.0 seconds, score 0.90"
    assert "hidden name" not in "".join(shown.text)


def test_nothing_is_loaded_from_elsewhere() -> None:
    text = render(Report("x.mp4", answer()), Path())
    shown = Page(text)
    for tag, attributes in shown.tags:
        assert tag not in {"link", "iframe", "object", "embed"}
        for name in ("src", "href", "action"):
            value = attributes.get(name) or "#"
            assert value.startswith("#"), (tag, name, value)
    assert "http://" not in text
    assert "https://" not in text
    policy = next(a["content"] for t, a in shown.tags if "http-equiv" in a)
    assert "default-src 'none'" in policy


def test_text_from_strangers_stays_text() -> None:
    evil = answer(
        segments=(Segment(1.0, 2.0, EVIL, 0.5),),
        provenance={"bundle": EVIL, "warnings": [EVIL], "classes": []},
    )
    plain = page(Report("x", answer()))
    shown = page(Report(EVIL, evil, truth=(Segment(1.0, 2.0, EVIL, 1.0),)))
    assert {tag for tag, _ in shown.tags} <= {tag for tag, _ in plain.tags} | {"p"}
    assert sum(tag == "script" for tag, _ in shown.tags) == 1
    assert not any(name.startswith("on") for _, attributes in shown.tags for name in attributes)
    assert "".join(shown.text).count(EVIL) >= 4


def test_four_hundred_classes_make_few_lanes() -> None:
    shown = page(Report("x", answer(num_classes=400)))
    lanes = shown.with_class("lane")
    assert len(lanes) == report_module.MIN_LANES + 1
    many = tuple(Segment(1.0, 2.0, f"class {index}", 0.5) for index in range(50))
    shown = page(Report("x", answer(num_classes=400, segments=many)))
    assert len(shown.with_class("lane")) == report_module.MAX_LANES + 1
    assert len(shown.with_class("segment")) == 50
    assert "42 more classes are in the list only" in "".join(shown.text)


def test_a_long_curve_keeps_its_peaks() -> None:
    length = 20_000
    cas = np.zeros((1, length), np.float32)
    cas[0, 12_345] = 1.0
    long = answer(
        num_classes=1,
        length=length,
        cas=cas,
        segments=(),
        duration_seconds=14_400.0,
        position_seconds=(np.arange(length, dtype=np.float32) + 0.5) * 0.72,
    )
    text = render(Report("x", long), Path())
    points = re.search(r'class="curve" points="([^"]*)"', text)
    assert points is not None
    heights = [float(point.split(",")[1]) for point in points[1].split()]
    assert len(heights) <= report_module.MAX_CURVE_POINTS
    assert min(heights) == pytest.approx(4.0)
    assert "No action was found" in text
    assert "4:00:00.0" in text


def test_curves_share_one_scale_and_the_caption_tells_it() -> None:
    logits = np.array([[-2.0, 6.0], [-2.0, 2.0]], np.float32)
    shown = answer(
        num_classes=2,
        cas=logits,
        position_seconds=np.array([2.5, 7.5], np.float32),
        segments=(),
    )
    text = render(Report("x", shown), Path())
    assert "\u22122.0 to 6.0" in text
    tops = [
        min(float(point.split(",")[1]) for point in points.split())
        for points in re.findall(r'class="curve" points="([^"]*)"', text)
    ]
    assert tops == [4.0, 51.0]
    assert "probability, 0 to 1" in render(Report("x", answer()), Path())


def test_the_background_and_channels_without_a_name_are_not_drawn() -> None:
    with_background = answer(classes=("class 0", "class 1", "background"))
    text = render(Report("x", with_background), Path())
    assert "background: activation" not in text
    assert text.count('class="curve"') == 2
    assert 'class="curve"' not in render(Report("x", answer(classes=())), Path())
    assert 'class="curve"' not in render(Report("x", answer(cas=None)), Path())


def test_a_small_video_is_inside_and_a_large_one_is_linked(tmp_path: Path, monkeypatch) -> None:
    video = tmp_path / "a b#1.mp4"
    video.write_bytes(b"\0moov</script>")
    report = Report("x", answer(), video=video)
    inside = render(report, tmp_path)
    encoded = re.search(r'<script id="video-data"[^>]*data-type="video/mp4">([^<]*)<', inside)
    assert encoded is not None
    assert base64.b64decode(encoded[1]) == video.read_bytes()
    monkeypatch.setattr(report_module, "MAX_EMBEDDED_BYTES", 3)
    write_report(report, tmp_path / "pages" / "x.html")
    text = (tmp_path / "pages" / "x.html").read_text()
    assert 'src="../a%20b%231.mp4"' in text
    assert "video-data" not in text.split("<script>")[0]


def test_the_truth_is_drawn_beside() -> None:
    shown = page(Report("x", answer(), truth=(Segment(2.5, 5.0, "class 2", 1.0),)))
    assert [a["style"] for a in shown.with_class("truth")] == ["left:25.000%;width:25.000%"]
    assert "Dashed boxes are the truth" in "".join(shown.text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0:00.0"), (5.82, "0:05.8"), (59.97, "1:00.0"), (61.0, "1:01.0"), (3723.4, "1:02:03.4")],
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


@given(st.floats(0.04, 50_000))
def test_ticks_are_few_and_end_with_the_video(duration_seconds: float) -> None:
    ticks = report_module._ticks(duration_seconds)
    places = [float(place) for place in re.findall(r"left:([0-9.]+)%", ticks)]
    assert places == sorted(places)
    assert places[0] == 0.0
    assert places[-1] == 100.0
    assert 2 <= len(places) <= 11
