"""One line in the log for each request: which it was, what came of it, how long it took."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from backtal.errors import BacktalError, Internal
from backtal.pipeline import Answer
from backtal_serving.logs import Level, log_event
from backtal_serving.tracing.context import TraceContext

_LEVELS: dict[str, Level] = {"OK": "info", "INTERNAL": "error"}


class RequestLog:
    """What is told of a request; `answered` with what it was answered."""

    def __init__(self, request_id: str, bundle: str) -> None:
        # A client that names no id gets one, so that its lines can be told from others'.
        self.about: dict[str, Any] = {"request_id": request_id or uuid.uuid4().hex}
        self.about["bundle"] = bundle
        # The supervisor's own, told of only where it fails.
        self.is_canary = False

    def belongs_to(self, trace: TraceContext | None) -> None:
        """Name the trace, where there is one."""
        if trace is not None:
            self.about["trace_id"] = trace.trace_id

    def answered(self, answer: Answer) -> None:
        """Add the answer's measures."""
        self.about |= {
            "video_seconds": answer.duration_seconds,
            "num_frames_decoded": answer.num_frames_decoded,
            "num_segments": len(answer.segments),
            "warnings": answer.warnings,
            "feature_source": answer.feature_source,
            "stage_seconds": {name: round(s, 4) for name, s in answer.stage_seconds.items()},
        }


@contextmanager
def logged_request(request_id: str, bundle: str) -> Iterator[RequestLog]:
    """Log what becomes of the block: an event `request` with the outcome, OK or an error's code."""
    started = time.monotonic()
    log = RequestLog(request_id, bundle)
    code, message = "OK", dict[str, str]()
    try:
        yield log
    except BacktalError as error:
        code, message = error.grpc_code, {"message": error.message}
        raise
    except Exception:
        code = Internal.grpc_code
        raise
    finally:
        seconds = round(time.monotonic() - started, 4)
        if not log.is_canary or code != "OK":
            log_event(
                "request",
                _LEVELS.get(code, "warning"),
                **log.about,
                outcome=code,
                seconds=seconds,
                **message,
            )
