"""What decoding a whole video found out about it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Decoded:
    """`num_frames_declared` is None where the file does not say.

    is_known: the features came from a store, and nothing was decoded this time.
    """

    duration_seconds: float
    num_frames: int
    warnings: tuple[str, ...] = ()
    num_frames_declared: int | None = None
    is_known: bool = False
