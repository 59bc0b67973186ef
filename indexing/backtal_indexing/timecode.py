"""Seconds as frames and as SMPTE timecode, exactly: 29.97 is 30000/1001, and counts drop frames.

Drop-frame timecode drops numbers, never frames: at 30000/1001 frames a second the numbers 0 and 1
are left out in every minute that ten does not divide, so that an hour of timecode is an hour.
"""

from __future__ import annotations

import math
from fractions import Fraction

from backtal.errors import InvalidArgument

_NTSC = Fraction(1000, 1001)
# A rate that was written with two digits, 23.98 for 24000/1001, is at most this far off.
_ROUNDING = Fraction(1, 200)
DROP_FRAME_RATES = (30 * _NTSC, 60 * _NTSC)
# What SMPTE and the editors have timecode for.
TIMECODE_RATES = (
    24 * _NTSC,
    Fraction(24),
    Fraction(25),
    30 * _NTSC,
    Fraction(30),
    48 * _NTSC,
    Fraction(48),
    Fraction(50),
    60 * _NTSC,
    Fraction(60),
)


def exact_rate(frames_per_second: float) -> Fraction:
    """The rate that a rounded figure stands for: 29.97 is 30000/1001, 19.6 is 98/5.

    Raises InvalidArgument for a rate that is not above 0 and finite.
    """
    if not (math.isfinite(frames_per_second) and frames_per_second > 0):
        raise InvalidArgument(
            f"{frames_per_second} frames a second; it must be a finite number above 0"
        )
    whole = round(frames_per_second)
    exact = Fraction(frames_per_second)
    for rate in (Fraction(whole), whole * _NTSC):
        if rate > 0 and abs(exact - rate) < _ROUNDING:
            return rate
    return exact.limit_denominator(1001) or exact


def frame_at(seconds: float, rate: Fraction) -> int:
    """The frame whose start is nearest to `seconds`; halves go up."""
    return math.floor(Fraction(seconds) * rate + Fraction(1, 2))


def drops_frames(rate: Fraction) -> bool:
    """Whether timecode at this rate leaves numbers out."""
    return rate in DROP_FRAME_RATES


def check_timecode_rate(rate: Fraction, where: str) -> None:
    """Raises InvalidArgument where timecode has no such rate."""
    if rate not in TIMECODE_RATES:
        known = ", ".join(f"{float(one):.5g}" for one in TIMECODE_RATES)
        raise InvalidArgument(
            f"{where}: {float(rate):.5g} frames a second, for which there is no timecode; it has "
            f"{known}: choose one with --rate"
        )


def timecode(frame: int, rate: Fraction) -> str:
    """`HH:MM:SS:FF` of a frame counted from 0, `HH:MM:SS;FF` at a drop-frame rate.

    Starts again after 24 hours, as SMPTE's does. Raises InvalidArgument for a rate without
    timecode, and for a frame below 0.
    """
    check_timecode_rate(rate, "timecode")
    if frame < 0:
        raise InvalidArgument(f"frame {frame} has no timecode; frames are counted from 0")
    per_second = round(rate)
    number = frame + _numbers_dropped(frame, per_second) if drops_frames(rate) else frame
    seconds, frames = divmod(number, per_second)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    separator = ";" if drops_frames(rate) else ":"
    return f"{hours % 24:02d}:{minutes:02d}:{seconds:02d}{separator}{frames:02d}"


def _numbers_dropped(frame: int, per_second: int) -> int:
    """How many numbers were left out before this frame."""
    dropped_a_minute = per_second // 15
    frames_a_minute = 60 * per_second - dropped_a_minute
    frames_in_ten_minutes = 600 * per_second - 9 * dropped_a_minute
    tens, rest = divmod(frame, frames_in_ten_minutes)
    # The first minute of ten drops nothing and is so much longer.
    minutes = max(0, rest - dropped_a_minute) // frames_a_minute
    return dropped_a_minute * (9 * tens + minutes)
