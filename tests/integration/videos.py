"""Real video files, sound and broken, made by PyAV for the tests of the server."""

from __future__ import annotations

import io
import tempfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

FRAMES_PER_SECOND = 25
_WIDTH, _HEIGHT = 128, 96


def moving_colours(seconds: float, *, seed: int = 0) -> bytes:
    """An H.264 mp4, its index in front: colours that change by the second."""
    random = np.random.default_rng(seed)
    num_frames = round(seconds * FRAMES_PER_SECOND)
    colours = random.integers(0, 256, (num_frames // FRAMES_PER_SECOND + 2, 3))
    # By its name: for the index in front, FFmpeg reads the file again.
    with (
        tempfile.NamedTemporaryFile(suffix=".mp4") as file,
        av.open(file.name, "w", options={"movflags": "faststart"}) as container,
    ):
        stream = container.add_stream("libx264", rate=FRAMES_PER_SECOND)
        stream.width, stream.height, stream.pix_fmt = _WIDTH, _HEIGHT, "yuv420p"
        stream.options = {"preset": "ultrafast", "g": "25"}
        stream.time_base = Fraction(1, FRAMES_PER_SECOND)
        for index in range(num_frames):
            image = np.empty((_HEIGHT, _WIDTH, 3), np.uint8)
            image[:] = colours[index // FRAMES_PER_SECOND]
            image[:, index % _WIDTH] = 255 - image[:, index % _WIDTH]
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        container.close()
        return Path(file.name).read_bytes()


def sound_only(seconds: float = 1.0) -> bytes:
    """An mp4 with an AAC stream and no other."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        samples = np.zeros((1, round(16000 * seconds)), np.float32)
        for start in range(0, samples.shape[1], 1024):
            block = np.ascontiguousarray(samples[:, start : start + 1024])
            frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16000, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def truncated(video: bytes) -> bytes:
    """The file without its last third: the index in front still declares the whole."""
    return video[: len(video) * 2 // 3]


def without_frames(video: bytes) -> bytes:
    """The file with its declared frames, and nothing but zeros where they should be."""
    start = video.index(b"mdat") + 4
    return video[:start] + bytes(len(video) - start)


def repeated(data: bytes, times: int) -> bytes:
    """The packets of a file of `moving_colours`, one recording after another."""
    output = io.BytesIO()
    with av.open(io.BytesIO(data)) as source, av.open(output, "w", format="mp4") as target:
        packets = [packet for packet in source.demux(video=0) if packet.dts is not None]
        stream = target.add_stream_from_template(source.streams.video[0])
        length = sum(packet.duration or 0 for packet in packets)
        for turn in range(times):
            for packet in packets:
                moved = av.Packet(bytes(packet))
                moved.time_base, moved.stream = packet.time_base, stream
                moved.pts = (packet.pts or 0) + turn * length
                moved.dts = (packet.dts or 0) + turn * length
                moved.duration, moved.is_keyframe = packet.duration, packet.is_keyframe
                target.mux(moved)
    return output.getvalue()
