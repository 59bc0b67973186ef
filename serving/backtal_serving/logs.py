"""Structured logs: one line of JSON for each event, on standard error."""

from __future__ import annotations

import json
import sys
from datetime import datetime, timezone
from typing import Any, Literal

Level = Literal["info", "warning", "error"]


def log_event(event: str, level: Level = "info", **about: Any) -> None:
    """Write ``{"time": ..., "level": ..., "event": ..., ...}`` in one piece.

    Several processes write into one file: a line that is written at once stays whole.
    """
    time = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    record = {"time": time, "level": level, "event": event, **about}
    sys.stderr.write(json.dumps(record, default=str) + "\n")
    sys.stderr.flush()
