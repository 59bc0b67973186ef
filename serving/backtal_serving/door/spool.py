"""Videos on disk while their requests last. Nothing of a video is kept in memory."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import hashlib
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from backtal.errors import InvalidArgument, LimitExceeded, ServiceBusy, Unavailable

# What is gathered before a thread is asked to write it.
WRITE_BYTES = 1 << 20
RETRY_SECONDS = 5.0
LOCK_NAME = ".lock"


@dataclass(frozen=True)
class SpooledFile:
    """A whole file of the spool. sha256: of its bytes, in hexadecimal."""

    path: Path
    num_bytes: int
    sha256: str


class Spool:
    """A folder of the door's own, of mode 0700, emptied when the door starts.

    max_bytes: of all files together; max_file_bytes: of one. Raises Unavailable where another
    door has the folder.
    """

    def __init__(self, folder: Path, *, max_bytes: int, max_file_bytes: int) -> None:
        self.folder = folder
        self.num_bytes = 0
        self._max_bytes = max_bytes
        self._max_file_bytes = max_file_bytes
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        self._lock = (folder / LOCK_NAME).open("ab")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Unavailable(f"{folder} is the spool of a door that runs") from None
        for leftover in folder.iterdir():
            if leftover.name != LOCK_NAME:
                leftover.unlink()

    def close(self) -> None:
        """Let another door have the folder."""
        self._lock.close()

    @asynccontextmanager
    async def write(self, chunks: AsyncIterator[bytes], what: str) -> AsyncIterator[SpooledFile]:
        """Write `chunks` to a file that is there while the block runs.

        `what` is named in refusals. Raises LimitExceeded, InvalidArgument for no byte at all,
        ServiceBusy where the spool or its disk is full, and what `chunks` raises.
        """
        path = self.folder / secrets.token_hex(16)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        writing = _Writing(self, descriptor, what)
        try:
            try:
                async for chunk in chunks:
                    await writing.add(chunk)
                await writing.flush()
            finally:
                os.close(descriptor)
            if writing.num_bytes == 0:
                raise InvalidArgument(f"{what} is empty: 0 bytes")
            yield SpooledFile(path, writing.num_bytes, writing.digest.hexdigest())
        finally:
            # Not there any more where a job has taken it over.
            path.unlink(missing_ok=True)
            self.num_bytes -= writing.num_reserved

    def reserve(self, num_bytes: int, num_file_bytes: int, what: str) -> None:
        """Count `num_bytes` more for a file that then has `num_file_bytes`."""
        if num_file_bytes > self._max_file_bytes:
            raise LimitExceeded(
                f"{what} has {num_file_bytes} bytes or more, "
                f"allowed are up to {self._max_file_bytes}"
            )
        if self.num_bytes + num_bytes > self._max_bytes:
            raise full(f"{self._max_bytes} bytes for uploads are in use")
        self.num_bytes += num_bytes


def full(why: str) -> ServiceBusy:
    """The refusal of an upload that has no room."""
    return ServiceBusy(
        f"the service has no room for the upload: {why}", retry_after_seconds=RETRY_SECONDS
    )


class _Writing:
    """One file while it is written: gathers, counts, hashes."""

    def __init__(self, spool: Spool, descriptor: int, what: str) -> None:
        self._spool = spool
        self._descriptor = descriptor
        self._what = what
        self._pending = bytearray()
        self.digest = hashlib.sha256()
        self.num_bytes = 0
        self.num_reserved = 0

    async def add(self, chunk: bytes) -> None:
        self.num_bytes += len(chunk)
        self._spool.reserve(len(chunk), self.num_bytes, self._what)
        self.num_reserved += len(chunk)
        self._pending += chunk
        if len(self._pending) >= WRITE_BYTES:
            await self.flush()

    async def flush(self) -> None:
        pending, self._pending = self._pending, bytearray()
        if pending:
            # Not given up half way: the thread would write into a file that was closed meanwhile.
            await _uncancelled(asyncio.to_thread(self._write, bytes(pending)))

    def _write(self, data: bytes) -> None:
        self.digest.update(data)
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise full(os.strerror(error.errno)) from None
            raise


async def _uncancelled(work: object) -> None:
    """Await `work` to its end, and only then let a cancellation through."""
    task = asyncio.ensure_future(work)  # type: ignore[call-overload]
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


async def pieces(data: bytes, start: int = 0) -> AsyncIterator[bytes]:
    """A message's bytes from `start` on, in pieces that are written one after the other."""
    view = memoryview(data)
    for offset in range(start, len(data), WRITE_BYTES):
        yield bytes(view[offset : offset + WRITE_BYTES])
