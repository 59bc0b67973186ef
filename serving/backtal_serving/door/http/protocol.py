"""uvicorn's HTTP protocol with bounds on what a hostile client can make it keep or do."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEADER_BYTES = 32 * 1024
MAX_HEADERS = 100
# A chunk costs the same whether it has one byte or many.
SMALL_PIECE_BYTES = 64
MAX_SMALL_PIECES = 10_000
# On, and 0 s: what the kernel still holds for the peer is dropped with the connection.
_NO_LINGER = struct.pack("ii", 1, 0)


class BoundedHttpProtocol(HttpToolsProtocol):
    """Bounds a header's size and time, the number of tiny chunks, and waiting for a reader.

    A connection that sends no whole header within `header_seconds` is closed: since it was
    opened, or since the last answer's end. So is one that takes no byte of an answer for
    `answer_idle_seconds`.
    """

    header_seconds: ClassVar[float] = 10.0
    answer_idle_seconds: ClassVar[float] = 30.0

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._header_timer: asyncio.TimerHandle | None = None
        self._reader_timer: asyncio.TimerHandle | None = None
        self._header_is_open = True
        self._header_bytes = 0
        self._small_pieces = 0
        self._body_is_open = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for a header, not for ever."""
        super().connection_made(transport)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timers."""
        self._stop_timer()
        self._stop_reader_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser; what has not become a header by then counts."""
        super().data_received(data)
        if self.parser is None or self.transport.is_closing():
            return
        if self._header_is_open:
            self._header_bytes += len(data)
            if self._header_bytes > MAX_HEADER_BYTES:
                self.send_400_response(f"A header has more than {MAX_HEADER_BYTES} bytes.")
                return
            self._start_timer()

    def pause_writing(self) -> None:
        """The peer does not take what is there for it: watch whether it takes any."""
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        """It has taken most of it."""
        self._stop_reader_timer()
        super().resume_writing()

    def on_message_begin(self) -> None:
        """A header begins."""
        super().on_message_begin()
        self._header_is_open = self._body_is_open = True
        self._header_bytes = self._small_pieces = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count; raising here ends the connection with a 400."""
        super().on_header(name, value)
        size = sum(len(key) + len(text) for key, text in self.headers)
        if size > MAX_HEADER_BYTES or len(self.headers) > MAX_HEADERS:
            raise ValueError("too many headers")

    def on_headers_complete(self) -> None:
        """The header is there."""
        self._header_is_open = False
        self._stop_timer()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Count tiny pieces; raising here ends the connection with a 400."""
        if len(body) < SMALL_PIECE_BYTES:
            self._small_pieces += 1
            if self._small_pieces > MAX_SMALL_PIECES:
                raise ValueError("too many small chunks")
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        super().on_message_complete()
        self._body_is_open = False

    def on_response_complete(self) -> None:
        """The next header is waited for by uvicorn's keep-alive, and by us once it begins.

        A refusal is sent before its request is whole: what still comes is no header.
        """
        super().on_response_complete()
        if not self._body_is_open:
            self._header_is_open, self._header_bytes = True, 0

    def _start_timer(self) -> None:
        if self._header_timer is None:
            self._header_timer = self.loop.call_later(self.header_seconds, self._give_up)

    def _stop_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _watch_reader(self) -> None:
        left_bytes = self.transport.get_write_buffer_size()
        self._reader_timer = self.loop.call_later(
            self.answer_idle_seconds, self._check_reader, left_bytes
        )

    def _stop_reader_timer(self) -> None:
        if self._reader_timer is not None:
            self._reader_timer.cancel()
            self._reader_timer = None

    def _check_reader(self, before_bytes: int) -> None:
        if self.transport.get_write_buffer_size() < before_bytes:
            self._watch_reader()
            return
        peer = self.transport.get_extra_info("socket")
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self.transport.abort()

    def _give_up(self) -> None:
        self._header_timer = None
        if not self.transport.is_closing():
            self.transport.close()
