"""Where a data set's clicks come from: annotators' files, the ground truth, or nowhere.

Simulated clicks stand in for people's, as the paper's do for ActivityNet and HACS. They look at
the ground truth; what is trained sees the moments only.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from backtal.annotations import GroundTruth, Instance
from backtal.clicks import Click, Clicks
from backtal.errors import InvalidArgument
from backtal.settings import Settings


class ClickSettings(Settings):
    """How the clicks come to be.

    ``files``: those of annotators, joined by `combine`: ``union`` has all clicks, ``agreement``
    those with clicks of `min_annotators` annotators (its own included) within `within_seconds`.
    ``simulated``: see `simulate`. ``published``: the files of the published layout carry them.
    ``none``: video labels alone. Of any of them, `inside_fraction` are then moved into actions:
    the errors that people make, planted.
    """

    source: Literal["files", "simulated", "published", "none"]
    files: tuple[Path, ...] = ()
    combine: Literal["union", "agreement"] = "union"
    min_annotators: int = Field(default=2, ge=1)
    within_seconds: float = Field(default=1.0, gt=0)
    interval_seconds: float = Field(default=13.0, gt=0, description="simulated: one in about")
    inside_fraction: float = Field(default=0.0, ge=0, lt=1)
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _consistent(self) -> ClickSettings:
        if (self.source == "files") != bool(self.files):
            raise ValueError(f"source {self.source!r} with {len(self.files)} files")
        if self.combine == "agreement" and self.min_annotators > len(self.files):
            raise ValueError(
                f"min_annotators {self.min_annotators}, but there are {len(self.files)} files"
            )
        return self


def load_clicks(
    settings: ClickSettings, root: Path, truth: GroundTruth, published: Clicks
) -> Clicks:
    """The clicks of the videos of `truth`; files are named from `root`.

    Raises NotFound or InvalidFile for a file, InvalidArgument for a click beyond its video's end.
    """
    if settings.source == "files":
        annotators = [Clicks.load(root / path) for path in settings.files]
        clicks = (
            union(annotators)
            if settings.combine == "union"
            else agreement(annotators, settings.min_annotators, settings.within_seconds)
        )
    elif settings.source == "simulated":
        clicks = simulate(truth, settings.interval_seconds, settings.seed)
    else:
        clicks = published if settings.source == "published" else Clicks({})
    clicks = Clicks({name: clicks.of(name) for name in truth.videos}, clicks.source)
    check_within_videos(clicks, truth)
    if settings.inside_fraction:
        clicks = plant_inside(clicks, truth, settings.inside_fraction, settings.seed)
    return clicks


def check_within_videos(clicks: Clicks, truth: GroundTruth) -> None:
    """Raise InvalidArgument for the first click that begins after its video's end."""
    for name, of_video in clicks.videos.items():
        duration = truth.videos[name].duration_seconds
        for click in of_video:
            if click.start_seconds > duration:
                raise InvalidArgument(
                    f"{clicks.source}: {name} is clicked at {click.start_seconds} s, "
                    f"but lasts {duration} s"
                )


def union(annotators: Sequence[Clicks]) -> Clicks:
    """All clicks of all annotators."""
    return agreement(annotators, 1, 1.0)


def agreement(annotators: Sequence[Clicks], min_annotators: int, within_seconds: float) -> Clicks:
    """The clicks that enough annotators, each with one within `within_seconds`, stand behind."""
    names = dict.fromkeys(name for one in annotators for name in one.videos)
    joined = {}
    for name in names:
        kept = {
            click
            for one in annotators
            for click in one.of(name)
            if sum(_is_near(click, other.of(name), within_seconds) for other in annotators)
            >= min_annotators
        }
        joined[name] = _by_time(kept)
    return Clicks(joined, " and ".join(one.source for one in annotators))


def simulate(truth: GroundTruth, interval_seconds: float, seed: int) -> Clicks:
    """Each stretch of background is clicked once, and once more for every further interval.

    The moments are uniform in equal parts of the stretch: a stretch of 30 s with an interval of
    13 s has two, one in each half. A video's clicks depend on the seed and its name alone.
    """
    simulated = {}
    for name, video in truth.videos.items():
        random = np.random.default_rng([seed, *name.encode()])
        clicks = []
        for start, end in background(video.instances, video.duration_seconds):
            count = max(1, int((end - start) / interval_seconds))
            moments = start + (np.arange(count) + random.random(count)) * (end - start) / count
            clicks += [Click.at(float(moment)) for moment in moments]
        simulated[name] = tuple(clicks)
    return Clicks(simulated, f"simulated from {truth.source}")


def plant_inside(clicks: Clicks, truth: GroundTruth, fraction: float, seed: int) -> Clicks:
    """The same number of clicks, `fraction` of all moved to a random moment within an action."""
    random = np.random.default_rng(seed)
    every = [(name, number) for name, of in clicks.videos.items() for number in range(len(of))]
    able = [one for one in every if truth.videos[one[0]].instances]
    chosen = random.permutation(len(able))[: round(fraction * len(every))]
    moved = {name: list(of_video) for name, of_video in clicks.videos.items()}
    for index in chosen:
        name, number = able[index]
        instances = truth.videos[name].instances
        instance = instances[int(random.integers(len(instances)))]
        moment = random.uniform(instance.start_seconds, instance.end_seconds)
        moved[name][number] = Click.at(float(moment))
    return Clicks({name: _by_time(one) for name, one in moved.items()}, clicks.source)


def background(instances: Sequence[Instance], duration_seconds: float) -> list[tuple[float, float]]:
    """The stretches without an action, in seconds."""
    stretches, reached = [], 0.0
    for instance in sorted(instances, key=lambda one: one.start_seconds):
        if instance.start_seconds > reached:
            stretches.append((reached, min(instance.start_seconds, duration_seconds)))
        reached = max(reached, instance.end_seconds)
    if duration_seconds > reached:
        stretches.append((reached, duration_seconds))
    return stretches


def fraction_inside(clicks: Clicks, truth: GroundTruth) -> float:
    """The part of the clicks whose beginning lies inside an action; 0 where there are none."""
    inside = [
        any(one.start_seconds <= click.start_seconds <= one.end_seconds for one in video.instances)
        for name, video in truth.videos.items()
        for click in clicks.of(name)
    ]
    return float(np.mean(inside)) if inside else 0.0


def _is_near(click: Click, others: Sequence[Click], within_seconds: float) -> bool:
    return any(
        other.start_seconds - within_seconds <= click.end_seconds
        and click.start_seconds <= other.end_seconds + within_seconds
        for other in others
    )


def _by_time(clicks: Sequence[Click] | set[Click]) -> tuple[Click, ...]:
    return tuple(sorted(clicks, key=lambda click: (click.start_seconds, click.end_seconds)))
