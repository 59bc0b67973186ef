"""From a decoded frame to the clip plan's square: turn upright, scale, crop."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from backtal.errors import LimitExceeded
from backtal.manifest import ClipPlan

RESIZER = "ffmpeg scale=bilinear, rgb24"


def scaled_size(
    width: int, height: int, sample_aspect_ratio: Fraction, short_side_pixels: int
) -> tuple[int, int]:
    """The width and height to scale to: square pixels, the short side as asked.

    The long side is even: an odd width makes the scaler more than twice as slow.
    """
    shown_width = width * sample_aspect_ratio
    if shown_width <= height:
        return short_side_pixels, _even(height * short_side_pixels / shown_width, short_side_pixels)
    return _even(shown_width * short_side_pixels / height, short_side_pixels), short_side_pixels


def check_aspect(name: str, size: tuple[int, int], max_aspect_ratio: float) -> None:
    """Raise LimitExceeded for a scaled size so long that a frame of it would fill the memory."""
    ratio = max(size) / min(size)
    if ratio > max_aspect_ratio:
        raise LimitExceeded(
            f"{name} has an aspect ratio of {ratio:.1f}, allowed are up to {max_aspect_ratio:g}"
        )


def quarter_turns(rotation_degrees: int) -> int:
    """Counter-clockwise quarters, 0 to 3, that set a frame upright.

    A broken display matrix has an angle beyond any circle: then the frame stays as it is.
    """
    return round(rotation_degrees / 90) % 4 if abs(rotation_degrees) <= 360 else 0


def upright_size(
    width: int,
    height: int,
    sample_aspect_ratio: Fraction,
    num_quarters: int,
    short_side_pixels: int,
) -> tuple[int, int]:
    """`scaled_size` of frames that are turned by `num_quarters` first."""
    if num_quarters % 2:
        width, height, sample_aspect_ratio = height, width, 1 / sample_aspect_ratio
    return scaled_size(width, height, sample_aspect_ratio, short_side_pixels)


def crop_middle(frame: NDArray[np.uint8], plan: ClipPlan) -> NDArray[np.uint8]:
    """The middle square of a frame [H, W, 3], `crop_pixels` on each side."""
    size = plan.crop_pixels
    top, left = (frame.shape[0] - size) // 2, (frame.shape[1] - size) // 2
    return frame[top : top + size, left : left + size]


def _even(length: Fraction, least: int) -> int:
    return max(2 * round(length / 2), least)
