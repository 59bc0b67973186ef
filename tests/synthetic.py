"""Feature sequences with the action-context confusion in them, in seconds instead of hours.

Every position is noise and the video's scene; within an action, the action's own direction is
added. Scene and class go together, so that the scene alone tells the video's label: a network
that sees labels only may answer with the scene, and then every position is alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from backtal.annotations import GroundTruth, Instance, VideoTruth
from backtal.clicks import Click, Clicks
from backtal.features import FeatureProvenance, FeatureSequence
from backtal.manifest import ClipPlan, Grid

POSITION_SECONDS = 0.64
GRID = Grid(position_seconds=POSITION_SECONDS, window_positions=48)
CLASSES = ("bow", "jump", "kick")
PROVENANCE = FeatureProvenance(clip_plan=ClipPlan(), backbone_sha256=("0" * 64,))


@dataclass(frozen=True, eq=False)
class Corpus:
    """Features by name, and the truth and clicks of all; `motion` [L] is loud in actions."""

    sequences: dict[str, FeatureSequence]
    truth: GroundTruth
    clicks: Clicks
    motion: dict[str, np.ndarray]


def corpus(num_training: int = 18, num_test: int = 12, *, seed: int = 0, dim: int = 24) -> Corpus:
    random = np.random.default_rng(seed)
    directions = np.linalg.qr(random.standard_normal((dim, 3 * len(CLASSES))))[0].T
    scenes, actions, habits = np.split(directions, 3)
    sequences, videos, clicks, motion = {}, {}, {}, {}
    for number in range(num_training + num_test):
        name = f"video_{number:03}"
        label = number % len(CLASSES)
        length = int(random.integers(30, 61))
        in_action = np.zeros(length, bool)
        for start in np.linspace(3, length - 9, 3).astype(int):
            in_action[start : start + int(random.integers(4, 7))] = True
        values = 0.35 * random.standard_normal((dim, length))
        values += 1.5 * scenes[label, :, None]
        values += np.where(in_action, 1.2 * actions[label, :, None], 0)
        # What else this scene's people do: as strong as the action, and as telling of the label.
        busy = ~in_action & (random.random(length) < 0.5)
        values += np.where(busy, 1.2 * habits[label, :, None], 0)
        duration = length * POSITION_SECONDS
        sequences[name] = FeatureSequence.from_equal_parts(
            values.astype(np.float32), duration, provenance=PROVENANCE
        )
        subset = "training" if number < num_training else "test"
        videos[name] = VideoTruth(subset, duration, None, _instances(in_action, CLASSES[label]))
        if subset == "training":
            spots = random.permutation(np.flatnonzero(~in_action))[:4]
            moments = sorted((spot + 0.5) * POSITION_SECONDS for spot in spots)
            clicks[name] = tuple(Click.at(moment) for moment in moments)
        motion[name] = in_action + 0.3 * random.random(length)
    return Corpus(sequences, GroundTruth(videos, CLASSES), Clicks(clicks), motion)


def _instances(in_action: np.ndarray, label: str) -> tuple[Instance, ...]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], in_action, [0]])))
    return tuple(
        Instance(start * POSITION_SECONDS, end * POSITION_SECONDS, label)
        for start, end in zip(edges[::2], edges[1::2], strict=True)
    )
