"""The video that the pipeline sees, decoded by a child that may die."""

from __future__ import annotations

import fcntl
import math
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from backtal.manifest import ClipPlan
from backtal.video.limits import VideoLimits
from backtal.video.sandbox.messages import Decode, Finished, Next, Open, Opened, WindowReady
from backtal.video.sandbox.worker import ChildDied, Worker
from backtal.video.source import Source
from backtal.video.window import DecodeReport, VideoDescription, Window

if TYPE_CHECKING:
    from backtal.video.sandbox.pool import DecoderPool

# One is decoded while the other is looked at.
NUM_SLOTS = 2
LIVES = 2


class IsolatedVideo:
    """A video decoded in a child of `pool`; see `Video`.

    A child that dies is replaced once: decoding starts again, and the windows that were given
    before are not given twice. Raises what PyavVideo raises; InvalidVideo where a child crashes
    again, Unavailable where it is ended from outside again, or where the pool is full;
    LimitExceeded for a window that takes too long.
    """

    decoder = "pyav"

    def __init__(self, pool: DecoderPool, source: Source, limits: VideoLimits) -> None:
        self._pool = pool
        self._source = source
        self._limits = limits
        self._worker: Worker | None = None
        self._lives_left = LIVES
        self._report: DecodeReport | None = None
        try:
            with self._one_life():
                self.description = self._open()
            if self._worker is None:
                with self._one_life():
                    self.description = self._open()
        except BaseException:
            self._give_back()
            raise

    @property
    def report(self) -> DecodeReport:
        """What decoding found, once the windows are exhausted."""
        if self._report is None:
            raise RuntimeError("the windows of this video are not exhausted")
        return self._report

    def close(self) -> None:
        """Give the child back and close the file."""
        self._give_back()
        self._source.close()

    def windows(
        self, plan: ClipPlan, *, window_frames: int = 64, allow_partial: bool = False
    ) -> Iterator[Window]:
        """See `Video.windows`."""
        order = Decode(
            plan=plan,
            window_frames=window_frames,
            num_slots=NUM_SLOTS,
            allow_partial=allow_partial,
        )
        num_given = 0
        while self._report is None:
            with self._one_life():
                if self._worker is None:
                    self._open()
                for window in islice(self._decode(order), num_given, None):
                    num_given += 1
                    yield window

    @contextmanager
    def _one_life(self) -> Iterator[None]:
        """What a child may die in: it is done again by a fresh one, the first time."""
        try:
            yield
        except ChildDied as died:
            self._pool.mourn()
            self._give_back()
            self._lives_left -= 1
            if not self._lives_left:
                raise died.verdict(self._source.name) from None

    def _give_back(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            self._pool.take_back(worker)

    def _open(self) -> VideoDescription:
        self._worker = worker = self._pool.lend()
        source = self._source
        descriptors = () if source.descriptor is None else (source.descriptor,)
        if source.descriptor is not None:
            # The offset is shared with the child that had it before.
            os.lseek(source.descriptor, 0, os.SEEK_SET)
        order = Open(
            name=source.name,
            num_bytes=source.num_bytes,
            is_remote=source.remote is not None,
            limits=self._limits,
            threads=self._pool.settings.threads,
        )
        worker.order(order, descriptors)
        reply = worker.reply(source.name, source.remote)
        if not isinstance(reply, Opened):
            raise ChildDied(f"it said {reply.kind}", from_outside=False)
        about = reply.description(source.name, source.num_bytes)
        # Told by a child, hence looked at again.
        self._limits.check_pixels(about.name, about.width, about.height)
        self._limits.check_duration(about.name, about.duration_seconds or 0.0)
        return about

    def _decode(self, order: Decode) -> Iterator[Window]:
        assert self._worker is not None
        worker = self._worker
        with _SharedWindows(order) as shared:
            worker.order(order, (shared.descriptor,))
            slot, end_seconds = 0, 0.0
            worker.order(Next(slot=slot))
            while True:
                reply = worker.reply(self._source.name, self._source.remote)
                if isinstance(reply, Finished):
                    self._check_finished(reply)
                    self._report = reply.report()
                    return
                if not isinstance(reply, WindowReady):
                    raise ChildDied(f"it said {reply.kind}", from_outside=False)
                self._check_times(reply, end_seconds)
                end_seconds = reply.end_seconds
                following = (slot + 1) % NUM_SLOTS
                worker.order(Next(slot=following))
                yield shared.window(slot, reply)
                slot = following

    def _check_times(self, reply: WindowReady, start_seconds: float) -> None:
        """A child that was taken over must not send us round in circles, or for years."""
        times = np.array([*reply.presentation_seconds, reply.end_seconds])
        if times[0] < start_seconds or not (np.diff(times) > 0).all():
            raise ChildDied("it gave times that do not rise", from_outside=False)
        self._limits.check_duration(self._source.name, reply.end_seconds)

    def _check_finished(self, reply: Finished) -> None:
        self._limits.check_duration(self._source.name, reply.duration_seconds)
        self._limits.check_frames(self._source.name, reply.num_frames)


class _SharedWindows:
    """Memory of `num_slots` windows that a child writes and we read; it cannot shrink it."""

    def __init__(self, order: Decode) -> None:
        size = order.plan.crop_pixels
        self._shape = (order.num_slots, order.window_frames, size, size, 3)
        num_bytes = math.prod(self._shape)
        self.descriptor = os.memfd_create("windows", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self.descriptor, num_bytes)
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
            fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, seals)
            self._memory = mmap.mmap(self.descriptor, num_bytes, access=mmap.ACCESS_READ)
        except BaseException:
            os.close(self.descriptor)
            raise

    def __enter__(self) -> _SharedWindows:
        return self

    def __exit__(self, *_: object) -> None:
        # A view of a window may be on its way; the memory goes with the last of them.
        with suppress(BufferError):
            self._memory.close()
        os.close(self.descriptor)

    def window(self, slot: int, reply: WindowReady) -> Window:
        """A copy of a window: its slot is written again."""
        num_frames = len(reply.presentation_seconds)
        if num_frames > self._shape[1]:
            raise ChildDied(f"it gave a window of {num_frames} frames", from_outside=False)
        pixels = np.frombuffer(self._memory, np.uint8).reshape(self._shape)
        times = np.array(reply.presentation_seconds)
        return Window(times, pixels[slot, :num_frames].copy(), reply.end_seconds)
