"""What a file declares, held against what it decodes to."""

from __future__ import annotations

from backtal.errors import InvalidVideo
from backtal.video.window import VideoDescription

SLACK_FRAMES = 2
SLACK_FRACTION = 0.02
MAX_SLACK_SECONDS = 1.0


def check_span(
    about: VideoDescription,
    decoded_seconds: float,
    *,
    nominal_frame_seconds: float,
    allow_partial: bool,
) -> tuple[str, ...]:
    """Compare the decoded time span with the declared one; frame counts are seldom true.

    Raises InvalidVideo where more is missing than rounding explains; with `allow_partial` that
    is a warning instead.
    """
    declared = about.duration_seconds or 0.0
    slack = max(
        SLACK_FRAMES * nominal_frame_seconds, min(MAX_SLACK_SECONDS, SLACK_FRACTION * declared)
    )
    if decoded_seconds >= declared - slack:
        return ()
    problem = f"{about.name} declares {declared:.2f} s, {decoded_seconds:.2f} s can be decoded"
    if not allow_partial:
        raise InvalidVideo(f"{problem}; allow_partial answers for those", problem="incomplete")
    return (problem,)


def nothing_decoded(about: VideoDescription, reason: str) -> InvalidVideo:
    """The error for a file of which no frame can be decoded."""
    declared = [
        *([f"{about.num_frames} frames"] if about.num_frames else []),
        *([f"{about.duration_seconds:.2f} s"] if about.duration_seconds else []),
    ]
    said = " and ".join(declared) or "nothing"
    because = f": {reason}" if reason else ""
    return InvalidVideo(
        f"{about.name} declares {said}, no frame of it can be decoded{because}",
        problem="nothing_decoded",
    )
