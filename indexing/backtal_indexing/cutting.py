"""Clips cut from the originals without decoding: libavformat's stream copy, as `ffmpeg -c copy`.

A copy can begin at a key frame only. So a clip starts at the last key frame before its segment,
often a second or more early, and `Cut` says where it really starts; its end is the segment's, but
for the few frames that are stored before they are shown. Sound is copied, subtitles are not.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Stream

from backtal.errors import InvalidVideo
from backtal.segments import Segment
from backtal.video.limits import VideoLimits
from backtal.video.pyav import open_container, video_stream
from backtal.video.source import Source

# How much earlier to look for a key frame where a seek landed too late; then twice that, ...
_STEP_BACK_SECONDS = 2
# Read on so far for sound that is stored later than the pictures it belongs to.
_SOUND_LAG_SECONDS = 1.0


@dataclass(frozen=True)
class Cut:
    """A clip at `path`, and the stretch of the video that it holds, in the video's seconds."""

    path: Path
    segment: Segment
    start_seconds: float
    end_seconds: float

    @property
    def lead_seconds(self) -> float:
        """How much of the clip comes before the segment."""
        return max(0.0, self.segment.start_seconds - self.start_seconds)


def cut(source: Source, wanted: Sequence[tuple[Segment, Path]]) -> Iterator[Cut]:
    """Write each segment of a video to its path, to which the container's suffix is added.

    mp4 where the codecs fit in it and the source is of its family, else mkv. Raises InvalidVideo
    where the source cannot be read, or has no key frame to begin with.
    """
    with open_container(source, VideoLimits()) as container:
        sound = [one for one in container.streams.audio if one.codec_context is not None]
        kept = [video_stream(container, source.name), *sound]
        form = _form(container, kept)
        for segment, path in wanted:
            target = path.with_name(f"{path.name}.{form}")
            yield _whole(_Cutter(source.name, container, kept, segment), target)


def _whole(cutter: _Cutter, target: Path) -> Cut:
    """The clip, or no file and the reason."""
    try:
        return cutter.write(target)
    except BaseException as error:
        target.unlink(missing_ok=True)
        if isinstance(error, FFmpegError):
            raise InvalidVideo(f"{cutter.what} cannot be copied: {error.strerror}") from None
        raise


def _form(container: InputContainer, kept: Sequence[Stream]) -> str:
    if "mp4" not in container.format.name.split(","):
        return "mkv"
    with av.open(io.BytesIO(), "w", format="mp4") as probe:
        fitting = probe.supported_codecs
    return "mp4" if all(one.codec_context.name in fitting for one in kept) else "mkv"


@dataclass(frozen=True)
class _Piece:
    """A packet of a kept stream: when it is to be shown, and by when to be decoded."""

    packet: Packet[Stream]
    shown: Fraction
    due: Fraction

    @property
    def stream_index(self) -> int:
        return self.packet.stream.index


class _Cutter:
    """One segment of an open container; `kept` are the streams to copy, the video first."""

    def __init__(
        self, name: str, container: InputContainer, kept: Sequence[Stream], segment: Segment
    ) -> None:
        self._name = name
        self._container = container
        self._kept = kept
        self._video = kept[0]
        self._time_base = self._video.time_base or Fraction(1, av.time_base)
        # As where it was indexed: AVI has no times of showing, FFmpeg makes some up.
        self._stamps_are_decode_times = container.format.name == "avi"
        self._segment = segment
        # Where the first frame is: times of an index are counted from it.
        self._zero = (self._video.start_time or 0) * self._time_base
        self._start = Fraction(segment.start_seconds) + self._zero
        self._end = max(self._start, Fraction(segment.end_seconds) + self._zero)

    @property
    def what(self) -> str:
        """The stretch of the video, for messages."""
        one = self._segment
        return f"{self._name}: {one.start_seconds:g} to {one.end_seconds:g} s"

    def write(self, target: Path) -> Cut:
        """Copy it."""
        pieces = self._from_key_frame()
        first = next(pieces)
        origin = end = first.shown
        with av.open(str(target), "w") as output:
            copies = {
                one.index: output.add_stream_from_template(one, opaque=True) for one in self._kept
            }
            for piece in self._until_the_end(first, pieces):
                if piece.shown < origin:
                    # Shown before the key frame: made from pictures that are not in the clip.
                    continue
                packet = piece.packet
                if piece.stream_index == self._video.index:
                    end = max(end, piece.shown + (packet.duration or 0) * packet.time_base)
                packet.pts = round((piece.shown - origin) / packet.time_base)
                packet.dts = round((piece.due - origin) / packet.time_base)
                packet.stream = copies[piece.stream_index]
                output.mux(packet)
        start_seconds, end_seconds = float(origin - self._zero), float(end - self._zero)
        return Cut(target, self._segment, start_seconds, end_seconds)

    def _from_key_frame(self) -> Iterator[_Piece]:
        """What follows the last key frame that is shown by the segment's start, it first."""
        # Before the first frame: it, too, is stored earlier than it is shown.
        earliest = self._zero - _STEP_BACK_SECONDS
        step = 0
        while True:
            sought = max(earliest, self._start - step)
            self._container.seek(int(sought / self._time_base), stream=self._video, backward=True)
            pieces = self._demux()
            held = self._last_group(pieces)
            # A seek goes by the order of storage, in some containers roughly: it may be too late.
            if held and (held[0].shown <= self._start or sought == earliest):
                yield from held
                yield from pieces
                return
            if sought == earliest:
                raise InvalidVideo(f"{self._name} has no key frame that a clip could begin with")
            step = 2 * step or _STEP_BACK_SECONDS

    def _last_group(self, pieces: Iterator[_Piece]) -> list[_Piece]:
        """The last key frame that is shown by the segment's start, else the first one, and on."""
        held: list[_Piece] = []
        for piece in pieces:
            is_video = piece.stream_index == self._video.index
            if is_video and piece.packet.is_keyframe and (not held or piece.shown <= self._start):
                held = [piece]
            elif held:
                held.append(piece)
            if held and is_video and piece.due > self._start:
                break
        return held

    def _demux(self) -> Iterator[_Piece]:
        # Matroska has no times of decoding: after a seek the first ones are not known yet.
        waiting: list[Packet[Stream]] = []
        for packet in self._container.demux(*self._kept):
            # The packet without any time is the end of a stream.
            if packet.dts is not None:
                yield from _with_due_before(packet.dts, waiting)
                waiting = []
                no_other = packet.pts is None or self._stamps_are_decode_times
                yield _piece(packet, packet.dts if no_other else packet.pts or 0, packet.dts)
            elif packet.pts is not None:
                waiting.append(packet)
        if waiting:
            yield from _with_due_before(min(one.pts or 0 for one in waiting) + 1, waiting)

    def _until_the_end(self, first: _Piece, pieces: Iterator[_Piece]) -> Iterator[_Piece]:
        """Those that are due before the segment ends, of every stream."""
        yield first
        still_open = {one.index for one in self._kept}
        for piece in pieces:
            if piece.due < self._end:
                yield piece
                continue
            still_open.discard(piece.stream_index)
            if not still_open or piece.due > self._end + Fraction(_SOUND_LAG_SECONDS):
                return


def _with_due_before(due: int, waiting: Sequence[Packet[Stream]]) -> Iterator[_Piece]:
    """Packets that are to be decoded one after the other before the tick `due`."""
    for number, packet in enumerate(waiting):
        early = (len(waiting) - number) * (packet.duration or 1)
        shown = packet.pts or 0
        yield _piece(packet, shown, min(shown, due - early))


def _piece(packet: Packet[Stream], shown: int, due: int) -> _Piece:
    return _Piece(packet, shown * packet.time_base, due * packet.time_base)
