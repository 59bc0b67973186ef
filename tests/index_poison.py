"""Answerers of worker processes that some videos hang or kill, by their names."""

from __future__ import annotations

import os
import re
import signal
import time
from dataclasses import dataclass

from backtal.detection import DetectionAnswer
from backtal.errors import InvalidVideo
from backtal.segments import Segment
from backtal_indexing.answering import Answerer, Service
from tests.unit.index_fakes import SHA, provenance


@dataclass(frozen=True)
class Poisoned:
    """As `inner`, but for videos whose name says what they do; without it all others are done."""

    inner: Service | None = None

    def connect(self) -> Answerer:
        return PoisonedAnswerer(None if self.inner is None else self.inner.connect())


class PoisonedAnswerer:
    def __init__(self, inner: Answerer | None) -> None:
        self._inner = inner

    def answer(self, uri: str, timeout_seconds: float) -> DetectionAnswer:
        name = uri.rpartition("/")[2]
        if name.startswith("hangs"):
            time.sleep(3600)
        if name.startswith("locks"):
            # In C, with the interpreter's lock: no thread of Python runs meanwhile.
            re.match(r"(a+)+$", "a" * 60 + "b")
        if name.startswith("kills"):
            os.kill(os.getpid(), signal.SIGKILL)
        if name.startswith("invalid"):
            raise InvalidVideo(f"{uri} holds no video stream")
        if self._inner is not None:
            return self._inner.answer(uri, timeout_seconds)
        segments = (Segment(0.5, 1.5, "jump", 0.75),)
        return DetectionAnswer(segments, duration_seconds=2.0, provenance=provenance(SHA))

    def is_ready(self) -> bool:
        return self._inner is None or self._inner.is_ready()
