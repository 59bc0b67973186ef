"""The answer as one self-contained page: the video, a timeline of segments by class, the CAS.

The page loads nothing from elsewhere and every text in it is escaped: labels and file names come
from strangers. Everything but the video shows without JavaScript.
"""

from __future__ import annotations

import base64
import html
import json
import mimetypes
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from backtal import __version__
from backtal.detection import BACKGROUND, DetectionAnswer
from backtal.segments import Segment

# A larger video is linked to instead: an editor or a mail would choke on the page.
MAX_EMBEDDED_BYTES = 64 * 2**20
MAX_LANES = 8
MIN_LANES = 3
MAX_CURVE_POINTS = 800

FloatArray = NDArray[np.float32]
# The least and the most that the curves reach; None where there are none.
Scale = tuple[float, float] | None


@dataclass(frozen=True, eq=False)
class Report:
    """What a page shows. `truth` is drawn beside the answer where it is known."""

    title: str
    answer: DetectionAnswer
    video: Path | None = None
    truth: tuple[Segment, ...] = ()


@dataclass(frozen=True, eq=False)
class _Lane:
    label: str
    colour: int
    segments: tuple[Segment, ...]
    truth: tuple[Segment, ...]
    curve: FloatArray | None


def write_report(report: Report, path: Path) -> None:
    """Write the page. A video too large to embed is linked to, relative to the page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render(report, path.parent), encoding="utf-8")


def render(report: Report, folder: Path) -> str:
    """The page, to be kept in `folder`. Raises NotFound where there is no such video."""
    answer = report.answer
    lanes = _lanes(report)
    colour_of = {lane.label: lane.colour for lane in lanes}
    scale = _scale(answer, lanes)
    attributes, data, footnote = _video(report.video, folder)
    return Template(_resource("page.html")).substitute(
        title=_escape(report.title),
        version=_escape(__version__),
        css=_resource("page.css"),
        script=_resource("page.js"),
        summary=_summary(answer),
        duration=f"{answer.duration_seconds:.3f}",
        warnings="\n".join(
            f'<p class="warning" role="note">{_escape(text)}</p>' for text in answer.warnings
        ),
        video_attributes=attributes,
        video_data=data,
        footnote=footnote,
        count=str(len(answer.segments)),
        segments=_segment_list(answer.segments, colour_of),
        caption=_caption(report, lanes, scale),
        lanes="\n".join(_lane(lane, answer, scale) for lane in lanes),
        ticks=_ticks(answer.duration_seconds),
        provenance=_escape(json.dumps(_told(answer), indent=2)),
    )


def clock(seconds: float) -> str:
    """Seconds as a person reads them: ``0:05.8``, ``1:02:03.4``."""
    tenths = round(seconds * 10)
    minutes, tenths = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    rest = f"{tenths // 10:02d}.{tenths % 10}"
    return f"{hours}:{minutes:02d}:{rest}" if hours else f"{minutes}:{rest}"


def _resource(name: str) -> str:
    return (files("backtal") / "page" / name).read_text(encoding="utf-8")


def _escape(text: str) -> str:
    return html.escape(text, quote=True)


def _summary(answer: DetectionAnswer) -> str:
    told = answer.provenance
    parts = [f"{clock(answer.duration_seconds)} long"]
    if "num_frames_decoded" in told:
        parts.append(f"{told['num_frames_decoded']} frames read")
    if "bundle" in told:
        parts.append(f"bundle {told['bundle']}")
    return "".join(f"<span>{_escape(part)}</span>" for part in parts)


def _told(answer: DetectionAnswer) -> dict[str, object]:
    # Four hundred class names would bury the rest.
    return {name: value for name, value in answer.provenance.items() if name != "classes"}


def _video(video: Path | None, folder: Path) -> tuple[str, str, str]:
    """The attributes of the player, the embedded bytes, and a footnote."""
    if video is None:
        return "", "", ""
    if video.stat().st_size > MAX_EMBEDDED_BYTES:
        relative = os.path.relpath(video.resolve(), folder.resolve()).replace(os.sep, "/")
        return f'src="{_escape(quote(relative))}"', "", ", but for the video beside it"
    kind = mimetypes.guess_type(video.name)[0] or "video/mp4"
    encoded = base64.b64encode(video.read_bytes()).decode()
    data = (
        f'<script id="video-data" type="text/plain" data-type="{_escape(kind)}">{encoded}</script>'
    )
    return "", data, ""


def _lanes(report: Report) -> list[_Lane]:
    """The classes worth a lane: those with segments, best first, then the strongest others."""
    answer = report.answer
    wanted = list(dict.fromkeys(segment.label for segment in answer.segments))
    wanted += [segment.label for segment in report.truth if segment.label not in wanted]
    curves = _curves(answer)
    strongest = sorted(curves, key=lambda label: -float(np.max(curves[label])))
    for label in strongest:
        if len(wanted) >= MIN_LANES:
            break
        if label not in wanted:
            wanted.append(label)
    return [
        _Lane(
            label=label,
            colour=index,
            segments=tuple(segment for segment in answer.segments if segment.label == label),
            truth=tuple(segment for segment in report.truth if segment.label == label),
            curve=curves.get(label),
        )
        for index, label in enumerate(dict.fromkeys(wanted[:MAX_LANES]))
    ]


def _curves(answer: DetectionAnswer) -> dict[str, FloatArray]:
    """The CAS by class, without the background."""
    if answer.cas is None or len(answer.classes) != len(answer.cas):
        return {}
    named = zip(answer.classes, answer.cas, strict=True)
    return {label: curve for label, curve in named if label != BACKGROUND}


def _scale(answer: DetectionAnswer, lanes: Sequence[_Lane]) -> Scale:
    """One scale for all curves: 0 to 1 for a probability."""
    shown = [lane.curve for lane in lanes if lane.curve is not None]
    if not shown or answer.cas is None:
        return None
    low, high = float(np.min(shown)), float(np.max(shown))
    if float(answer.cas.min()) >= 0.0 and float(answer.cas.max()) <= 1.0:
        return 0.0, 1.0
    return (low, high) if high > low else (low, low + 1.0)


def _caption(report: Report, lanes: Sequence[_Lane], scale: Scale) -> str:
    parts = ["Bars are the detected segments: choose one to play it."]
    if scale == (0.0, 1.0):
        parts.append("Curves are the class's probability, 0 to 1.")
    elif scale is not None:
        low, high = (f"{value:.1f}".replace("-", "\u2212") for value in scale)
        parts.append(f"Curves are the class activation sequence, {low} to {high}.")
    if report.truth:
        parts.append("Dashed boxes are the truth.")
    hidden = len({segment.label for segment in report.answer.segments} - {x.label for x in lanes})
    if hidden:
        parts.append(f"{hidden} more classes are in the list only.")
    return _escape(" ".join(parts))


def _segment_list(segments: Sequence[Segment], colour_of: dict[str, int]) -> str:
    if not segments:
        return '<p class="none">No action was found.</p>'
    items = []
    for segment in segments:
        hue = colour_of.get(segment.label, MAX_LANES - 1)
        times = f"{clock(segment.start_seconds)} \u2013 {clock(segment.end_seconds)}"
        width = 100 * min(max(segment.score, 0.0), 1.0)
        items.append(
            f'<li><button type="button" class="segment" style="--hue:var(--c{hue})" '
            f'{_span(segment)} aria-label="{_spoken(segment)}">'
            f'<span class="dot"></span><span class="label">{_escape(segment.label)}</span>'
            f'<span class="score">{segment.score:.2f}</span>'
            f'<span class="times">{times}</span>'
            f'<span class="gauge"><i style="width:{width:.0f}%"></i></span></button></li>'
        )
    return f"<ol>{''.join(items)}</ol>"


def _span(segment: Segment) -> str:
    return f'data-start="{segment.start_seconds:.3f}" data-end="{segment.end_seconds:.3f}"'


def _spoken(segment: Segment) -> str:
    return _escape(
        f"Play {segment.label}, {segment.start_seconds:.1f} to {segment.end_seconds:.1f} seconds, "
        f"score {segment.score:.2f}"
    )


def _place(segment: Segment, duration_seconds: float) -> str:
    left = 100 * segment.start_seconds / duration_seconds
    width = 100 * (segment.end_seconds - segment.start_seconds) / duration_seconds
    return f"left:{left:.3f}%;width:{width:.3f}%"


def _lane(lane: _Lane, answer: DetectionAnswer, scale: Scale) -> str:
    duration_seconds = answer.duration_seconds
    best = max((segment.score for segment in lane.segments), default=None)
    note = "no segment" if best is None else f"best score {best:.2f}"
    truth = "".join(
        f'<div class="truth" style="{_place(segment, duration_seconds)}"></div>'
        for segment in lane.truth
    )
    bars = "".join(
        f'<button type="button" class="bar" {_span(segment)} tabindex="-1" '
        f'style="{_place(segment, duration_seconds)}" title="{_spoken(segment)}" '
        f'aria-label="{_spoken(segment)}"></button>'
        for segment in lane.segments
    )
    return (
        f'<div class="lane" style="--hue:var(--c{lane.colour})">'
        f'<div class="lane-name">{_escape(lane.label)}<small>{note}</small></div>'
        f'<div class="track">{_curve(lane, answer, scale)}{truth}{bars}</div></div>'
    )


def _curve(lane: _Lane, answer: DetectionAnswer, scale: Scale) -> str:
    if lane.curve is None or scale is None or answer.position_seconds is None:
        return ""
    seconds, values = _thin(answer.position_seconds, lane.curve)
    low, high = scale
    x = 1000 * seconds / answer.duration_seconds
    y = 98 - 94 * np.clip((values - low) / (high - low), 0, 1)
    points = " ".join(f"{left:.1f},{top:.1f}" for left, top in zip(x, y, strict=True))
    return (
        '<svg viewBox="0 0 1000 100" preserveAspectRatio="none" role="img" '
        f'aria-label="{_escape(lane.label)}: activation over time">'
        f'<polygon class="area" points="{x[0]:.1f},100 {points} {x[-1]:.1f},100"/>'
        f'<polyline class="curve" points="{points}"/></svg>'
    )


def _thin(seconds: FloatArray, values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """At most MAX_CURVE_POINTS points, each the peak of those it stands for."""
    step = -(-len(values) // MAX_CURVE_POINTS)
    if step <= 1:
        return seconds, values
    starts = np.arange(0, len(values), step)
    return seconds[starts], np.maximum.reduceat(values, starts)


def _ticks(duration_seconds: float) -> str:
    steps = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200)
    step = next((step for step in steps if duration_seconds / step <= 8), 14400)
    marks = [index * step for index in range(int(duration_seconds // step) + 1)]
    # The end is named where there is room for it.
    if duration_seconds - marks[-1] < step / 2 and len(marks) > 1:
        marks.pop()
    spans = [
        f'<span class="tick" style="left:{100 * mark / duration_seconds:.3f}%">'
        f"{clock(mark).removesuffix('.0')}</span>"
        for mark in marks
    ]
    end = f'<span class="tick last" style="left:100%">{clock(duration_seconds)}</span>'
    return "".join(spans) + end
