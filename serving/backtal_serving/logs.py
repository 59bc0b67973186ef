"""Structured logs: one line of JSON for each event, on standard error."""

from __future__ import annotations

import json
import logging
import sys
from datetime import datetime, timezone
from typing import Any, Literal

Level = Literal["info", "warning", "error"]


def log_event(event: str, level: Level = "info", **about: Any) -> None:
    """Write ``{"time": ..., "level": ..., "event": ..., ...}`` in one piece.

    Several processes write into one file: a line that is written at once stays whole.
    """
    sys.stderr.write(_line(event, level, about) + "\n")
    sys.stderr.flush()


class JsonFormatter(logging.Formatter):
    """What the libraries log, in the form of `log_event`: the event is `log`."""

    def format(self, record: logging.LogRecord) -> str:
        """One line. Of an exception its traceback is told too."""
        about = {"logger": record.name, "message": record.getMessage()}
        if record.exc_info:
            about["traceback"] = self.formatException(record.exc_info)
        return _line("log", record.levelname.lower(), about)


def log_as_json(level: int) -> None:
    """Have this process's loggers write lines of JSON on standard error, from `level` on."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler])


def _line(event: str, level: str, about: dict[str, Any]) -> str:
    time = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    return json.dumps({"time": time, "level": level, "event": event, **about}, default=str)
