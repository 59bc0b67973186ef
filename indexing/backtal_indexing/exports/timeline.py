"""Markers on a timeline, for editors: OpenTimelineIO, and by its adapters EDL and FCPXML.

A timeline holds the video as one clip, with a marker for each segment. Frames are counted at the
exact rate (30000/1001, not 29.97), EDL's timecode drops frames where the rate does. Timecode
starts at 0: one that a camera wrote into the file is not known here.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from fractions import Fraction

import opentimelineio as otio
from opentimelineio.opentime import RationalTime, TimeRange

from backtal.errors import MissingDependency
from backtal.segments import Segment
from backtal_indexing.exports.video import IndexedVideo, path_of, single_line
from backtal_indexing.timecode import check_timecode_rate, drops_frames, frame_at

EDL_ADAPTER, FCPXML_ADAPTER = "cmx_3600", "fcpx_xml"
# The FCPXML adapter would run ffprobe on a file that it finds.
_NO_FILE = "backtal:"


def otio_json(video: IndexedVideo, rate: Fraction | None = None) -> str:
    """OpenTimelineIO's own JSON; markers have the score and the seconds as metadata."""
    text: str = otio.adapters.write_to_string(_timeline(video, video.rate_or(rate)), "otio_json")
    return text


def edl(video: IndexedVideo, rate: Fraction | None = None) -> str:
    """CMX 3600, markers as `* LOC:`. Raises InvalidArgument for a rate without timecode."""
    counted = video.rate_or(rate)
    check_timecode_rate(counted, video.uri)
    text = _written(_timeline(video, counted), EDL_ADAPTER, rate=float(counted))
    # The adapter leaves out how the timecode counts.
    title, _, events = text.partition("\n")
    mode = "DROP FRAME" if drops_frames(counted) else "NON-DROP FRAME"
    return f"{title}\nFCM: {mode}\n{events}"


def fcpxml(video: IndexedVideo, rate: Fraction | None = None) -> str:
    """Final Cut Pro's XML. Raises InvalidArgument for a rate without timecode."""
    counted = video.rate_or(rate)
    check_timecode_rate(counted, video.uri)
    timeline = _timeline(video, counted, url=_NO_FILE)
    document = ElementTree.fromstring(_written(timeline, FCPXML_ADAPTER))
    for form in document.iter("format"):
        # The adapter knows whole rates only, and leaves this empty for the others.
        form.set("frameDuration", f"{counted.denominator}/{counted.numerator}s")
        form.attrib.pop("name", None)
        if video.width and video.height:
            form.set("width", str(video.width))
            form.set("height", str(video.height))
    for asset in document.iter("asset"):
        asset.set("src", video.uri)
    for sequence in document.iter("sequence"):
        sequence.set("tcFormat", "DF" if drops_frames(counted) else "NDF")
    for marker in document.iter("marker"):
        # With this attribute, even as 0, a marker is a task to be done.
        marker.attrib.pop("completed", None)
    for project in document.iter("project"):
        project.attrib.pop("uid", None)
    ElementTree.indent(document)
    body = ElementTree.tostring(document, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE fcpxml>\n{body}\n'


def _timeline(video: IndexedVideo, rate: Fraction, url: str | None = None) -> otio.schema.Timeline:
    name = single_line(path_of(video.uri).name) or "video"
    ends = (frame_at(one.end_seconds, rate) for one in video.segments)
    num_frames = max(frame_at(video.duration_seconds, rate), *ends, 1)
    whole = TimeRange(RationalTime(0, float(rate)), RationalTime(num_frames, float(rate)))
    reference = otio.schema.ExternalReference(url or single_line(video.uri), whole)
    clip = otio.schema.Clip(name, reference, whole)
    clip.markers.extend(_marker(one, rate) for one in video.by_start)
    track = otio.schema.Track("V1", [clip], kind=otio.schema.TrackKind.Video)
    timeline = otio.schema.Timeline(name, [track], RationalTime(0, float(rate)))
    timeline.metadata["backtal"] = {"uri": video.uri, "bundle": video.bundle}
    return timeline


def _marker(segment: Segment, rate: Fraction) -> otio.schema.Marker:
    start, end = (frame_at(at, rate) for at in (segment.start_seconds, segment.end_seconds))
    return otio.schema.Marker(
        name=f"{single_line(segment.label)} {segment.score:.2f}",
        marked_range=TimeRange(
            RationalTime(start, float(rate)), RationalTime(max(1, end - start), float(rate))
        ),
        color=otio.schema.MarkerColor.RED,
        metadata={
            "backtal": {
                "label": segment.label,
                "score": segment.score,
                "start_seconds": segment.start_seconds,
                "end_seconds": segment.end_seconds,
            }
        },
    )


def _written(timeline: otio.schema.Timeline, adapter: str, **options: float) -> str:
    if adapter not in otio.adapters.available_adapter_names():
        raise MissingDependency(
            f"OpenTimelineIO's adapter {adapter} is not installed: pip install 'backtal[timeline]'"
        )
    text: str = otio.adapters.write_to_string(timeline, adapter, **options)
    return text
