"""The learning rate over a run: constant as in the paper, or warmed up and let down."""

from __future__ import annotations

import math

from backtal_training.settings import OptimizerSettings


def learning_rate(settings: OptimizerSettings, step: int, steps_per_epoch: int) -> float:
    """The rate of step `step` (from 0).

    Over the warm-up it rises linearly to `learning_rate`, which the last warm-up step reaches;
    ``cosine`` then falls to `final_fraction` of it, which the last step of the run reaches.
    """
    warmup = round(settings.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    if settings.schedule == "constant":
        return settings.learning_rate
    falling = max(1, settings.epochs * steps_per_epoch - warmup - 1)
    done = min(1.0, (step - warmup) / falling)
    share = settings.final_fraction + (1 - settings.final_fraction) * (
        (1 + math.cos(math.pi * done)) / 2
    )
    return settings.learning_rate * share
