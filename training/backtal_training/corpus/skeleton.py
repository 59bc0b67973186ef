"""A small skeleton: joint angles in, joints in space out, for all frames of a video at once.

Lengths are in heights of the body, angles in radians. The viewer's axes: x to the right, y up
from the ground, z towards the viewer. With all angles zero the figure stands and faces the
viewer, so that its own left is at +x.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_BODY = {
    "x": 0.0,  # sideways on the screen
    "lift": 0.0,  # of the lower foot, above the ground
    "yaw": 0.0,  # positive faces the viewer's right
    "anchor": 1.0,  # 1: the body moves so that the lower foot stays; 0: it does not
    "lean": 0.0,  # of the trunk, forward
    "tilt": 0.0,  # of the trunk, to the figure's right
    "twist": 0.0,  # of the shoulders against the hips
    "nod": 0.0,  # of the head, forward
    "look": 0.0,  # of the head, to the figure's left
}
_SIDE = {
    "arm_flex": 0.0,  # 0 hangs, pi/2 is forward, pi is up
    "arm_out": 0.14,  # away from the body, to the side
    "arm_roll": 0.0,  # turns the way the elbow bends: 0 forward, pi/2 outward
    "elbow": 0.18,
    "hip": 0.0,  # of the thigh, forward
    "spread": 0.07,  # of the leg, to the side
    "knee": 0.04,
}
SIDES = ("left", "right")
_NEUTRAL = {**_BODY, **{f"{side}_{name}": value for side in SIDES for name, value in _SIDE.items()}}
COLUMN = {name: index for index, name in enumerate(_NEUTRAL)}
_NEUTRAL_ROW = np.array(list(_NEUTRAL.values()))

JOINTS = (
    "pelvis",
    "belly",
    "chest",
    "neck",
    "head",
    "face",
    *(
        f"{side}_{joint}"
        for side in SIDES
        for joint in (
            *("shoulder", "elbow", "wrist", "hand", "waist"),
            *("hip", "knee", "ankle", "toe"),
        )
    ),
)
JOINT = {name: index for index, name in enumerate(JOINTS)}

HEAD_RADIUS = 0.075
_ANKLE = 0.035
_THIGH, _SHIN, _FOOT = 0.245, 0.24, 0.10
_BELLY, _CHEST, _NECK = 0.12, 0.165, 0.055
_UPPER_ARM, _FOREARM, _HAND = 0.165, 0.145, 0.045
_HALF_HIPS, _HALF_SHOULDERS = 0.062, 0.105


def pose(num_frames: int, **angles: float | Floats) -> Floats:
    """Poses [num_frames, parameters]; what is not named is as in standing.

    A name without a side ("knee") sets both. Raises KeyError for an unknown name.
    """
    poses: Floats = np.repeat(_NEUTRAL_ROW[None], num_frames, axis=0)
    for name, value in angles.items():
        for full in [name] if name in COLUMN else [f"{side}_{name}" for side in SIDES]:
            poses[:, COLUMN[full]] = value
    return poses


def mirror(poses: Floats) -> Floats:
    """The same motion by the other hand and foot, facing the other way."""
    swapped = poses.copy()
    for name in _SIDE:
        left, right = COLUMN[f"left_{name}"], COLUMN[f"right_{name}"]
        swapped[:, [left, right]] = poses[:, [right, left]]
    for name in ("x", "yaw", "tilt", "twist", "look"):
        swapped[:, COLUMN[name]] *= -1.0
    return swapped


def joints(poses: Floats) -> Floats:
    """Positions [num_frames, joints, 3] of `poses`, with the lower foot on the ground."""
    angle = {name: poses[:, index] for name, index in COLUMN.items()}
    place: dict[str, Floats] = {"pelvis": np.zeros((len(poses), 3))}
    _trunk(angle, place)
    for side in SIDES:
        _leg(angle, place, side)
    _stand(angle, place)
    for side in SIDES:
        _foot(place, side)
    world = np.stack([place[name] for name in JOINTS], axis=1)
    turned: Floats = np.einsum("tij,tkj->tki", _about_y(angle["yaw"]), world)
    turned[:, :, 0] += angle["x"][:, None]
    return turned


def _trunk(angle: dict[str, Floats], place: dict[str, Floats]) -> None:
    lower = _about_z(0.5 * angle["tilt"]) @ _about_x(0.7 * angle["lean"])
    upper = _about_z(angle["tilt"]) @ _about_x(angle["lean"]) @ _about_y(angle["twist"])
    place["belly"] = place["pelvis"] + lower @ _vector(0, _BELLY, 0)
    place["chest"] = place["belly"] + upper @ _vector(0, _CHEST, 0)
    head = upper @ _about_y(angle["look"]) @ _about_x(angle["nod"])
    place["neck"] = place["chest"] + upper @ _vector(0, 0.5 * _NECK, 0)
    place["head"] = place["chest"] + head @ _vector(0, _NECK + 0.9 * HEAD_RADIUS, 0.01)
    place["face"] = place["head"] + head @ _vector(0, 0, HEAD_RADIUS)
    for side, sign in (("left", 1.0), ("right", -1.0)):
        arm = (
            upper
            @ _about_z(sign * angle[f"{side}_arm_out"])
            @ _about_x(-angle[f"{side}_arm_flex"])
            @ _about_y(sign * angle[f"{side}_arm_roll"])
        )
        fore = arm @ _about_x(-angle[f"{side}_elbow"])
        shoulder = place["chest"] + upper @ _vector(sign * _HALF_SHOULDERS, -0.015, 0)
        place[f"{side}_waist"] = place["pelvis"] + lower @ _vector(
            sign * 0.9 * _HALF_HIPS, 0.035, 0
        )
        place[f"{side}_shoulder"] = shoulder
        place[f"{side}_elbow"] = shoulder + arm @ _vector(0, -_UPPER_ARM, 0)
        place[f"{side}_wrist"] = place[f"{side}_elbow"] + fore @ _vector(0, -_FOREARM, 0)
        place[f"{side}_hand"] = place[f"{side}_wrist"] + fore @ _vector(0, -_HAND, 0)


def _leg(angle: dict[str, Floats], place: dict[str, Floats], side: str) -> None:
    sign = 1.0 if side == "left" else -1.0
    thigh = _about_z(sign * angle[f"{side}_spread"]) @ _about_x(-angle[f"{side}_hip"])
    shin = thigh @ _about_x(angle[f"{side}_knee"])
    hip = place["pelvis"] + _vector(sign * _HALF_HIPS, 0, 0)
    place[f"{side}_hip"] = hip
    place[f"{side}_knee"] = hip + thigh @ _vector(0, -_THIGH, 0)
    place[f"{side}_ankle"] = place[f"{side}_knee"] + shin @ _vector(0, -_SHIN, 0)
    place[f"{side}_toe"] = shin @ _vector(0.25 * sign * _FOOT, -0.35 * _FOOT, _FOOT)


def _stand(angle: dict[str, Floats], place: dict[str, Floats]) -> None:
    """Move all joints so that the lower foot is on the ground and, anchored, stays there."""
    ankles = np.stack([place["left_ankle"], place["right_ankle"]], axis=1)
    height = ankles[:, :, 1]
    weight = np.exp(-30.0 * (height - height.min(axis=1, keepdims=True)))
    weight /= weight.sum(axis=1, keepdims=True)
    foot = (weight[:, :, None] * ankles).sum(axis=1)
    rest = np.array([0.5 * _HALF_HIPS, -0.5 * _HALF_HIPS]) * 2.0
    shift = np.zeros_like(foot)
    shift[:, 0] = -angle["anchor"] * (foot[:, 0] - weight @ rest)
    shift[:, 1] = _ANKLE + angle["lift"] - height.min(axis=1)
    shift[:, 2] = -angle["anchor"] * foot[:, 2]
    for name in place:
        if not name.endswith("toe"):
            place[name] = place[name] + shift


def _foot(place: dict[str, Floats], side: str) -> None:
    """A foot on the ground is flat, one in the air follows its shin."""
    sign = 1.0 if side == "left" else -1.0
    ankle = place[f"{side}_ankle"]
    airborne = np.clip((ankle[:, 1:2] - _ANKLE) / 0.12, 0.0, 1.0)
    flat = np.broadcast_to(np.array([0.3 * sign * _FOOT, -0.6 * _ANKLE, _FOOT]), ankle.shape)
    place[f"{side}_toe"] = ankle + (1.0 - airborne) * flat + airborne * place[f"{side}_toe"]


def _vector(x: float, y: float, z: float) -> Floats:
    return np.array([x, y, z], dtype=np.float64)


def _about_x(angle: Floats) -> Floats:
    return _rotation(angle, 1, 2)


def _about_y(angle: Floats) -> Floats:
    return _rotation(angle, 2, 0)


def _about_z(angle: Floats) -> Floats:
    return _rotation(angle, 0, 1)


def _rotation(angle: Floats, first: int, second: int) -> Floats:
    """Rotations [frames, 3, 3] in the plane of two axes, from the first to the second."""
    matrix = np.zeros((len(angle), 3, 3))
    axis = 3 - first - second
    matrix[:, axis, axis] = 1.0
    matrix[:, first, first] = matrix[:, second, second] = np.cos(angle)
    matrix[:, second, first] = np.sin(angle)
    matrix[:, first, second] = -np.sin(angle)
    return matrix
