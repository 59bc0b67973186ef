"""W3C's `traceparent`: which trace a request belongs to, and which span of it is the parent."""

from __future__ import annotations

import re
from dataclasses import dataclass

HEADER = "traceparent"
_FORM = re.compile(
    r"(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})"
    r"-(?P<flags>[0-9a-f]{2})(?P<more>-.*)?"
)
_SAMPLED = 0x01


@dataclass(frozen=True)
class TraceContext:
    """trace_id: 32 hexadecimal digits. span_id: 16. is_sampled: whether the trace is recorded."""

    trace_id: str
    span_id: str
    is_sampled: bool = True

    @classmethod
    def parse(cls, text: str | None) -> TraceContext | None:
        """The context in a header; None for none, and for what is none: it is ignored."""
        found = _FORM.fullmatch(text or "")
        if found is None or found["version"] == "ff":
            return None
        if found["more"] and found["version"] == "00":
            return None
        if not int(found["trace"], 16) or not int(found["span"], 16):
            return None
        return cls(found["trace"], found["span"], bool(int(found["flags"], 16) & _SAMPLED))

    def __str__(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{int(self.is_sampled):02x}"
