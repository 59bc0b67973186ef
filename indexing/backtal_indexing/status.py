"""How far an index is: its videos by bundle and status, and why some of them are not done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from backtal.errors import NotFound
from backtal_indexing.layout import Index
from backtal_indexing.rows import current_of, read_parts
from backtal_indexing.schema import NOT_DONE

COLUMNS = ("uri", "bundle", "status", "error_code", "error", "attempts", "duration_seconds")


@dataclass(frozen=True)
class Failure:
    """A video that is not done. A quarantined one is left alone until `retry --failed`."""

    uri: str
    bundle: str
    status: str
    error_code: str | None
    error: str | None
    attempts: int


@dataclass
class IndexStatus:
    """Videos by bundle and status; the hours of those that are done; some that are not."""

    num_videos: Counter[tuple[str, str]] = field(default_factory=Counter)
    hours: float = 0.0
    num_files: int = 0
    failures: list[Failure] = field(default_factory=list)


def failed_uris(index: Index, among: Sequence[str]) -> set[str]:
    """The videos that are not done; of those in `among`, where it names any.

    Raises NotFound for one that it names and that is not among them.
    """
    found = {
        row["uri"]
        for _, _, rows in read_parts(index, index.videos_names(), ("uri", "bundle", "status"))
        for row in current_of(rows).to_pylist()
        if row["status"] in NOT_DONE
    }
    for uri in among:
        if uri not in found:
            raise NotFound(f"{uri} is no video of {index.url} that failed or is quarantined")
    return set(among) or found


def status_of(index: Index, max_failures: int) -> IndexStatus:
    """The status of an index; `failures` has the first `max_failures` of them."""
    status = IndexStatus()
    names = index.videos_names()
    status.num_files = len(names)
    for _, _, rows in read_parts(index, names, COLUMNS):
        for row in current_of(rows).to_pylist():
            status.num_videos[row["bundle"], row["status"]] += 1
            seconds = row.pop("duration_seconds")
            if row["status"] == "done":
                status.hours += (seconds or 0.0) / 3600
            elif row["status"] in NOT_DONE and len(status.failures) < max_failures:
                status.failures.append(Failure(**row))
    return status
