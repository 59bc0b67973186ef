"""A stop that lets requests in flight end.

Triton answers what is in flight before it ends, yet from SIGTERM on it refuses the calls between
models that a pipeline is made of. So the supervisor first marks its state folder as stopping and
waits, and only then sends the signal. The models hold a shared lock while they work on a request.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from backtal.errors import ServiceBusy

POLL_SECONDS = 0.02
_LOCK_NAME = "requests.lock"
_STOPPING_NAME = "stopping"


@contextmanager
def request_in_flight(state_folder: Path | None) -> Iterator[None]:
    """Hold a stop back while the block runs. Raises ServiceBusy where one has begun.

    Without a state folder nobody waits for us: Triton was started by something else.
    """
    if state_folder is None:
        yield
        return
    try:
        lock = (state_folder / _LOCK_NAME).open("ab")
    except FileNotFoundError:
        raise ServiceBusy("the service is stopping") from None
    with lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        # Looked at under the lock: who marks the folder waits for the lock after.
        if (state_folder / _STOPPING_NAME).exists():
            raise ServiceBusy("the service is stopping")
        yield


def drain(state_folder: Path, timeout_seconds: float) -> bool:
    """Refuse new requests and wait for those in flight; whether they ended in time."""
    (state_folder / _STOPPING_NAME).touch()
    deadline = time.monotonic() + timeout_seconds
    with (state_folder / _LOCK_NAME).open("ab") as lock:
        while not _is_locked(lock):
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_SECONDS)
    return True


def _is_locked(lock: IO[bytes]) -> bool:
    """Whether the lock could be had for ourselves alone."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
