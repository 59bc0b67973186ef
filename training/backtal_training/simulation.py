"""Simulated features on real timelines: THUMOS14's actions and the clicks of its annotators.

The files are given by path and stay where they are. A video's clips (0.64 s each) are

    scene of its classes, over the whole video
    + the action direction of each class that happens, as strong as its instance is
    + in the background, in bouts: a context direction that resembles the video's action
    + noise that is correlated in time and over the features

so that the label can be told from the scene, and context looks like action: what the paper's
clicks are there to take apart. A video's features depend on the seed and its name alone.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from backtal.annotations import GroundTruth, VideoTruth
from backtal.clicks import Clicks
from backtal.features import FeatureProvenance, FeatureSequence
from backtal.manifest import ClipPlan
from backtal.settings import Settings
from backtal_training.bundle import describe
from backtal_training.click_sources import plant_inside
from backtal_training.datasets import make_sample
from backtal_training.settings import Recipe
from backtal_training.tuning import Corpus

GROUND_TRUTH_NAME = "gt_thumos14.json"
CLICKS_NAME = "THUMOS14_Background-Click-Annotation_{annotator}.txt"
PLAN = ClipPlan()
PROVENANCE = FeatureProvenance(
    decoder="simulated", clip_plan=PLAN, backbone_sha256=("0" * 64,), precision="float32"
)
Doubles = NDArray[np.float64]


class SimulationSettings(Settings):
    """How hard it is: strengths are in units of the noise's standard deviation a feature."""

    seed: int = Field(default=0, ge=0)
    feature_dim: int = Field(default=48, ge=8)
    annotator: str = Field(default="A1", pattern=r"^A[123]$")
    action_strength: float = Field(default=5.0, gt=0)
    scene_strength: float = Field(default=4.0, ge=0)
    context_strength: float = Field(default=5.0, ge=0)
    context_cosine: float = Field(default=0.6, ge=0, lt=1, description="of context and action")
    context_fraction: float = Field(default=0.35, ge=0, le=1, description="of the background")
    context_seconds: float = Field(default=6.0, gt=0, description="mean length of a bout")
    strength_spread: float = Field(default=0.35, ge=0, description="of log strengths")
    noise_memory: float = Field(default=0.7, ge=0, lt=1, description="from clip to clip")
    noise_factors: int = Field(default=6, ge=0, description="shared by the features")
    clicks_inside: float | None = Field(
        default=None, ge=0, lt=1, description="part of the clicks planted inside actions"
    )


def simulated_corpus(folder: Path, settings: SimulationSettings, recipe: Recipe) -> Corpus:
    """Both splits' samples for `recipe`, from the THUMOS14 files in `folder`.

    Raises NotFound or InvalidFile for these files.
    """
    truth = GroundTruth.load(folder / GROUND_TRUTH_NAME)
    clicks = Clicks.load(folder / CLICKS_NAME.format(annotator=settings.annotator))
    directions = _Directions(settings, truth.classes)
    splits = {}
    for split in ("val", "test"):
        videos = truth.subset(split)
        of_split = Clicks({name: clicks.of(name) for name in videos.videos}, clicks.source)
        if settings.clicks_inside is not None:
            of_split = plant_inside(of_split, videos, settings.clicks_inside, settings.seed)
        splits[split] = tuple(
            make_sample(
                name,
                simulate_features(name, video, directions),
                instances=video.instances,
                clicks=of_split,
                classes=truth.classes,
                grid=recipe.grid,
                temporal=recipe.temporal,
            )
            for name, video in videos.videos.items()
        )
    name, video = next(iter(truth.videos.items()))
    description = describe(recipe, truth.classes, simulate_features(name, video, directions))
    return Corpus(splits["val"], splits["test"], recipe, description)


class _Directions:
    """The unit vectors of scenes, actions and contexts, and the noise's factors."""

    def __init__(self, settings: SimulationSettings, classes: tuple[str, ...]) -> None:
        random = np.random.default_rng(settings.seed)
        dim = settings.feature_dim
        self.settings, self.classes = settings, classes
        self.scenes = _unit(random.standard_normal((len(classes), dim)))
        self.actions = _unit(random.standard_normal((len(classes), dim)))
        other = random.standard_normal((len(classes), dim))
        other -= (other * self.actions).sum(axis=1, keepdims=True) * self.actions
        sine = np.sqrt(1 - settings.context_cosine**2)
        self.contexts = settings.context_cosine * self.actions + sine * _unit(other)
        self.factors = random.standard_normal((settings.noise_factors, dim))


def simulate_features(name: str, video: VideoTruth, directions: _Directions) -> FeatureSequence:
    """One video's clips, float32 [D, N]."""
    settings = directions.settings
    random = np.random.default_rng([settings.seed, *name.encode()])
    count = max(1, int(video.duration_seconds / PLAN.stride_seconds))
    edges = np.minimum(np.arange(count + 1) * PLAN.stride_seconds, video.duration_seconds)
    index = {label: number for number, label in enumerate(directions.classes)}
    values = _noise(count, directions, random)
    busy = np.zeros(count)
    for instance in video.instances:
        inside = np.minimum(edges[1:], instance.end_seconds) - np.maximum(
            edges[:-1], instance.start_seconds
        )
        share = np.clip(inside / PLAN.stride_seconds, 0, 1)
        strength = settings.action_strength * _varied(settings, random)
        values += strength * share[:, None] * directions.actions[index[instance.label]]
        busy = np.maximum(busy, share)
    for label in video.labels:
        values += (
            settings.scene_strength * _varied(settings, random) * (directions.scenes[index[label]])
        )
        bouts = _bouts(count, settings, random) * (1 - busy)
        values += settings.context_strength * bouts[:, None] * directions.contexts[index[label]]
    return FeatureSequence(
        values=np.ascontiguousarray(values.T, dtype=np.float32),
        clip_start_seconds=edges[:-1].astype(np.float32),
        clip_end_seconds=edges[1:].astype(np.float32),
        duration_seconds=video.duration_seconds,
        num_frames_decoded=0,
        streams=("rgb",),
        provenance=PROVENANCE,
    )


def _noise(count: int, directions: _Directions, random: np.random.Generator) -> Doubles:
    """[count, D], standard deviation about 1: each feature's own and that of shared factors."""
    settings = directions.settings
    dim, factors = settings.feature_dim, settings.noise_factors
    fresh = random.standard_normal((count, dim + factors))
    memory = settings.noise_memory
    fresh[1:] *= np.sqrt(1 - memory**2)
    for before, now in pairwise(fresh):
        now += memory * before
    shared = fresh[:, dim:] @ directions.factors / np.sqrt(max(1, factors))
    mixed: Doubles = (fresh[:, :dim] + shared) / np.sqrt(2 if factors else 1)
    return mixed


def _bouts(count: int, settings: SimulationSettings, random: np.random.Generator) -> Doubles:
    """How strongly context shows in each clip: stretches of it, each with a strength."""
    on_clips = max(1.0, settings.context_seconds / PLAN.stride_seconds)
    fraction = settings.context_fraction
    off_clips = on_clips * (1 - fraction) / fraction if fraction else np.inf
    shown = np.zeros(count)
    position, is_on = 0, bool(random.random() < fraction)
    while position < count:
        mean = on_clips if is_on else off_clips
        length = count if np.isinf(mean) else 1 + int(random.exponential(mean))
        if is_on:
            shown[position : position + length] = _varied(settings, random)
        position, is_on = position + length, not is_on
    return shown


def _varied(settings: SimulationSettings, random: np.random.Generator) -> float:
    return float(np.exp(settings.strength_spread * random.standard_normal()))


def _unit(rows: Doubles) -> Doubles:
    unit: Doubles = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit
