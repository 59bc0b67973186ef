"""A canvas for a scene: coordinates in the frame's pixels, margins for the camera to drift."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from backtal_training.corpus.figure import Colour

MARGIN_PIXELS = 28
REFERENCE_WIDTH, REFERENCE_HEIGHT = 340.0, 256.0
"""Scenes are composed on a frame of this size and stretched to the one asked for."""

_SMOOTHING = 2


class Brush:
    """Draws at twice the size; `finish` gives the scene with its margins, smoothed."""

    def __init__(self, width_pixels: int, height_pixels: int, random: Random) -> None:
        self.random = random
        self._size = (width_pixels + 2 * MARGIN_PIXELS, height_pixels + 2 * MARGIN_PIXELS)
        self._stretch = (
            _SMOOTHING * width_pixels / REFERENCE_WIDTH,
            _SMOOTHING * height_pixels / REFERENCE_HEIGHT,
        )
        full = (self._size[0] * _SMOOTHING, self._size[1] * _SMOOTHING)
        self._image = Image.new("RGB", full, (0, 0, 0))
        self._pen = ImageDraw.Draw(self._image, "RGBA")
        self.left = -MARGIN_PIXELS * _SMOOTHING / self._stretch[0]
        self.right = REFERENCE_WIDTH - self.left
        self.top = -MARGIN_PIXELS * _SMOOTHING / self._stretch[1]
        self.bottom = REFERENCE_HEIGHT - self.top

    def gradient(self, top: float, bottom: float, above: Colour, below: Colour) -> None:
        """Fill the whole width between two heights, from one colour to the other."""
        first, last = (max(0, round(self._point(0, y)[1])) for y in (top, bottom))
        last = min(last, self._image.height)
        if last <= first:
            return
        share = np.linspace(0.0, 1.0, last - first)[:, None]
        column = (1.0 - share) * np.array(above) + share * np.array(below)
        band = np.repeat(column[:, None, :], 2, axis=1).round().astype(np.uint8)
        self._image.paste(
            Image.fromarray(band).resize((self._image.width, last - first)), (0, first)
        )

    def rectangle(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        colour: Sequence[int],
        radius: float = 0.0,
    ) -> None:
        """A rectangle from its upper left corner; `radius` rounds the corners."""
        corners = (*self._point(x, y), *self._point(x + width, y + height))
        self._pen.rounded_rectangle(corners, radius * self._stretch[0], fill=tuple(colour))

    def ellipse(
        self, x: float, y: float, half_width: float, half_height: float, colour: Sequence[int]
    ) -> None:
        """An ellipse around (x, y)."""
        corners = (
            *self._point(x - half_width, y - half_height),
            *self._point(x + half_width, y + half_height),
        )
        self._pen.ellipse(corners, fill=tuple(colour))

    def polygon(self, points: Sequence[tuple[float, float]], colour: Sequence[int]) -> None:
        """A filled polygon."""
        self._pen.polygon([self._point(*point) for point in points], fill=tuple(colour))

    def line(
        self, points: Sequence[tuple[float, float]], colour: Sequence[int], width: float
    ) -> None:
        """Joined lines of a width in pixels."""
        self._pen.line(
            [self._point(*point) for point in points],
            fill=tuple(colour),
            width=max(1, round(width * self._stretch[0])),
            joint="curve",
        )

    def speckle(self, top: float, bottom: float, strength: float, grain: float = 2.0) -> None:
        """Roughen the band between two heights, as sand, grass or plaster is."""
        first, last = (
            min(max(0, round(self._point(0, y)[1])), self._image.height) for y in (top, bottom)
        )
        if last <= first:
            return
        box = (0, first, self._image.width, last)
        band = np.asarray(self._image.crop(box), dtype=np.float32)
        noise = np.random.default_rng(self.random.getrandbits(32)).normal(
            0.0, strength, (int(band.shape[0] / grain) + 1, int(band.shape[1] / grain) + 1)
        )
        grey = Image.fromarray(noise.astype(np.float32)).resize(
            (band.shape[1], band.shape[0]), Image.Resampling.BICUBIC
        )
        rough = np.clip(band + np.asarray(grey)[:, :, None], 0, 255).astype(np.uint8)
        self._image.paste(Image.fromarray(rough), (0, first))

    def blur(self, pixels: float) -> None:
        """Soften everything drawn so far: what is far is out of focus."""
        self._image = self._image.filter(ImageFilter.GaussianBlur(pixels * _SMOOTHING))
        self._pen = ImageDraw.Draw(self._image, "RGBA")

    def glow(self, x: float, y: float, radius: float, colour: Colour, strength: float) -> None:
        """Add a soft light around a point; `strength` in 0-1."""
        width, height = self._image.size
        at_x, at_y = self._point(x, y)
        columns, rows = np.arange(width) - at_x, np.arange(height) - at_y
        reach = radius * self._stretch[0]
        weight = strength * np.exp(-0.5 * (columns[None] ** 2 + rows[:, None] ** 2) / reach**2)
        lit = np.asarray(self._image, dtype=np.float32)
        lit = lit + weight[:, :, None] * (np.array(colour) - 0.5 * lit)
        self._image = Image.fromarray(np.clip(lit, 0, 255).astype(np.uint8))
        self._pen = ImageDraw.Draw(self._image, "RGBA")

    def finish(self) -> Image.Image:
        """The scene at the frame's resolution, margins included."""
        return self._image.resize(self._size, Image.Resampling.BOX)

    def _point(self, x: float, y: float) -> tuple[float, float]:
        return (
            x * self._stretch[0] + MARGIN_PIXELS * _SMOOTHING,
            y * self._stretch[1] + MARGIN_PIXELS * _SMOOTHING,
        )
