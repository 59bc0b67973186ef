"""Lends a child to each video, one of them always forked beforehand."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from backtal.errors import DecoderUnavailable, MissingDependency, ServiceBusy, Unavailable
from backtal.video.limits import VideoLimits
from backtal.video.sandbox.channel import Closed, TimedOut, receive, send
from backtal.video.sandbox.messages import Reap, Reaped, Spawn, Spawned
from backtal.video.sandbox.settings import DecodeSettings
from backtal.video.sandbox.video import IsolatedVideo
from backtal.video.sandbox.worker import ChildDied, Worker
from backtal.video.source import Source

START_TIMEOUT_SECONDS = 60.0
END_TIMEOUT_SECONDS = 5.0
RETRY_AFTER_SECONDS = 1.0
# The zygote gets no other variable: it has no use for the keys of an object store.
PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR")


class DecoderPool:
    """Decoding children of one zygote. A context manager; may be used by several threads.

    The kernel ends the children when this process ends, whatever ended it. num_deaths: of
    children and their parents that ended before their time and were replaced.
    """

    def __init__(self, settings: DecodeSettings | None = None) -> None:
        self.settings = settings or DecodeSettings()
        self._lock = threading.Lock()
        self._zygote: _Zygote | None = None
        self._warm: Worker | None = None
        self._lent: set[Worker] = set()
        self._is_closed = False
        self.num_deaths = 0

    def __enter__(self) -> DecoderPool:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def process_ids(self) -> tuple[int, ...]:
        """Of the children that decode now."""
        return tuple(worker.process_id for worker in self._lent)

    @property
    def zygote_process_id(self) -> int | None:
        """Of the children's parent, None where none was started."""
        return None if self._zygote is None else self._zygote.process_id

    def start(self) -> None:
        """Start the zygote and a first child, and see that the lockdown works.

        Raises MissingDependency where the kernel refuses the lockdown and the settings do not
        allow to go without.
        """
        with self._lock:
            if self._warm is None:
                self._warm = self._ready_worker()

    def open(self, source: Source, limits: VideoLimits) -> IsolatedVideo:
        """Open a video in a child of its own; `Video.close` gives the child back.

        Raises what `open_video` raises, and ServiceBusy where all children are at work.
        """
        return IsolatedVideo(self, source, limits)

    def lend(self) -> Worker:
        """A fresh child, locked down. Raises Unavailable, MissingDependency."""
        with self._lock:
            if len(self._lent) >= self.settings.max_processes:
                raise ServiceBusy(
                    f"{len(self._lent)} videos are being decoded, allowed are "
                    f"{self.settings.max_processes} at once",
                    retry_after_seconds=RETRY_AFTER_SECONDS,
                )
            worker, self._warm = self._warm, None
            if worker is not None and not worker.is_alive():
                worker.end()
                self.num_deaths += 1
                worker = None
            worker = worker or self._ready_worker()
            self._lent.add(worker)
            return worker

    def mourn(self) -> None:
        """Count a child that died while it was lent."""
        with self._lock:
            self.num_deaths += 1

    def take_back(self, worker: Worker) -> None:
        """End a child that was lent, and fork one for the next video."""
        worker.end()
        with self._lock:
            self._lent.discard(worker)
            if self._warm is None and not self._is_closed:
                # The next video asks again, and tells its caller.
                with suppress(Unavailable, MissingDependency):
                    self._warm = self._ready_worker()

    def close(self) -> None:
        """End all children and their parent."""
        with self._lock:
            self._is_closed = True
            for worker in (*self._lent, *([self._warm] if self._warm else [])):
                worker.end()
            self._lent.clear()
            self._warm = None
            if self._zygote is not None:
                self._zygote.end()
                self._zygote = None

    def _ready_worker(self) -> Worker:
        try:
            return self._spawn()
        except (Closed, TimedOut, ChildDied):
            # The zygote was ended from outside: a new one.
            if self._zygote is not None:
                self._zygote.end()
                self._zygote = None
            self.num_deaths += 1
        try:
            return self._spawn()
        except (Closed, TimedOut, ChildDied) as error:
            raise DecoderUnavailable(
                f"no decoder's process can be had: {error}",
                retry_after_seconds=RETRY_AFTER_SECONDS,
            ) from None

    def _spawn(self) -> Worker:
        if self._is_closed:
            raise DecoderUnavailable("the decoders are closed")
        if self._zygote is None:
            self._zygote = _Zygote()
        worker = self._zygote.spawn(self.settings)
        refused = worker.wait_ready().refused
        if refused and not self.settings.allow_unconfined:
            worker.end()
            raise MissingDependency(
                f"this kernel refuses to lock decoders down ({refused}): untrusted videos would "
                "be decoded with all the rights of this process. allow_unconfined does so anyway"
            )
        return worker


class _Zygote:
    """The process that forks children, and the one question at a time that it is asked."""

    def __init__(self) -> None:
        if sys.platform != "linux":
            raise MissingDependency(f"isolated decoding needs Linux, this is {sys.platform}")
        self._lock = threading.Lock()
        self._control, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "backtal.video.sandbox.zygote", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env=_environment(),
                cwd=_package_parent(),
            )

    @property
    def process_id(self) -> int:
        return self._process.pid

    def spawn(self, settings: DecodeSettings) -> Worker:
        ours, theirs = socket.socketpair()
        with theirs:
            order = Spawn(settings_json=settings.model_dump_json())
            try:
                text = self._ask(order.model_dump_json(), (theirs.fileno(),))
            except BaseException:
                ours.close()
                raise
        spawned = Spawned.model_validate_json(text)
        if spawned.problem:
            ours.close()
            raise DecoderUnavailable(spawned.problem, retry_after_seconds=RETRY_AFTER_SECONDS)
        return Worker(ours, spawned.process_id, self._reap, settings.window_timeout_seconds)

    def end(self) -> None:
        self._control.close()
        try:
            self._process.wait(END_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _reap(self, process_id: int, patience_seconds: float) -> Reaped:
        order = Reap(process_id=process_id, patience_seconds=patience_seconds)
        return Reaped.model_validate_json(self._ask(order.model_dump_json()))

    def _ask(self, order: str, descriptors: tuple[int, ...] = ()) -> bytes:
        with self._lock:
            send(self._control, order.encode(), descriptors=descriptors)
            deadline = time.monotonic() + START_TIMEOUT_SECONDS
            return receive(self._control, deadline=deadline).text


def _environment() -> dict[str, str]:
    passed_on = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    return {
        **passed_on,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        # One thread, which can be forked; and little address space for what threads are to come.
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "2",
    }


def _package_parent() -> Path:
    import backtal

    return Path(backtal.__file__).resolve().parents[1]
