"""A child's whole life: lock itself down, decode one video into shared memory, end."""

from __future__ import annotations

import importlib
import io
import math
import mmap
import os
import socket
import time
import traceback
from collections.abc import Iterator
from typing import TypeVar

import av
import numpy as np
from numpy.typing import NDArray

from backtal.errors import InvalidArgument, InvalidVideo, LimitExceeded
from backtal.manifest import ClipPlan
from backtal.settings import Settings
from backtal.video.declared_fields import MAX_TEXT
from backtal.video.limits import VideoLimits
from backtal.video.pyav import PyavVideo
from backtal.video.sandbox.channel import MAX_PAYLOAD_BYTES, Closed, Parcel, receive, send
from backtal.video.sandbox.lockdown import LockdownRefused, limit_resources, lock_down
from backtal.video.sandbox.messages import (
    ORDERS,
    Crashed,
    Decode,
    Failed,
    Finished,
    Next,
    Open,
    Opened,
    Read,
    Ready,
    WindowReady,
)
from backtal.video.sandbox.remote import RemoteFile
from backtal.video.sandbox.settings import DecodeSettings
from backtal.video.source import Source, open_source
from backtal.video.window import Window

# PyAV imports these when a file has such a stream; then it would be too late.
_LATE_MODULES = ("av.audio.codeccontext", "av.subtitles.codeccontext", "av.video.codeccontext")
_WARM_UP_SIZE = 64
_WARM_UP_FRAMES = 4


def warm_up() -> None:
    """Decode a tiny clip, so that nothing is left to import, or to look up, after the lockdown."""
    for name in _LATE_MODULES:
        importlib.import_module(name)
    plan = ClipPlan(short_side_pixels=32, crop_pixels=32)
    source = open_source(_tiny_clip(), VideoLimits())
    video = PyavVideo(source, VideoLimits(), 1)
    for window in video.windows(plan):
        WindowReady(
            presentation_seconds=tuple(window.presentation_seconds.tolist()),
            end_seconds=window.end_seconds,
            cpu_seconds=time.process_time(),
        ).model_dump_json()
    Opened.of(video.description).model_dump_json()
    video.close()


def run_child(connection: socket.socket, settings: DecodeSettings) -> None:
    """Serve one video to the other side of `connection`."""
    try:
        _tell(connection, _lock_down(settings))
        _Child(connection).serve()
    except Closed:
        return
    except MemoryError:
        allowed = settings.max_memory_bytes
        too_much = LimitExceeded(f"decoding takes more memory than the {allowed} bytes allowed")
        _tell(connection, Failed.of(too_much))
    except (InvalidVideo, LimitExceeded, InvalidArgument) as error:
        _tell(connection, Failed.of(error))
    except Exception as error:
        # Not to the log: after the lockdown no file may grow, and the log may be one.
        where = traceback.format_exception(error)
        _tell(connection, Crashed(reason="".join(where)[-MAX_TEXT:]))


def _lock_down(settings: DecodeSettings) -> Ready:
    try:
        lockdown = lock_down(settings.max_memory_bytes)
    except LockdownRefused as error:
        limit_resources(settings.max_memory_bytes)
        return Ready(refused=str(error)[:MAX_TEXT])
    return Ready(landlock_version=lockdown.landlock_version)


OrderType = TypeVar("OrderType", bound=Settings)


class _Slots:
    """The shared memory: room for `num_slots` windows, each of `window_frames` squares."""

    def __init__(self, decode: Decode, descriptor: int) -> None:
        size = decode.plan.crop_pixels
        shape = (decode.num_slots, decode.window_frames, size, size, 3)
        memory = mmap.mmap(descriptor, math.prod(shape), access=mmap.ACCESS_WRITE)
        self._pixels = np.frombuffer(memory, np.uint8).reshape(shape)
        os.close(descriptor)

    def write(self, slot: int, frames: NDArray[np.uint8]) -> None:
        self._pixels[slot, : len(frames)] = frames


class _Child:
    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def serve(self) -> None:
        order, parcel = self._next_order(Open)
        descriptor = parcel.descriptors[0] if parcel.descriptors else None
        file = RemoteFile(self._read, order.num_bytes) if order.is_remote else None
        source = Source(order.name, descriptor, order.num_bytes, file)
        video = PyavVideo(source, order.limits, order.threads)
        _tell(self._connection, Opened.of(video.description))
        decode, parcel = self._next_order(Decode)
        slots = _Slots(decode, parcel.descriptors[0])
        windows = video.windows(
            decode.plan, window_frames=decode.window_frames, allow_partial=decode.allow_partial
        )
        self._decode(windows, slots)
        _tell(self._connection, Finished.of(video.report))

    def _decode(self, windows: Iterator[Window], slots: _Slots) -> None:
        while True:
            order, _ = self._next_order(Next)
            window = next(windows, None)
            if window is None:
                return
            slots.write(order.slot, window.frames)
            times = tuple(window.presentation_seconds.tolist())
            ready = WindowReady(
                presentation_seconds=times,
                end_seconds=window.end_seconds,
                cpu_seconds=time.process_time(),
            )
            _tell(self._connection, ready)

    def _next_order(self, kind: type[OrderType]) -> tuple[OrderType, Parcel]:
        parcel = receive(self._connection, with_descriptors=True)
        order = ORDERS.validate_json(parcel.text)
        if not isinstance(order, kind):
            raise TypeError(f"expected {kind.__name__}, got {order.kind}")
        return order, parcel

    def _read(self, offset: int, num_bytes: int) -> bytes:
        _tell(self._connection, Read(offset=offset, num_bytes=num_bytes))
        return receive(self._connection, max_payload_bytes=MAX_PAYLOAD_BYTES).payload


def _tell(connection: socket.socket, message: Settings) -> None:
    send(connection, message.model_dump_json().encode())


def _tiny_clip() -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = _WARM_UP_SIZE
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1
        black = np.zeros((_WARM_UP_SIZE, _WARM_UP_SIZE, 3), np.uint8)
        for number in range(_WARM_UP_FRAMES):
            frame = av.VideoFrame.from_ndarray(black, format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()
