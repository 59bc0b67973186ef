"""What a decoding child may take."""

from __future__ import annotations

from pydantic import Field

from backtal.settings import Settings

MEBIBYTE = 1 << 20


class DecodeSettings(Settings):
    """The limits of decoding children. The defaults decode 8K."""

    max_processes: int = Field(
        default=4, ge=1, description="children that decode at once, for each pool"
    )
    max_memory_bytes: int = Field(
        default=2048 * MEBIBYTE, ge=64 * MEBIBYTE, description="of one child, beyond its code"
    )
    window_timeout_seconds: float = Field(
        default=30.0, gt=0, description="for opening a video, and for each decode window"
    )
    threads: int | None = Field(default=None, ge=1, description="of one child; None: up to 4")
    allow_unconfined: bool = Field(
        default=False, description="decode where the kernel refuses the lockdown"
    )
