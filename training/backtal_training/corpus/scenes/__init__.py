"""Six kinds of scene, each with a palette, layout and props of its own in every video."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from PIL import Image

from backtal_training.corpus.scenes.brush import MARGIN_PIXELS, REFERENCE_HEIGHT, Brush
from backtal_training.corpus.scenes.indoors import gym, office, stage
from backtal_training.corpus.scenes.outdoors import beach, park, street

SCENES: dict[str, Callable[[Brush], float]] = {
    "gym": gym,
    "park": park,
    "stage": stage,
    "beach": beach,
    "office": office,
    "street": street,
}


@dataclass(frozen=True)
class Scene:
    """A painted scene: the picture with `MARGIN_PIXELS` on each side, and where its ground is."""

    picture: Image.Image
    ground_top_pixels: float


def paint_scene(kind: str, width_pixels: int, height_pixels: int, random: Random) -> Scene:
    """Paint a scene of `kind` for frames of that size."""
    brush = Brush(width_pixels, height_pixels, random)
    ground = SCENES[kind](brush)
    return Scene(brush.finish(), ground * height_pixels / REFERENCE_HEIGHT)


__all__ = ["MARGIN_PIXELS", "SCENES", "Scene", "paint_scene"]
