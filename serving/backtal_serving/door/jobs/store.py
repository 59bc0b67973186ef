"""Jobs on disk: a row each in SQLite, the video beside it.

queued -> running -> succeeded | failed | cancelled. A job that was running when the process ended
is queued again; its end is written once.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from backtal.errors import InvalidArgument, NotFound, ResourceExhausted, Unavailable

State = Literal["queued", "running", "succeeded", "failed", "cancelled"]
STATES: tuple[State, ...] = get_args(State)
ENDED: tuple[State, ...] = ("succeeded", "failed", "cancelled")
DATABASE_NAME = "jobs.sqlite"
RETRY_SECONDS = 30.0

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY,
    caller TEXT NOT NULL,
    idempotency_key TEXT,
    fingerprint TEXT NOT NULL,
    request TEXT NOT NULL,
    state TEXT NOT NULL,
    created REAL NOT NULL,
    started REAL,
    ended REAL,
    result TEXT,
    UNIQUE (caller, idempotency_key)
);
CREATE INDEX IF NOT EXISTS jobs_by_state ON jobs (state, created);
CREATE INDEX IF NOT EXISTS jobs_by_caller ON jobs (caller, started);
"""
_COLUMNS = "id, caller, request, state, created, ended, result"


@dataclass(frozen=True)
class Job:
    """One row. request: what was asked, as plain data. created, ended: seconds since 1970.

    result: the detection of one that succeeded, the problem of one that failed.
    """

    id: str
    caller: str
    request: dict[str, Any]
    state: State
    created: float
    ended: float | None
    result: dict[str, Any] | None

    @property
    def has_ended(self) -> bool:
        """Whether nothing of it will change."""
        return self.state in ENDED


class JobStore:
    """The jobs of a folder. Calls take less than a millisecond, a commit's sync aside.

    Each raises Unavailable where the database cannot be read or written: its disk may be full.
    """

    def __init__(
        self,
        folder: Path,
        *,
        max_queued: int,
        max_bytes: int,
        now: Callable[[], float] = time.time,
    ) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        self._folder = folder
        self._max_queued = max_queued
        self._max_bytes = max_bytes
        self._now = now
        self._database = sqlite3.connect(folder / DATABASE_NAME, isolation_level=None)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.executescript(_SCHEMA)
        self._database.execute("UPDATE jobs SET state = 'queued' WHERE state = 'running'")
        self._remove_strays()

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def add(
        self,
        caller: str,
        request: dict[str, Any],
        fingerprint: str,
        *,
        video: Path | None = None,
        idempotency_key: str | None = None,
    ) -> tuple[Job, bool]:
        """A new queued job, which takes `video` over; or the one of that key, and False.

        fingerprint: of all that was asked. Raises InvalidArgument for a key that stands for
        another request, ResourceExhausted where too many jobs of the caller wait, Unavailable
        where too many bytes of videos do.
        """
        if idempotency_key is not None:
            known = self._by_key(caller, idempotency_key, fingerprint)
            if known is not None:
                return known, False
        self._check_room(caller, 0 if video is None else video.stat().st_size)
        identifier = secrets.token_hex(16)
        if video is not None:
            video.rename(self.video_of(identifier))
        try:
            self._one(
                "INSERT INTO jobs "
                "(id, caller, idempotency_key, fingerprint, request, state, created) "
                "VALUES (?, ?, ?, ?, ?, 'queued', ?)",
                identifier,
                caller,
                idempotency_key,
                fingerprint,
                json.dumps(request),
                self._now(),
            )
        except Unavailable:
            self.video_of(identifier).unlink(missing_ok=True)
            raise
        return self.get(identifier, caller), True

    def get(self, identifier: str, caller: str) -> Job:
        """A caller's own job. Raises NotFound, for another's too."""
        row = self._one(f"SELECT {_COLUMNS} FROM jobs WHERE id = ?", identifier)
        if row is None or row[1] != caller:
            raise NotFound(f"no job {identifier[:80]!r} of this key")
        return _job(row)

    def start_next(self) -> Job | None:
        """Take a queued job and call it running: the first of who has waited longest for one."""
        row = self._one(
            "UPDATE jobs SET state = 'running', started = ? WHERE id = ("
            "SELECT id FROM jobs WHERE state = 'queued' ORDER BY "
            "(SELECT max(started) FROM jobs AS own WHERE own.caller = jobs.caller), "
            "created, rowid LIMIT 1) "
            f"RETURNING {_COLUMNS}",
            self._now(),
        )
        return None if row is None else _job(row)

    def end(self, identifier: str, state: State, result: dict[str, Any] | None) -> bool:
        """Write a job's end, unless it has ended; whether it had not. Its video is removed."""
        row = self._one(
            "UPDATE jobs SET state = ?, result = ?, ended = ? "
            "WHERE id = ? AND state IN ('queued', 'running') RETURNING id",
            state,
            None if result is None else json.dumps(result),
            self._now(),
            identifier,
        )
        self.video_of(identifier).unlink(missing_ok=True)
        return row is not None

    def queue_again(self, identifier: str) -> None:
        """Give a running job back: the process is ending."""
        self._one("UPDATE jobs SET state = 'queued' WHERE id = ? AND state = 'running'", identifier)

    def remove_old(self, kept_seconds: float) -> None:
        """Forget the jobs that ended longer ago."""
        old = self._now() - kept_seconds
        self._one("DELETE FROM jobs WHERE ended IS NOT NULL AND ended < ?", old)

    def count_by_state(self) -> dict[State, int]:
        """How many jobs are kept, by state."""
        rows = self._database.execute("SELECT state, count(*) FROM jobs GROUP BY state")
        return dict.fromkeys(STATES, 0) | dict(rows.fetchall())

    def video_of(self, identifier: str) -> Path:
        """Where a job's video lies until its end; the pipeline reads it under this name."""
        return self._folder / identifier

    def _check_room(self, caller: str, num_bytes: int) -> None:
        waiting = self._one(
            "SELECT count(*) FROM jobs WHERE caller = ? AND state IN ('queued', 'running')", caller
        )[0]
        if waiting >= self._max_queued:
            raise ResourceExhausted(
                f"{waiting} jobs of this key wait, allowed are {self._max_queued}",
                retry_after_seconds=RETRY_SECONDS,
            )
        held = sum(
            path.stat().st_size
            for path in self._folder.iterdir()
            if not path.name.startswith(DATABASE_NAME)
        )
        if held + num_bytes > self._max_bytes:
            raise Unavailable(
                f"jobs hold {held} bytes of videos, allowed are {self._max_bytes}",
                retry_after_seconds=RETRY_SECONDS,
            )

    def _by_key(self, caller: str, key: str, fingerprint: str) -> Job | None:
        row = self._one(
            f"SELECT {_COLUMNS}, fingerprint FROM jobs WHERE caller = ? AND idempotency_key = ?",
            caller,
            key,
        )
        if row is None:
            return None
        if row[-1] != fingerprint:
            raise InvalidArgument(f"idempotency-key {key[:80]!r} stands for another request")
        return _job(row[:-1])

    def _one(self, statement: str, *values: Any) -> Any:
        try:
            with closing(self._database.execute(statement, values)) as cursor:
                return cursor.fetchone()
        except sqlite3.OperationalError as error:
            raise Unavailable(
                f"the jobs' database cannot be used: {error}", retry_after_seconds=RETRY_SECONDS
            ) from None

    def _remove_strays(self) -> None:
        """Videos whose row was not written any more, or that has ended."""
        rows = self._database.execute("SELECT id FROM jobs WHERE state = 'queued'")
        waiting = {row[0] for row in rows}
        for path in self._folder.iterdir():
            if not path.name.startswith(DATABASE_NAME) and path.name not in waiting:
                path.unlink()


def _job(row: Any) -> Job:
    identifier, caller, request, state, created, ended, result = row
    return Job(
        id=identifier,
        caller=caller,
        request=json.loads(request),
        state=state,
        created=created,
        ended=ended,
        result=None if result is None else json.loads(result),
    )
