"""Draw a figure: thick shaded limbs, clothes, hair and a face, far parts first.

Everything is drawn larger than needed and then shrunk, which is what makes the edges smooth.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

import numpy as np
from PIL import Image, ImageDraw

from backtal_training.corpus.skeleton import HEAD_RADIUS, JOINT, SIDES, Floats

Colour = tuple[int, int, int]
Point = Sequence[float] | Floats

_SKIN = (
    (255, 219, 188),
    (241, 194, 155),
    (224, 172, 128),
    (198, 134, 88),
    (152, 96, 60),
    (107, 68, 45),
)
_HAIR = ((36, 28, 26), (74, 48, 32), (130, 84, 46), (206, 164, 92), (120, 116, 114), (150, 62, 34))
_DEPTH_SHRINK = 0.07
_TILT = 0.09
_PADDING_PIXELS = 4
_TRUNK_BIAS = 0.05
"""A thigh must come forward by this much before it hides the shirt, in heights of the body."""


@dataclass(frozen=True)
class Look:
    """What a figure wears, and how it is built."""

    skin: Colour
    hair: Colour
    shirt: Colour
    trousers: Colour
    shoes: Colour
    long_sleeves: bool
    shorts: bool
    long_hair: bool
    cap: bool
    stripe: bool
    stoutness: float
    """Thickness of trunk and limbs, 1 is the middle."""


def draw_look(random: Random) -> Look:
    """A random look."""
    shirt_hue = random.random()
    trousers_hue = random.choice([0.6, 0.62, 0.08, 0.0, random.random()])
    return Look(
        skin=random.choice(_SKIN),
        hair=random.choice(_HAIR),
        shirt=hsv(shirt_hue, random.uniform(0.35, 0.85), random.uniform(0.5, 0.95)),
        trousers=hsv(trousers_hue, random.uniform(0.15, 0.6), random.uniform(0.18, 0.6)),
        shoes=hsv(random.random(), random.uniform(0.0, 0.6), random.uniform(0.2, 0.95)),
        long_sleeves=random.random() < 0.4,
        shorts=random.random() < 0.4,
        long_hair=random.random() < 0.4,
        cap=random.random() < 0.2,
        stripe=random.random() < 0.4,
        stoutness=random.uniform(0.88, 1.2),
    )


def hsv(hue: float, saturation: float, value: float) -> Colour:
    """A colour of 0-255 from hue, saturation and value of 0-1."""
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def dimmed(look: Look, haze: Colour, amount: float) -> Look:
    """The look of someone further off: every colour mixed with the haze."""

    def mix(colour: Colour) -> Colour:
        red, green, blue = (
            round((1 - amount) * own + amount * far) for own, far in zip(colour, haze, strict=True)
        )
        return red, green, blue

    return replace(
        look,
        skin=mix(look.skin),
        hair=mix(look.hair),
        shirt=mix(look.shirt),
        trousers=mix(look.trousers),
        shoes=mix(look.shoes),
    )


@dataclass(frozen=True)
class _Shape:
    """Capsules (from, to, radii at both) of one colour, and where they are in depth."""

    depth: float
    colour: Colour
    capsules: tuple[tuple[int, int, float, float], ...]
    filled: tuple[int, ...] = ()
    kind: str = "limb"


class FigurePainter:
    """Paints one figure onto frames; joints come in heights of the body."""

    def __init__(self, look: Look, height_pixels: float, supersampling: int) -> None:
        self._look = look
        self._height = height_pixels
        self._scale = supersampling

    def paint(self, frame: Image.Image, joints: Floats, foot: tuple[float, float]) -> None:
        """Draw joints [J, 3] with their origin on the ground at `foot`, in the frame's pixels."""
        near = 1.0 + _DEPTH_SHRINK * joints[:, 2]
        flat = np.empty((len(joints), 2))
        flat[:, 0] = foot[0] + self._height * near * joints[:, 0]
        flat[:, 1] = foot[1] - self._height * (near * joints[:, 1] - _TILT * joints[:, 2])
        margin = self._height * 0.13 + _PADDING_PIXELS
        left, top = np.floor(flat.min(axis=0) - margin).astype(int)
        right, bottom = np.ceil(flat.max(axis=0) + margin).astype(int)
        left, top = max(int(left), 0), max(int(top), 0)
        right, bottom = min(int(right), frame.width), min(int(bottom), frame.height)
        if right <= left or bottom <= top:
            return
        # Enlarged by repetition and shrunk by averaging, what is not drawn on stays as it was.
        box, scale = (left, top, right, bottom), self._scale
        size = ((right - left) * scale, (bottom - top) * scale)
        layer = frame.crop(box).resize(size, Image.Resampling.NEAREST)
        pen = ImageDraw.Draw(layer)
        points = (flat - (left, top)) * scale
        places = points.tolist()
        unit = self._height * scale
        for shape in sorted(self._shapes(joints), key=lambda shape: shape.depth):
            if shape.kind == "head":
                self._draw_head(pen, points, joints, unit)
            else:
                _draw_shape(pen, places, unit, shape)
        frame.paste(layer.reduce(scale), (left, top))

    def _shapes(self, joints: Floats) -> list[_Shape]:
        look, girth = self._look, self._look.stoutness
        shapes = [self._trunk(joints), self._pelvis(joints)]
        head_depth = float(joints[JOINT["head"], 2]) + 0.02
        shapes.append(_Shape(head_depth, look.skin, (), kind="head"))
        for side in SIDES:
            at = {
                part: JOINT[f"{side}_{part}"]
                for part in (
                    "shoulder",
                    "elbow",
                    "wrist",
                    "hand",
                    "hip",
                    "knee",
                    "ankle",
                    "toe",
                )
            }
            depth = {part: float(joints[index, 2]) for part, index in at.items()}
            fore = look.shirt if look.long_sleeves else look.skin
            calf = look.skin if look.shorts else look.trousers
            upper = 0.5 * (depth["shoulder"] + depth["elbow"])
            lower = 0.5 * (depth["elbow"] + depth["hand"])
            arm = (at["shoulder"], at["elbow"], 0.041 * girth, 0.032 * girth)
            forearm = (at["elbow"], at["wrist"], 0.031 * girth, 0.022)
            hand = (at["wrist"], at["hand"], 0.022, 0.025)
            thigh = (at["hip"], at["knee"], 0.062 * girth, 0.044 * girth)
            shin = (at["knee"], at["ankle"], 0.042 * girth, 0.027)
            foot = (at["ankle"], at["toe"], 0.029, 0.023)
            shapes += [
                _Shape(upper, _shaded(look.shirt, upper), (arm,)),
                _Shape(lower, _shaded(fore, lower), (forearm,)),
                _Shape(lower + 0.001, _shaded(look.skin, lower), (hand,)),
                _Shape(
                    0.5 * (depth["hip"] + depth["knee"]),
                    _shaded(look.trousers, depth["knee"]),
                    (thigh,),
                ),
                _Shape(
                    0.5 * (depth["knee"] + depth["ankle"]) - 0.001,
                    _shaded(calf, depth["ankle"]),
                    (shin,),
                ),
                _Shape(depth["ankle"], _shaded(look.shoes, depth["ankle"]), (foot,)),
            ]
        return shapes

    def _trunk(self, joints: Floats) -> _Shape:
        girth = self._look.stoutness
        left, right = JOINT["left_shoulder"], JOINT["right_shoulder"]
        belly, chest = JOINT["belly"], JOINT["chest"]
        waist = JOINT["left_waist"], JOINT["right_waist"]
        return _Shape(
            0.5 * float(joints[belly, 2] + joints[chest, 2]) + _TRUNK_BIAS,
            self._look.shirt,
            (
                (left, right, 0.043, 0.043),
                (left, waist[0], 0.045, 0.05 * girth),
                (right, waist[1], 0.045, 0.05 * girth),
                (chest, belly, 0.075 * girth, 0.078 * girth),
                (*waist, 0.05 * girth, 0.05 * girth),
            ),
            filled=(left, right, waist[1], waist[0]),
            kind="trunk",
        )

    def _pelvis(self, joints: Floats) -> _Shape:
        left, right = JOINT["left_hip"], JOINT["right_hip"]
        girth = self._look.stoutness
        return _Shape(
            float(joints[JOINT["pelvis"], 2]) - 0.002,
            _shaded(self._look.trousers, -0.05),
            ((left, right, 0.068 * girth, 0.068 * girth),),
        )

    def _draw_head(
        self, pen: ImageDraw.ImageDraw, points: Floats, joints: Floats, unit: float
    ) -> None:
        look = self._look
        head, face = points[JOINT["head"]], points[JOINT["face"]]
        radius = HEAD_RADIUS * unit
        towards = (joints[JOINT["face"]] - joints[JOINT["head"]]) / HEAD_RADIUS
        across = face - head
        up = (head - points[JOINT["neck"]]) / max(
            float(np.hypot(*(head - points[JOINT["neck"]]))), 1e-6
        )
        back = head - 0.33 * across + 0.25 * radius * up
        neck = (points[JOINT["neck"]] - 0.01 * unit * up, head)
        hair = (back, back - 1.15 * radius * up - 0.25 * across)
        faces_viewer = towards[2] > -0.2
        for part in ("hair", "neck") if faces_viewer else ("neck", "hair"):
            if part == "neck":
                skin = _shaded(look.skin, -0.12)
                _capsule(pen, *neck, 0.036 * unit, 0.034 * unit, skin)
            elif look.long_hair:
                dark = _shaded(look.hair, -0.1)
                _capsule(pen, *hair, 1.02 * radius, 0.75 * radius, dark)
        _disc(pen, back, 1.02 * radius, look.hair)
        if towards[2] > -0.35:
            middle = head + 0.18 * across - 0.1 * radius * up
            _disc(pen, middle, 0.9 * radius, look.skin)
            self._draw_eyes(pen, head, across, up, towards, radius)
        fringe = head + 0.5 * radius * up
        if look.cap:
            _disc(pen, fringe - 0.05 * across, 0.8 * radius, look.trousers)
            _capsule(
                pen,
                fringe + 0.3 * across,
                fringe + 1.15 * across - 0.05 * radius * up,
                0.2 * radius,
                0.16 * radius,
                look.trousers,
            )
        else:
            _disc(pen, fringe - 0.12 * across + 0.12 * radius * up, 0.62 * radius, look.hair)

    def _draw_eyes(
        self,
        pen: ImageDraw.ImageDraw,
        head: Floats,
        across: Floats,
        up: Floats,
        towards: Floats,
        radius: float,
    ) -> None:
        if towards[2] < 0.05:
            return
        beside = np.array([-up[1], up[0]]) * float(towards[2])
        for sign in (-1.0, 1.0):
            eye = head + 0.62 * across + sign * 0.34 * radius * beside + 0.02 * radius * up
            _disc(pen, eye, 0.11 * radius, (34, 26, 26))
        mouth = head + 0.62 * across - 0.5 * radius * up
        _capsule(
            pen,
            mouth - 0.16 * radius * beside,
            mouth + 0.16 * radius * beside,
            0.05 * radius,
            0.05 * radius,
            _shaded(self._look.skin, -1.1),
        )


def _draw_shape(
    pen: ImageDraw.ImageDraw, points: list[list[float]], unit: float, shape: _Shape
) -> None:
    if shape.filled:
        pen.polygon([tuple(points[index]) for index in shape.filled], fill=shape.colour)
    for start, end, first, last in shape.capsules:
        _capsule(pen, points[start], points[end], first * unit, last * unit, shape.colour)


def _capsule(
    pen: ImageDraw.ImageDraw,
    start: Point,
    end: Point,
    first_radius: float,
    last_radius: float,
    colour: Colour,
) -> None:
    (left, top), (right, bottom) = start, end
    length = math.hypot(right - left, bottom - top)
    if length > 1e-6:
        x, y = (top - bottom) / length, (right - left) / length
        pen.polygon(
            (
                (left + first_radius * x, top + first_radius * y),
                (right + last_radius * x, bottom + last_radius * y),
                (right - last_radius * x, bottom - last_radius * y),
                (left - first_radius * x, top - first_radius * y),
            ),
            fill=colour,
        )
    _disc(pen, start, first_radius, colour)
    _disc(pen, end, last_radius, colour)


def _disc(pen: ImageDraw.ImageDraw, middle: Point, radius: float, colour: Colour) -> None:
    x, y = middle
    pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)


def _shaded(colour: Colour, depth: float) -> Colour:
    """Nearer is lighter: `depth` in heights of the body towards the viewer."""
    factor = 1.0 + min(max(0.9 * depth, -0.38), 0.16)
    red, green, blue = (min(255, round(factor * part)) for part in colour)
    return red, green, blue
