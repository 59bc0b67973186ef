"""One child, as the pipeline's side sees it."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Callable, Sequence

from pydantic import ValidationError

from backtal.errors import BacktalError, DecoderUnavailable, InvalidVideo, LimitExceeded
from backtal.settings import Settings
from backtal.video.sandbox.channel import Closed, TimedOut, receive, send
from backtal.video.sandbox.messages import (
    REPLIES,
    Crashed,
    Failed,
    Read,
    Ready,
    Reaped,
    Reply,
    WindowReady,
)
from backtal.video.source import RangeReader

# From the end of a child's socket to its end.
DYING_SECONDS = 2.0
# Of a timeout: a child that computed less than this share of it was kept waiting by the machine.
BUSY_SHARE = 0.5
# Of a remote object a decoder reads some parts again, but not without end.
MOST_READINGS = 4
LEAST_READ_BYTES = 64 << 20
# What a process does not do to itself.
OUTSIDE_SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)


class ChildDied(Exception):
    """A child is gone before its time. `from_outside`: something else ended it."""

    def __init__(self, reason: str, *, from_outside: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.from_outside = from_outside

    def verdict(self, name: str) -> BacktalError:
        """The error of the request, where it happened again."""
        if self.from_outside:
            return DecoderUnavailable(
                f"{name}: the decoder's process was ended from outside, twice ({self.reason})",
                retry_after_seconds=1.0,
            )
        return InvalidVideo(
            f"{name} crashed the decoder, twice ({self.reason})", problem="decoder_crashed"
        )


class Worker:
    """A forked child and the socket to it. `reap(patience_seconds)` ends it, once."""

    def __init__(
        self,
        connection: socket.socket,
        process_id: int,
        reap: Callable[[int, float], Reaped],
        window_timeout_seconds: float,
    ) -> None:
        self.process_id = process_id
        self._connection = connection
        self._reap = reap
        self._timeout_seconds = window_timeout_seconds
        self._cpu_seconds = 0.0
        self._read_bytes = 0
        self._ended: Reaped | None = None

    def is_alive(self) -> bool:
        """Whether the child still holds its end of the socket."""
        try:
            return self._connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False

    def wait_ready(self) -> Ready:
        """What the child says once it is locked down. Raises ChildDied, Unavailable."""
        reply = self._reply("the decoder", None)
        if not isinstance(reply, Ready):
            raise self._nonsense(f"it said {reply.kind}")
        return reply

    def order(self, message: Settings, descriptors: Sequence[int] = ()) -> None:
        """Send an order. Raises ChildDied."""
        try:
            send(self._connection, message.model_dump_json().encode(), descriptors=descriptors)
        except Closed as error:
            raise self._died(str(error)) from None

    def reply(self, name: str, remote: RangeReader | None = None) -> Reply:
        """The answer to an order, the child's reads of `remote` served meanwhile.

        Raises ChildDied; the video's own error; LimitExceeded where the child computes for longer
        than a window may take, Unavailable where the machine is too busy to let it.
        """
        reply = self._reply(name, remote)
        if isinstance(reply, Failed):
            raise reply.exception()
        if isinstance(reply, Crashed):
            self.end()
            raise ChildDied(reply.reason, from_outside=False)
        if isinstance(reply, WindowReady):
            self._cpu_seconds = reply.cpu_seconds
        return reply

    def end(self, patience_seconds: float = 0.0) -> Reaped | None:
        """End the child; how it ended, None where nobody can tell any more."""
        self._connection.close()
        if self._ended is None:
            try:
                self._ended = self._reap(self.process_id, patience_seconds)
            except (Closed, TimedOut):
                return None
        return self._ended

    def _reply(self, name: str, remote: RangeReader | None) -> Reply:
        try:
            return self._answer(remote)
        except Closed as error:
            raise self._died(str(error)) from None
        except ValidationError as error:
            raise self._nonsense(str(error)) from None
        except TimedOut:
            raise self._timed_out(name) from None

    def _answer(self, remote: RangeReader | None) -> Reply:
        deadline = time.monotonic() + self._timeout_seconds
        while True:
            parcel = receive(self._connection, deadline=deadline)
            reply = REPLIES.validate_json(parcel.text)
            if not isinstance(reply, Read):
                return reply
            if remote is None or reply.offset + reply.num_bytes > remote.num_bytes:
                raise self._nonsense("it asks for bytes that there are not")
            self._read_bytes += reply.num_bytes
            if self._read_bytes > MOST_READINGS * remote.num_bytes + LEAST_READ_BYTES:
                raise self._nonsense(f"it read {self._read_bytes} bytes of {remote.num_bytes}")
            started = time.monotonic()
            data = remote.read_at(reply.offset, reply.num_bytes)
            # The time of a window is a child's to use, not the network's.
            deadline += time.monotonic() - started
            send(self._connection, b"", data)

    def _died(self, reason: str) -> ChildDied:
        ended = self.end(DYING_SECONDS)
        if ended is None:
            return ChildDied("the decoders' parent process is gone", from_outside=True)
        if ended.was_killed or ended.exit_code >= 0:
            return ChildDied(f"exit code {ended.exit_code}: {reason}", from_outside=False)
        number = -ended.exit_code
        name = signal.Signals(number).name if number in list(signal.Signals) else str(number)
        return ChildDied(name, from_outside=number in OUTSIDE_SIGNALS)

    def _nonsense(self, what: str) -> ChildDied:
        self.end()
        return ChildDied(f"the decoder spoke nonsense: {what[:200]}", from_outside=False)

    def _timed_out(self, name: str) -> BacktalError:
        ended = self.end()
        allowed = f"allowed are {self._timeout_seconds:g} s for each"
        busy_seconds = (ended.cpu_seconds if ended else 0.0) - self._cpu_seconds
        if busy_seconds < BUSY_SHARE * self._timeout_seconds:
            return DecoderUnavailable(
                f"{name}: the machine is too busy to decode a window in time, {allowed}",
                retry_after_seconds=5.0,
            )
        return LimitExceeded(f"{name}: a window takes too long to decode, {allowed}")
