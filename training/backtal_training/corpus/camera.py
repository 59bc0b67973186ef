"""What a camera adds: it drifts and trembles, the light flickers, the sensor is noisy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backtal_training.corpus.skeleton import Floats

_NOISE_TILES = 12
_MAX_NOISE = 64
_MAX_SHIFT_PIXELS = 20.0


@dataclass(frozen=True)
class Noise:
    """How much brighter or darker each value becomes, uint8 [height, width, 3] both."""

    brighter: NDArray[np.uint8]
    darker: NDArray[np.uint8]

    def added_to(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The noisy picture; values stay within 0 to 255."""
        noisy: NDArray[np.uint8] = np.minimum(picture, ~self.brighter)
        noisy += self.brighter
        np.maximum(noisy, self.darker, out=noisy)
        noisy -= self.darker
        return noisy


@dataclass(frozen=True)
class Camera:
    """Of each frame: where the camera looks, and how bright the picture is."""

    shift_pixels: Floats
    """[frames, 2], to the right and down."""
    brightness: Floats
    noise: tuple[Noise, ...]
    """Tiles of the frame's size; frames take them at random."""
    noise_order: NDArray[np.int64]


def film_with(
    seed: int, num_frames: int, fps: int, width_pixels: int, height_pixels: int
) -> Camera:
    """A camera of its own for the video of that seed."""
    random = np.random.default_rng([seed, 1])
    seconds = np.arange(num_frames) / fps
    size = random.uniform(1.5, 5.5)
    across = size * _wander(random, seconds, 0.03, 0.16)
    shift = np.stack([across, 0.6 * size * _wander(random, seconds, 0.03, 0.16)], axis=1)
    shift += random.uniform(0.1, 0.35) * _tremble(random, num_frames)
    bright = 1.0 + random.uniform(0.01, 0.035) * _wander(random, seconds, 0.1, 1.5)
    bright += random.uniform(0.002, 0.012) * random.standard_normal(num_frames)
    shape = (_NOISE_TILES, height_pixels, width_pixels)
    sigma = random.uniform(1.2, 3.2)
    grey = sigma * random.standard_normal(shape, dtype=np.float32)
    tint = 0.5 * sigma * random.standard_normal((*shape, 3), dtype=np.float32)
    tiles = np.clip(np.rint(grey[..., None] + tint), -_MAX_NOISE, _MAX_NOISE)
    return Camera(
        shift_pixels=np.clip(shift, -_MAX_SHIFT_PIXELS, _MAX_SHIFT_PIXELS),
        brightness=bright,
        noise=tuple(
            Noise(np.maximum(tile, 0).astype(np.uint8), np.maximum(-tile, 0).astype(np.uint8))
            for tile in tiles
        ),
        noise_order=random.integers(0, _NOISE_TILES, num_frames),
    )


def _wander(
    random: np.random.Generator, seconds: Floats, low_hertz: float, high_hertz: float
) -> Floats:
    """A slow wave within -1 to 1."""
    wave = np.zeros_like(seconds)
    for hertz in random.uniform(low_hertz, high_hertz, size=3):
        wave += np.sin(2.0 * np.pi * (hertz * seconds + random.uniform())) / 3.0
    return wave


def _tremble(random: np.random.Generator, num_frames: int) -> Floats:
    steps = random.standard_normal((num_frames, 2))
    kernel = np.array([0.25, 0.5, 0.25])
    return np.stack([np.convolve(steps[:, axis], kernel, "same") for axis in (0, 1)], axis=1)
