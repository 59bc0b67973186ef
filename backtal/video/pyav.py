"""The default decoder, and the only one for files that are not trusted: PyAV."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from backtal.clips import TICK_TOLERANCE_SECONDS, needs_frame
from backtal.errors import InvalidVideo
from backtal.manifest import ClipPlan
from backtal.video.declared import check_span, nothing_decoded
from backtal.video.graph import Scaler
from backtal.video.limits import VideoLimits
from backtal.video.source import Source
from backtal.video.timeline import Timeline
from backtal.video.window import DecodeReport, VideoDescription, Window

DEMUXERS = "mov,matroska,avi,mpegts,mpeg,flv,asf,ogg,gif"
MAX_DECODER_THREADS = 4
MATROSKA_DURATION = re.compile(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)")


class PyavVideo:
    """A file opened by PyAV; see `Video`."""

    decoder = "pyav"

    def __init__(self, source: Source, limits: VideoLimits, threads: int | None = None) -> None:
        self._source = source
        self._limits = limits
        self._container = open_container(source, limits)
        self._report: DecodeReport | None = None
        try:
            limits.check_streams(source.name, len(self._container.streams))
            self._stream = video_stream(self._container, source.name)
            self._stream.codec_context.options = {"max_pixels": str(limits.max_pixels)}
            self._stream.thread_type = "AUTO"
            cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 4
            self._stream.codec_context.thread_count = threads or min(MAX_DECODER_THREADS, cores)
            self.description = _describe(source, self._container, self._stream)
            limits.check_pixels(source.name, self.description.width, self.description.height)
            limits.check_duration(source.name, self.description.duration_seconds or 0.0)
            limits.check_frames(source.name, self.description.num_frames or 0)
        except BaseException:
            self._container.close()
            raise

    @property
    def report(self) -> DecodeReport:
        """What decoding found, once the windows are exhausted."""
        if self._report is None:
            raise RuntimeError("the windows of this video are not exhausted")
        return self._report

    def close(self) -> None:
        """Close the container and the file."""
        self._container.close()
        self._source.close()

    def first_rotation_degrees(self) -> int:
        """What the first frame says of its rotation. The windows cannot be read afterwards."""
        decoding = _Decoding(self, self._limits, self._container, self._stream, True)
        return next(frame.rotation for _, _, frame in decoding.frames_on_show())

    def windows(
        self, plan: ClipPlan, *, window_frames: int = 64, allow_partial: bool = False
    ) -> Iterator[Window]:
        """See `Video.windows`."""
        decoding = _Decoding(self, self._limits, self._container, self._stream, allow_partial)
        aspect = self.description.sample_aspect_ratio
        scaler = Scaler(self._source.name, plan, self._limits, aspect)
        times: list[float] = []
        frames: list[NDArray[np.uint8]] = []
        end = 0.0
        for start, end, frame in decoding.frames_on_show():
            if len(frames) == window_frames:
                yield Window(np.array(times), np.stack(frames), start)
                times, frames = [], []
            if needs_frame(plan, start, end):
                times.append(start)
                frames.append(scaler(frame))
        self._report = decoding.check_against_declared(end)
        if frames:
            yield Window(np.array(times), np.stack(frames), end)


class _Decoding:
    """One pass over the frames: their times, and whether they are what the file declares."""

    def __init__(
        self,
        video: PyavVideo,
        limits: VideoLimits,
        container: InputContainer,
        stream: VideoStream,
        allow_partial: bool,
    ) -> None:
        self._description = video.description
        self._limits = limits
        self._container = container
        self._stream = stream
        self._allow_partial = allow_partial
        self._time_base = stream.time_base or Fraction(1, av.time_base)
        rate = stream.guessed_rate or stream.average_rate
        self._nominal_seconds = float(1 / rate) if rate else 0.04
        self._timeline = Timeline(self._nominal_seconds)
        self._stamps_are_decode_times = container.format.name == "avi"
        self._reached_seconds = 0.0
        self._num_damaged = 0
        self._last_damage = ""
        self._num_flagged = 0
        self._is_encrypted = False
        self._other_streams_end = 0.0

    def frames_on_show(self) -> Iterator[tuple[float, float, VideoFrame]]:
        """Each frame with the seconds from which and until which it is on show."""
        held: tuple[float, VideoFrame] | None = None
        for frame in self._frames():
            start = self._timeline.add(self._stamp(frame), self._time_base)
            self._limits.check_duration(self._description.name, start)
            self._limits.check_frames(self._description.name, self._timeline.num_frames)
            self._reached_seconds = start
            if held is not None:
                self._limits.check_frame_seconds(self._description.name, start - held[0])
                yield held[0], start, held[1]
            held = start, frame
        if held is None:
            raise nothing_decoded(self._description, self._why_nothing())
        start, frame = held
        lasts = float((frame.duration or 0) * self._time_base)
        end = start + (lasts if lasts > 0 else self._nominal_seconds)
        self._limits.check_duration(self._description.name, end)
        self._limits.check_frame_seconds(self._description.name, end - start)
        yield start, end, frame

    def check_against_declared(self, end_seconds: float) -> DecodeReport:
        """The report. Raises InvalidVideo for what fell short, unless that is allowed."""
        name = self._description.name
        if end_seconds <= TICK_TOLERANCE_SECONDS:
            raise InvalidVideo(
                f"{name} lasts {end_seconds:g} s: too short to show anything",
                problem="nothing_decoded",
            )
        warnings = list(self._check_span(end_seconds))
        if self._num_damaged:
            warnings.append(
                f"{self._num_damaged} packets could not be decoded: {self._last_damage}"
            )
        if self._num_flagged:
            warnings.append(f"{self._num_flagged} frames are marked as damaged by the decoder")
        if self._timeline.num_restamped:
            warnings.append(f"{self._timeline.num_restamped} frames had no usable time stamp")
        return DecodeReport(self._timeline.num_frames, end_seconds, tuple(warnings))

    def _stamp(self, frame: VideoFrame) -> int | None:
        # AVI has no presentation times: what FFmpeg makes up for them steps backwards.
        if self._stamps_are_decode_times and frame.dts is not None:
            return frame.dts
        return frame.pts

    def _frames(self) -> Iterator[VideoFrame]:
        for packet in self._packets():
            try:
                frames = packet.decode()
            except FFmpegError as error:
                self._is_encrypted |= packet.has_sidedata("encryption_info")
                self._damaged(error)
                continue
            for frame in frames:
                if not isinstance(frame, VideoFrame):
                    continue
                self._limits.check_pixels(self._description.name, frame.width, frame.height)
                self._num_flagged += bool(frame.is_corrupt)
                yield frame

    def _packets(self) -> Iterator[Any]:
        """The video's packets; the others' only where they tell how far the file reaches."""
        every = self._description.duration_seconds is not None and not _declares_duration(
            self._stream
        )
        packets = self._demux(every)
        while True:
            try:
                packet: Any = next(packets, None)
            except FFmpegError as error:
                self._damaged(error)
                return
            except IndexError:
                # PyAV knows no stream that begins in the middle of a file; it is not ours.
                packets = self._demux(every)
                continue
            if packet is None:
                return
            if packet.stream.index == self._stream.index:
                yield packet
            elif packet.pts is not None:
                end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
                self._other_streams_end = max(self._other_streams_end, end)

    def _demux(self, every: bool) -> Iterator[Any]:
        return self._container.demux() if every else self._container.demux(self._stream)

    def _damaged(self, error: FFmpegError) -> None:
        self._num_damaged += 1
        self._last_damage = error.strerror or str(error)
        # Players, too, wait for the first frame that they can show.
        if self._timeline.num_frames and not self._allow_partial:
            raise InvalidVideo(
                f"{self._description.name} is damaged after {self._reached_seconds:.2f} s: "
                f"{self._last_damage}; allow_partial answers for what can be decoded",
                problem="damaged",
            )

    def _check_span(self, end_seconds: float) -> tuple[str, ...]:
        declared = self._description.duration_seconds or 0.0
        if not _declares_duration(self._stream) and self._other_streams_end >= declared - 1.0 > 0:
            # Only the file's length is declared, and its sound goes on without pictures.
            return ()
        return check_span(
            self._description,
            end_seconds,
            nominal_frame_seconds=self._nominal_seconds,
            allow_partial=self._allow_partial,
        )

    def _why_nothing(self) -> str:
        return "it is encrypted" if self._is_encrypted else self._last_damage


def open_container(source: Source, limits: VideoLimits) -> InputContainer:
    """FFmpeg's view of a file, with all doors to others closed. Raises InvalidVideo."""
    options = {
        # A file object closes no door by itself: a playlist would open its neighbours.
        "protocol_whitelist": "fd",
        "format_whitelist": DEMUXERS,
        "max_pixels": str(limits.max_pixels),
    }
    try:
        # Titles in another encoding than UTF-8 are no reason to refuse a video.
        if source.file is not None:
            return av.open(source.file, mode="r", options=options, metadata_errors="replace")
        options["fd"] = str(source.descriptor)
        return av.open("fd:", mode="r", options=options, metadata_errors="replace")
    except FFmpegError as error:
        raise InvalidVideo(
            f"{source.name} ({source.num_bytes} bytes) is no video that can be read "
            f"({error.strerror}); allowed are {DEMUXERS}"
        ) from None


def video_stream(container: InputContainer, name: str) -> VideoStream:
    """The stream that is the video: no cover picture. Raises InvalidVideo where there is none."""
    for stream in container.streams.video:
        is_cover = stream.disposition & Disposition.attached_pic
        if not is_cover and stream.codec_context is not None:
            return stream
    kinds = ", ".join(stream.type for stream in container.streams) or "nothing"
    raise InvalidVideo(
        f"{name} has no video stream that can be decoded, it has: {kinds}",
        problem="no_video_stream",
    )


def _describe(source: Source, container: InputContainer, stream: VideoStream) -> VideoDescription:
    context = stream.codec_context
    rate = stream.average_rate or stream.guessed_rate
    if not (context.width > 0 and context.height > 0):
        raise InvalidVideo(f"{source.name} has frames of {context.width}x{context.height} pixels")
    return VideoDescription(
        name=source.name,
        num_bytes=source.num_bytes,
        container=container.format.name,
        codec=context.name,
        width=context.width,
        height=context.height,
        sample_aspect_ratio=stream.sample_aspect_ratio or Fraction(1),
        duration_seconds=_declared_seconds(container, stream),
        num_frames=stream.frames or None,
        frames_per_second=float(rate) if rate else None,
    )


def _declared_seconds(container: InputContainer, stream: VideoStream) -> float | None:
    if stream.duration and stream.time_base:
        return max(0.0, float(stream.duration * stream.time_base)) or None
    if found := MATROSKA_DURATION.fullmatch(stream.metadata.get("DURATION", "")):
        end_seconds = int(found[1]) * 3600 + int(found[2]) * 60 + float(found[3])
    else:
        end_seconds = (container.duration or 0) / av.time_base
    # Here it is the time of the end, wherever the pictures begin.
    start_seconds = float((stream.start_time or 0) * (stream.time_base or 0))
    return max(0.0, end_seconds - max(0.0, start_seconds)) or None


def _declares_duration(stream: VideoStream) -> bool:
    return bool(stream.duration) or "DURATION" in stream.metadata
