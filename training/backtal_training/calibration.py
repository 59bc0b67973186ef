"""Fit the map from scores to the chance of being right: Platt, *Probabilities for SV Machines*."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from backtal.annotations import GroundTruth
from backtal.evaluation import Detections, outcomes
from backtal.localization import Calibration

Doubles = NDArray[np.float64]

MOST_STEPS = 100
LEAST_DETECTIONS = 10


def fit_calibration(
    truth: GroundTruth, detections: Detections, tiou: float = 0.5
) -> Calibration | None:
    """The logistic map under which `detections` with uncalibrated scores are likeliest.

    None where they cannot tell: too few, all of them right or all wrong, or surer ones not
    oftener right. The targets are Platt's, a little off 0 and 1, so that a set that can be
    separated does not make the map a step.
    """
    scores, right = outcomes(truth, detections, tiou)
    num_right = int(right.sum())
    if scores.size < LEAST_DETECTIONS or num_right in (0, scores.size):
        return None
    high, low = (num_right + 1) / (num_right + 2), 1 / (scores.size - num_right + 2)
    slope, intercept = _fit(scores, np.where(right, high, low))
    if slope <= 0:
        return None
    return Calibration(slope=slope, intercept=intercept, tiou=tiou, num_detections=int(scores.size))


def _fit(scores: Doubles, targets: Doubles) -> tuple[float, float]:
    """Newton's method on the log likelihood of ``sigmoid(slope * s + intercept)``.

    The scores are standardised meanwhile, and a step is halved until it helps.
    """
    middle, spread = float(scores.mean()), float(scores.std()) or 1.0
    design = np.stack([(scores - middle) / spread, np.ones_like(scores)], axis=1)
    weights = np.array([0.0, float(np.log(targets.mean() / (1 - targets.mean())))])
    for _ in range(MOST_STEPS):
        chance = 1 / (1 + np.exp(-np.clip(design @ weights, -500, 500)))
        gradient = design.T @ (chance - targets)
        curvature = (design * (chance * (1 - chance))[:, None]).T @ design
        step = np.linalg.solve(curvature + 1e-9 * np.eye(2), gradient)
        now, size = _loss(design @ weights, targets), 1.0
        while _loss(design @ (weights - size * step), targets) > now and size > 1e-6:
            size /= 2
        weights = weights - size * step
        if np.abs(size * step).max() < 1e-9:
            break
    slope = float(weights[0]) / spread
    return slope, float(weights[1]) - slope * middle


def _loss(logits: Doubles, targets: Doubles) -> float:
    return float(np.sum(np.logaddexp(0, logits) - targets * logits))
