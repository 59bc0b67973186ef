"""Small video files made by PyAV: every frame a grey of its own, so that it can be told apart."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 64, 48
GREY_STEP = 5


def grey_of(number: int) -> int:
    """The grey level of frame `number`; for up to 48 frames all differ."""
    return 10 + GREY_STEP * number


def number_of(frame: NDArray[np.uint8]) -> int:
    """Which frame this is, by its grey level."""
    return round((float(frame.mean()) - 10) / GREY_STEP)


@dataclass(frozen=True)
class Layout:
    """How a file is written. `stamps` are presentation times in ticks of `time_base`."""

    stamps: Sequence[int]
    time_base: Fraction = Fraction(1, 25)
    rate: int = 25
    container: str = "mp4"
    codec: str = "libx264"
    size: tuple[int, int] = (WIDTH, HEIGHT)
    b_frames: int = 0
    key_frame_every: int = 12
    sample_aspect_ratio: Fraction | None = None
    movflags: str = ""
    pix_fmt: str = "yuv420p"
    sound_seconds: float = 0.0


def encode(layout: Layout) -> bytes:
    """The file."""
    options = {"movflags": layout.movflags} if layout.movflags else {}
    # By its name: for an index in front, FFmpeg reads the file again.
    with (
        tempfile.NamedTemporaryFile() as file,
        av.open(file.name, "w", format=layout.container, options=options) as container,
    ):
        stream = container.add_stream(layout.codec, rate=layout.rate)
        stream.width, stream.height = layout.size
        stream.pix_fmt = layout.pix_fmt
        stream.time_base = layout.time_base
        stream.codec_context.time_base = layout.time_base
        stream.codec_context.gop_size = layout.key_frame_every
        if layout.codec == "libx264":
            stream.options = {"preset": "ultrafast", "qp": "5", "bf": str(layout.b_frames)}
        if layout.sample_aspect_ratio is not None:
            stream.codec_context.sample_aspect_ratio = layout.sample_aspect_ratio
        sound = container.add_stream("aac", rate=16000) if layout.sound_seconds else None
        for number, stamp in enumerate(layout.stamps):
            frame = av.VideoFrame.from_ndarray(_picture(number, layout.size), format="rgb24")
            frame.pts, frame.time_base = stamp, layout.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound is not None:
            for start in range(0, round(16000 * layout.sound_seconds), 1024):
                block = av.AudioFrame.from_ndarray(
                    np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
                )
                block.sample_rate, block.pts = 16000, start
                container.mux(sound.encode(block))
            container.mux(sound.encode(None))
        container.close()
        return Path(file.name).read_bytes()


def steady(num_frames: int, **changes: object) -> bytes:
    """`num_frames` at 25 a second, an mp4 unless `changes` say otherwise."""
    return encode(Layout(stamps=range(num_frames), **changes))  # type: ignore[arg-type]


def shifted(data: bytes, *, by_stamps: int, container: str = "mp4") -> bytes:
    """The same packets, with `by_stamps` stream ticks added to their times.

    In an mp4, times below 0 and times that begin later than 0 become an edit list.
    """
    output = io.BytesIO()
    with (
        av.open(io.BytesIO(data)) as source,
        av.open(output, "w", format=container, options={"avoid_negative_ts": "disabled"}) as target,
    ):
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is None or packet.pts is None:
                continue
            packet.pts += by_stamps
            packet.dts += by_stamps
            packet.stream = stream
            target.mux(packet)
    return output.getvalue()


def _picture(number: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    return np.full((size[1], size[0], 3), grey_of(number), np.uint8)
