"""Messages over a stream socket: a head of lengths, JSON, raw bytes, and descriptors beside them.

Nothing is unpickled: what a child sends is as little trusted as the video it decodes.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass

HEAD = struct.Struct("=II")
MAX_JSON_BYTES = 1 << 20
MAX_PAYLOAD_BYTES = 1 << 24
MAX_DESCRIPTORS = 2


class Closed(Exception):
    """The other side is gone, or speaks another language."""


class TimedOut(Exception):
    """The other side did not answer in time."""


@dataclass(frozen=True)
class Parcel:
    """What came: JSON text, raw bytes, open descriptors."""

    text: bytes
    payload: bytes
    descriptors: tuple[int, ...]


def send(
    to: socket.socket, text: bytes, payload: bytes = b"", descriptors: Sequence[int] = ()
) -> None:
    """Send one message. Raises Closed."""
    head = HEAD.pack(len(text), len(payload))
    try:
        if descriptors:
            # With the first byte, so that they are there when the head is.
            socket.send_fds(to, [head[:1]], list(descriptors))
            head = head[1:]
        to.sendall(head + text + payload)
    except OSError as error:
        raise Closed(str(error)) from None


def receive(
    source: socket.socket,
    *,
    deadline: float | None = None,
    with_descriptors: bool = False,
    max_payload_bytes: int = 0,
) -> Parcel:
    """The next message; `deadline` is of `time.monotonic`. Raises Closed, TimedOut."""
    descriptors: tuple[int, ...] = ()
    first = b""
    if with_descriptors:
        _wait(source, deadline)
        try:
            first, found, _, _ = socket.recv_fds(source, 1, MAX_DESCRIPTORS)
        except OSError as error:
            raise Closed(str(error)) from None
        descriptors = tuple(found)
        if not first:
            raise Closed("end of the stream")
    head = first + _exactly(source, HEAD.size - len(first), deadline)
    num_text, num_payload = HEAD.unpack(head)
    if num_text > MAX_JSON_BYTES or num_payload > max_payload_bytes:
        raise Closed(f"a message of {num_text} and {num_payload} bytes")
    text = _exactly(source, num_text, deadline)
    return Parcel(text, _exactly(source, num_payload, deadline), descriptors)


def _exactly(source: socket.socket, num_bytes: int, deadline: float | None) -> bytes:
    parts: list[bytes] = []
    while num_bytes:
        _wait(source, deadline)
        try:
            part = source.recv(num_bytes)
        except OSError as error:
            raise Closed(str(error)) from None
        if not part:
            raise Closed("end of the stream")
        parts.append(part)
        num_bytes -= len(part)
    return b"".join(parts)


def _wait(source: socket.socket, deadline: float | None) -> None:
    if deadline is None:
        return
    poll = select.poll()
    poll.register(source, select.POLLIN)
    if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        raise TimedOut
