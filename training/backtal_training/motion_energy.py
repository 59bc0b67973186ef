"""How much moves, and when: the yardstick that knows nothing of what moves.

``python -m backtal_training.motion_energy VIDEOS --to FILE.npz`` writes one array [N] a video,
for `experiment` and its yardstick "the scene with motion energy as its CAS".
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from backtal.errors import BacktalError, NotFound
from backtal.features import FloatArray
from backtal.manifest import ClipPlan
from backtal.video import open_video

PART_SECONDS = 0.32
# Small pictures: noise of single pixels is no motion.
PLAN = ClipPlan(
    frames_per_second=12.5,
    frames_per_clip=1,
    stride_frames=1,
    short_side_pixels=64,
    crop_pixels=56,
)


def motion_energy(path: Path) -> FloatArray:
    """The mean absolute change of the pixels [N], in levels, in N equal parts of the video.

    A part is about PART_SECONDS long; one in which no frame begins has the energy of the part
    before it. Raises what `open_video` and its windows raise.
    """
    times: list[float] = []
    changes: list[float] = []
    with closing(open_video(path)) as video:
        before = None
        for window in video.windows(PLAN):
            for seconds, frame in zip(window.presentation_seconds, window.frames, strict=True):
                picture = frame.astype(np.float32)
                if before is not None:
                    times.append(float(seconds))
                    changes.append(float(np.abs(picture - before).mean()))
                before = picture
        duration_seconds = video.report.duration_seconds
    num_parts = max(1, round(duration_seconds / PART_SECONDS))
    part = np.minimum(np.array(times) / duration_seconds * num_parts, num_parts - 1).astype(int)
    count = np.bincount(part, minlength=num_parts)
    energy = np.bincount(part, weights=changes, minlength=num_parts) / np.maximum(count, 1)
    last_known = np.maximum.accumulate(np.where(count > 0, np.arange(num_parts), 0))
    known: FloatArray = energy[last_known].astype(np.float32)
    return known


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, metavar="VIDEOS", help="a folder of .mp4 files")
    parser.add_argument("--to", type=Path, required=True, metavar="NPZ")
    chosen = parser.parse_args(arguments)
    try:
        paths = sorted(chosen.folder.glob("*.mp4"))
        if not paths:
            raise NotFound(f"no .mp4 file in {chosen.folder}")
        np.savez(chosen.to, **{path.stem: motion_energy(path) for path in paths})
    except BacktalError as error:
        print(f"error: {error.message}", file=sys.stderr)
        return 1
    print(f"the motion energy of {len(paths)} videos is in {chosen.to}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
