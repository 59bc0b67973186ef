"""The videos that a checkpoint's training held out: what may be chosen on, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from backtal.annotations import GroundTruth
from backtal.clicks import Clicks
from backtal.errors import InvalidArgument, InvalidFile
from backtal.manifest import BundleDescription
from backtal_training.checkpoint import CheckpointDescription
from backtal_training.datasets import Sample, hold_out, load_samples


@dataclass(frozen=True)
class HeldOut:
    """How the training split was divided: the share that was held out, and the seed."""

    fraction: float
    seed: int


def held_out_of(folder: Path, description: CheckpointDescription) -> HeldOut:
    """What the training of the checkpoint in `folder` held out.

    Raises InvalidArgument where it held nothing out, InvalidFile where its recipe is no recipe.
    """
    recipe = description.training.get("recipe")
    try:
        selection = recipe["selection"] if recipe is not None else {"held_out_fraction": 0}
        seed = int(recipe["seed"]) if recipe is not None else 0
        fraction = float(selection["held_out_fraction"])
        is_whole = fraction == 0 or bool(selection.get("on_test_split", False))
    except (KeyError, TypeError, ValueError, AttributeError):
        raise InvalidFile(
            f"{folder}: training.recipe lacks seed or selection.held_out_fraction"
        ) from None
    if is_whole:
        raise InvalidArgument(
            f"{folder} was trained without held-out videos: train one with "
            "selection.held_out_fraction, tune that and give this one as --into; or name another "
            "subset by --subset and --whole-subset"
        )
    return HeldOut(fraction, seed)


def load_videos(
    features: Path,
    truth: GroundTruth,
    bundle: BundleDescription,
    held_out: HeldOut | None = None,
) -> tuple[Sample, ...]:
    """The videos of `truth` as the bundle is trained on them, or the held-out part of them.

    Raises InvalidArgument where the classes are others than the bundle's; else as `load_samples`.
    """
    if truth.classes != bundle.classes:
        raise InvalidArgument(
            f"{truth.source} has classes {', '.join(truth.classes)}; the checkpoint "
            f"{', '.join(bundle.classes)}"
        )
    is_resized = bundle.localization.preset == "released"
    samples, _ = load_samples(
        features,
        truth,
        Clicks({}),
        grid=bundle.grid,
        temporal="resize" if is_resized else "windows",
    )
    if held_out is None:
        return samples
    return hold_out(samples, held_out.fraction, held_out.seed)[1]
