"""A video's timeline as one continuous motion: actions and fillers blended into each other."""

from __future__ import annotations

import numpy as np

from backtal_training.corpus.motions import ACTION_MOTIONS, FILLER_MOTIONS, gait
from backtal_training.corpus.skeleton import COLUMN, Floats, mirror, pose
from backtal_training.corpus.timeline import Filler, Instance, PasserBy, VideoPlan


def poses_of(video: VideoPlan, blend_seconds: float) -> Floats:
    """Poses [num_frames, parameters] of the video's figure.

    Around each boundary of the timeline the two neighbours are mixed for `blend_seconds`, with
    equal weights on the boundary itself, which is where the ground truth puts it.
    """
    pieces: list[Instance | Filler] = [*video.instances, *video.fillers]
    pieces.sort(key=lambda piece: piece.start_frame)
    half = 0.5 * blend_seconds * video.frames_per_second
    total = np.zeros((video.num_frames, len(COLUMN)))
    for piece in pieces:
        first = max(0, int(np.floor(piece.start_frame - half)))
        last = min(video.num_frames, int(np.ceil(piece.end_frame + half)))
        frames = np.arange(first, last, dtype=np.float64)
        weight = np.ones(len(frames))
        if piece.start_frame > 0:
            weight *= _smooth((frames - piece.start_frame) / (2 * half) + 0.5)
        if piece.end_frame < video.num_frames:
            weight *= _smooth((piece.end_frame - frames) / (2 * half) + 0.5)
        total[first:last] += weight[:, None] * _poses_of_piece(
            piece, frames, video.frames_per_second
        )
    return total + _life(video)


def walker(passer_by: PasserBy, seconds: Floats) -> Floats:
    """Poses of someone walking by at `seconds` since entering; x is from where they entered."""
    way = passer_by.heights_a_second * seconds
    poses = pose(
        len(seconds),
        **gait(way / 0.66, 0.9),
        x=way,
        yaw=np.full(len(seconds), 1.45),
        anchor=0.0,
        lean=0.05,
    )
    return mirror(poses) if passer_by.mirrored else poses


def _poses_of_piece(piece: Instance | Filler, frames: Floats, fps: int) -> Floats:
    length = piece.end_frame - piece.start_frame
    if isinstance(piece, Instance):
        along = (frames - piece.start_frame) / length
        poses = ACTION_MOTIONS[piece.label](
            along * piece.num_repetitions + piece.phase, piece.amplitude
        )
    else:
        seconds = np.clip((frames - piece.start_frame) / fps, 0.0, length / fps)
        poses = FILLER_MOTIONS[piece.kind](seconds, piece.amplitude, piece.tempo, piece.phase)
    if piece.mirrored:
        poses = mirror(poses)
    if isinstance(piece, Instance):
        poses[:, COLUMN["x"]] += piece.shift
    if isinstance(piece, Instance) or piece.kind not in ("walk", "turn"):
        poses[:, COLUMN["yaw"]] += piece.yaw_radians
    return poses


def _smooth(share: Floats) -> Floats:
    share = np.clip(share, 0.0, 1.0)
    curve: Floats = share * share * (3.0 - 2.0 * share)
    return curve


def _life(video: VideoPlan) -> Floats:
    """Breathing and unrest on top of everything: nobody stands like a statue."""
    random = np.random.default_rng(video.look_seed)
    seconds = np.arange(video.num_frames) / video.frames_per_second
    added = np.zeros((video.num_frames, len(COLUMN)))
    strength = {"lean": 0.02, "tilt": 0.02, "nod": 0.05, "look": 0.12, "yaw": 0.06, "x": 0.012}
    strength |= {f"{side}_arm_out": 0.03 for side in ("left", "right")}
    strength |= {f"{side}_elbow": 0.06 for side in ("left", "right")}
    for name, size in strength.items():
        for hertz in random.uniform(0.08, 0.6, size=3):
            wave = np.sin(2.0 * np.pi * (hertz * seconds + random.uniform()))
            added[:, COLUMN[name]] += size / np.sqrt(3.0) * wave
    return added
