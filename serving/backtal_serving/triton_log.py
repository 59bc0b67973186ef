"""What Triton's log says of why it ended."""

from __future__ import annotations

import re
from pathlib import Path

TAIL_LINES = 12
MAXIMUM_LINE = 500
# Triton starts its own error lines with E and the date.
_ERROR_LINE = re.compile(r"E\d{4} |error: |.*Failed to ")
_NOISE_LINE = re.compile(r"[+|]|  <frozen importlib|.*CudaDriverHelper")


def log_tail(log_file: Path) -> str:
    """The log's last errors, then its last lines, without Triton's tables."""
    try:
        text = log_file.read_text(errors="replace")
    except OSError:
        return "(no log)"
    lines = [
        line[:MAXIMUM_LINE]
        for line in text.splitlines()
        if line.strip() and not _NOISE_LINE.match(line)
    ]
    last = lines[-TAIL_LINES:]
    errors = [line for line in lines[:-TAIL_LINES] if _ERROR_LINE.match(line)]
    return "\n".join([*errors[-TAIL_LINES:], *last])
