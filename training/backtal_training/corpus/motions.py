"""How each action, and each thing that is no action, moves the skeleton.

An action is a function of its phase (one a repetition); a filler is one of the time since its
start. Both give poses as `skeleton.pose` does, facing the viewer; angles are in radians.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from backtal_training.corpus.skeleton import Floats, pose

Action = Callable[[Floats, float], Floats]
FillerMotion = Callable[[Floats, float, float, float], Floats]

_TURN = 2.0 * np.pi


def _there_and_back(phase: Floats, *, dwell: float = 1.0) -> Floats:
    """0 at whole phases, 1 half way; `dwell` under 1 stays longer at 1."""
    wave: Floats = (0.5 - 0.5 * np.cos(_TURN * phase)) ** dwell
    return wave


def _jumping_jack(phase: Floats, amplitude: float) -> Floats:
    open_ = _there_and_back(phase)
    return pose(
        len(phase),
        arm_out=0.12 + 2.75 * amplitude * open_,
        elbow=0.12 + 0.25 * np.sin(np.pi * open_),
        spread=0.03 + 0.42 * amplitude * open_,
        lift=0.085 * amplitude * np.abs(np.sin(_TURN * phase)),
        knee=0.06 + 0.16 * np.abs(np.cos(_TURN * phase)),
        hip=0.03 + 0.08 * np.abs(np.cos(_TURN * phase)),
    )


def _squat(phase: Floats, amplitude: float) -> Floats:
    down = _there_and_back(phase, dwell=0.8)
    return pose(
        len(phase),
        hip=1.65 * amplitude * down,
        knee=0.04 + 2.05 * amplitude * down,
        spread=0.16 + 0.12 * down,
        lean=0.75 * amplitude * down,
        nod=-0.35 * down,
        arm_flex=0.15 + 1.75 * down,
        elbow=0.15,
    )


def _bow(phase: Floats, amplitude: float) -> Floats:
    down = _there_and_back(phase, dwell=0.85)
    lean = 2.2 * amplitude * down
    return pose(
        len(phase),
        lean=lean,
        nod=0.15 * down,
        hip=0.2 * down,
        knee=0.04 + 0.08 * down,
        spread=0.1,
        # Overhead while upright; straight down while bent.
        arm_flex=(1.0 - down) * 2.85 + down * (lean + 0.1),
        arm_out=0.16,
        elbow=0.08,
    )


def _high_kick(phase: Floats, amplitude: float) -> Floats:
    cycle = phase % 1.0
    up = np.sin(np.pi * np.clip(cycle / 0.72, 0.0, 1.0)) ** 1.4
    wind_up = np.sin(_TURN * np.clip((cycle - 0.62) / 0.38, 0.0, 1.0))
    left = (np.floor(phase) % 2 == 0) * up
    right = (np.floor(phase) % 2 == 1) * up
    return pose(
        len(phase),
        left_hip=2.2 * amplitude * left - 0.35 * right,
        right_hip=2.2 * amplitude * right - 0.35 * left,
        left_knee=0.08 + 0.7 * np.sin(np.pi * left) * left + 0.25 * right,
        right_knee=0.08 + 0.7 * np.sin(np.pi * right) * right + 0.25 * left,
        lean=-0.32 * up + 0.1 * wind_up,
        twist=0.4 * (right - left),
        arm_flex=0.75,
        arm_out=0.35 + 0.5 * up,
        elbow=1.5 - 0.9 * up,
        lift=0.03 * up,
    )


def _arm_windmill(phase: Floats, amplitude: float) -> Floats:
    turn = _TURN * phase
    return pose(
        len(phase),
        # Whole turns are dropped, or blending into what follows would unwind them all.
        left_arm_flex=(turn + np.pi) % _TURN - np.pi,
        right_arm_flex=(turn + np.pi) % _TURN,
        arm_out=0.2 + 0.12 * amplitude,
        elbow=0.08,
        twist=0.3 * amplitude * np.sin(turn),
        lean=0.08 + 0.08 * amplitude * np.cos(2 * turn),
        spread=0.18,
        knee=0.1 + 0.08 * np.cos(2 * turn),
        hip=0.05,
    )


def _boxing(phase: Floats, amplitude: float) -> Floats:
    left = np.maximum(np.sin(_TURN * phase), 0.0) ** 1.3
    right = np.maximum(-np.sin(_TURN * phase), 0.0) ** 1.3
    bounce = np.abs(np.sin(_TURN * phase))
    return pose(
        len(phase),
        left_arm_flex=0.75 + 0.95 * left,
        right_arm_flex=0.75 + 0.95 * right,
        left_elbow=2.3 - 2.25 * np.minimum(amplitude * left, 1.0),
        right_elbow=2.3 - 2.25 * np.minimum(amplitude * right, 1.0),
        arm_out=0.18,
        twist=0.6 * amplitude * (right - left),
        lean=0.14 + 0.14 * (left + right),
        left_hip=0.5,
        right_hip=-0.3 + 0.12 * right,
        left_knee=0.5 + 0.12 * bounce,
        right_knee=0.35 + 0.2 * bounce,
        spread=0.12,
        nod=0.12,
    )


ACTION_MOTIONS: dict[str, Action] = {
    "jumping_jack": _jumping_jack,
    "squat": _squat,
    "bow": _bow,
    "high_kick": _high_kick,
    "arm_windmill": _arm_windmill,
    "boxing": _boxing,
}


def gait(phase: Floats, vigour: Floats | float) -> dict[str, Floats]:
    """Angles of walking, one phase for two steps; `vigour` 0 stands, 1 strides."""
    swing = np.sin(_TURN * phase)
    lifted = np.cos(_TURN * phase)
    return {
        "left_hip": vigour * (0.48 * swing + 0.06),
        "right_hip": vigour * (-0.48 * swing + 0.06),
        "left_knee": 0.05 + vigour * (0.12 + 0.75 * np.maximum(lifted, 0.0) ** 1.5),
        "right_knee": 0.05 + vigour * (0.12 + 0.75 * np.maximum(-lifted, 0.0) ** 1.5),
        "left_arm_flex": -0.45 * vigour * swing,
        "right_arm_flex": 0.45 * vigour * swing,
        "left_elbow": 0.2 + 0.2 * vigour * (1.0 - swing),
        "right_elbow": 0.2 + 0.2 * vigour * (1.0 + swing),
        "twist": 0.12 * vigour * swing,
    }


def _envelope(seconds: Floats, ramp: float = 0.7) -> Floats:
    """0 at both ends of the filler, 1 between, smooth."""
    total = seconds[-1] if len(seconds) else 0.0
    edge = np.clip(np.minimum(seconds, total - seconds) / ramp, 0.0, 1.0)
    smooth: Floats = edge * edge * (3.0 - 2.0 * edge)
    return smooth


def _sway(seconds: Floats, amplitude: float, tempo: float, phase: float) -> Floats:
    wave = amplitude * np.sin(_TURN * (0.35 * tempo * seconds + phase))
    return pose(
        len(seconds),
        tilt=0.09 * wave,
        x=0.02 * wave,
        left_knee=0.1 + 0.12 * wave,
        right_knee=0.1 - 0.12 * wave,
        left_hip=0.05 + 0.06 * wave,
        right_hip=0.05 - 0.06 * wave,
        arm_flex=0.08 * wave,
        look=0.25 * wave,
    )


def _walk(seconds: Floats, amplitude: float, tempo: float, phase: float) -> Floats:
    total = max(seconds[-1], 1e-3)
    times = max(1, round(total * tempo / 4.0))
    reach = min(0.75 * amplitude, 0.3 * total / times)
    course = np.pi * times * seconds / total
    speed = reach * np.pi * times / total * np.sin(2.0 * course)
    path = np.concatenate([[0.0], np.cumsum(np.abs(speed[1:]) * np.diff(seconds))])
    vigour = np.clip(np.abs(speed) / 0.45, 0.0, 1.0)
    return pose(
        len(seconds),
        **gait(path / 0.62 + phase, vigour),
        x=reach * np.sin(course) ** 2,
        yaw=1.45 * np.tanh(speed / 0.12),
        anchor=0.0,
        lean=0.05 * vigour,
    )


def _gesture(seconds: Floats, amplitude: float, tempo: float, phase: float) -> Floats:
    beat = np.sin(_TURN * (1.1 * tempo * seconds + phase))
    slow = np.sin(_TURN * (0.3 * tempo * seconds + 2.0 * phase))
    on = _envelope(seconds)
    return pose(
        len(seconds),
        right_arm_flex=on * amplitude * (0.7 + 0.25 * beat),
        right_arm_out=0.14 + on * 0.3 * (1.0 + slow),
        right_elbow=0.18 + on * (1.2 + 0.35 * beat),
        left_elbow=0.18 + 0.5 * on,
        nod=0.08 * beat * on,
        look=0.3 * slow,
        twist=0.1 * slow,
    )


def _scratch(seconds: Floats, amplitude: float, tempo: float, phase: float) -> Floats:
    rub = np.sin(_TURN * (2.2 * tempo * seconds + phase))
    on = _envelope(seconds, ramp=0.8)
    return pose(
        len(seconds),
        right_arm_out=0.14 + on * 1.75,
        right_arm_roll=on * 1.35,
        right_elbow=0.18 + on * (2.35 + 0.14 * amplitude * rub),
        nod=0.22 * on,
        tilt=-0.06 * on,
        look=-0.2 * on,
    )


def _march(seconds: Floats, amplitude: float, tempo: float, phase: float) -> Floats:
    turn = _TURN * (0.85 * tempo * seconds + phase)
    on = _envelope(seconds, ramp=0.5)
    left = on * np.maximum(np.sin(turn), 0.0)
    right = on * np.maximum(-np.sin(turn), 0.0)
    return pose(
        len(seconds),
        left_hip=0.62 * amplitude * left,
        right_hip=0.62 * amplitude * right,
        left_knee=0.05 + 1.0 * amplitude * left,
        right_knee=0.05 + 1.0 * amplitude * right,
        left_arm_flex=0.45 * (right - left),
        right_arm_flex=0.45 * (left - right),
        elbow=0.3 + 0.5 * on,
        anchor=0.0,
    )


def _stretch(seconds: Floats, amplitude: float, tempo: float, phase: float) -> Floats:
    on = _envelope(seconds, ramp=1.0)
    side = np.sin(_TURN * (0.28 * tempo * seconds + phase))
    return pose(
        len(seconds),
        right_arm_out=0.14 + on * 2.55,
        right_elbow=0.18 + on * 0.75,
        right_arm_roll=on * 1.5,
        left_arm_out=0.14 + on * 0.35,
        left_arm_roll=-on * 1.4,
        left_elbow=0.18 + on * 1.1,
        tilt=on * amplitude * (-0.12 - 0.16 * side),
        spread=0.09 + 0.07 * on,
    )


def _turn(seconds: Floats, amplitude: float, tempo: float, phase: float) -> Floats:
    total = max(seconds[-1], 1e-3)
    reach = min(2.7 * amplitude, 1.1 * total)
    round_ = np.sin(np.pi * seconds / total)
    stepping = np.abs(np.sin(_TURN * (1.3 * tempo * seconds + phase)))
    return pose(
        len(seconds),
        yaw=reach * round_,
        look=0.5 * np.cos(np.pi * seconds / total) * np.abs(round_),
        left_knee=0.05 + 0.3 * stepping * np.abs(round_),
        left_hip=0.16 * stepping * np.abs(round_),
    )


def _phone(seconds: Floats, amplitude: float, tempo: float, phase: float) -> Floats:
    on = _envelope(seconds, ramp=0.8)
    tap = np.sin(_TURN * (1.4 * tempo * seconds + phase))
    return pose(
        len(seconds),
        right_arm_flex=on * 0.55,
        right_elbow=0.18 + on * (1.75 + 0.08 * tap),
        right_arm_roll=-0.35 * on,
        left_arm_flex=on * 0.45,
        left_elbow=0.18 + on * (1.65 + 0.16 * amplitude * tap),
        left_arm_roll=-0.45 * on,
        nod=0.5 * on,
        tilt=0.03 * np.sin(_TURN * 0.3 * seconds),
    )


def _drink(seconds: Floats, amplitude: float, tempo: float, phase: float) -> Floats:
    on = _envelope(seconds, ramp=0.5)
    sip = on * _there_and_back(0.4 * tempo * seconds + 0.3 * phase)
    return pose(
        len(seconds),
        right_arm_flex=0.25 * on + 0.85 * amplitude * sip,
        right_elbow=0.18 + 1.1 * on + 1.05 * sip,
        right_arm_roll=-0.4 * sip,
        nod=-0.3 * sip,
        left_elbow=0.3,
    )


def _wave(seconds: Floats, amplitude: float, tempo: float, phase: float) -> Floats:
    on = _envelope(seconds, ramp=0.6)
    wag = np.sin(_TURN * (1.5 * tempo * seconds + phase))
    return pose(
        len(seconds),
        right_arm_out=0.14 + on * 1.2,
        right_arm_roll=on * 1.5,
        right_elbow=0.18 + on * (1.25 + 0.4 * amplitude * wag),
        tilt=0.05 * on,
        look=-0.15 * on,
    )


FILLER_MOTIONS: dict[str, FillerMotion] = {
    "sway": _sway,
    "walk": _walk,
    "gesture": _gesture,
    "scratch": _scratch,
    "march": _march,
    "stretch": _stretch,
    "turn": _turn,
    "phone": _phone,
    "drink": _drink,
    "wave": _wave,
}
