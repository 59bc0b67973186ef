"""Frames of a planned video, and the H.264 file that holds them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from backtal_training.corpus.camera import Camera, film_with
from backtal_training.corpus.choreography import poses_of, walker
from backtal_training.corpus.figure import FigurePainter, dimmed, draw_look
from backtal_training.corpus.scenes import MARGIN_PIXELS, Scene, paint_scene
from backtal_training.corpus.settings import CorpusSettings
from backtal_training.corpus.skeleton import JOINT, Floats, joints
from backtal_training.corpus.timeline import VideoPlan

_FOOT_HEIGHT = 0.925
"""Where the figure stands, of the frame's height."""

_STEPS_A_PIXEL = 4
"""How finely the camera moves."""


@dataclass(frozen=True)
class _Actor:
    """Someone in the picture: joints [frames, J, 3] from frame `first_frame` on."""

    painter: FigurePainter
    joints: Floats
    first_frame: int
    foot_pixels: tuple[float, float]
    height_pixels: float
    shadow: Image.Image


def frames(video: VideoPlan, settings: CorpusSettings | None = None) -> Iterator[NDArray[np.uint8]]:
    """Draw the video's frames, uint8 [height, width, 3], RGB."""
    settings = settings or CorpusSettings()
    random = Random(f"{video.look_seed}/look")
    width, height = settings.width_pixels, settings.height_pixels
    scene = paint_scene(video.scene, width, height, random)
    camera = film_with(video.look_seed, video.num_frames, video.frames_per_second, width, height)
    actors = _actors(video, settings, scene, random)
    backgrounds = _between_pixels(scene.picture)
    for frame in range(video.num_frames):
        yield _frame(frame, backgrounds, camera, actors, (width, height))


def render(video: VideoPlan, path: Path, settings: CorpusSettings | None = None) -> None:
    """Write the video to `path` as H.264 in MP4, the same bytes every time.

    One encoder thread and no scene cuts: the bytes depend on the plan, the settings and the
    versions of libx264, Pillow and NumPy alone.
    """
    settings = settings or CorpusSettings()
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=video.frames_per_second)
        stream.width, stream.height = settings.width_pixels, settings.height_pixels
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1
        stream.options = {
            "preset": "ultrafast",
            "crf": str(settings.constant_rate_factor),
            "g": str(settings.keyframe_interval_frames),
            "x264-params": "threads=1:lookahead-threads=1:scenecut=0:cabac=1:deblock=0,0:bframes=2",
        }
        for pixels in frames(video, settings):
            picture = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def _between_pixels(picture: Image.Image) -> list[Image.Image]:
    """The picture seen from each step between two pixels, across and then down.

    Shifting it for every frame would cost more than all else that is drawn.
    """
    return [
        picture.transform(
            picture.size,
            Image.Transform.AFFINE,
            (1, 0, across / _STEPS_A_PIXEL, 0, 1, down / _STEPS_A_PIXEL),
            Image.Resampling.BILINEAR,
        )
        for down in range(_STEPS_A_PIXEL)
        for across in range(_STEPS_A_PIXEL)
    ]


def _actors(
    video: VideoPlan, settings: CorpusSettings, scene: Scene, random: Random
) -> list[_Actor]:
    """The passers-by, far ones first, then the figure."""
    width, height = settings.width_pixels, settings.height_pixels
    tall = height * random.uniform(settings.min_figure_height, settings.max_figure_height)
    home = width * (0.5 + random.uniform(-1, 1) * settings.max_figure_offset)
    foot = height * _FOOT_HEIGHT
    figure = _Actor(
        painter=FigurePainter(draw_look(random), tall, settings.supersampling),
        joints=joints(poses_of(video, settings.blend_seconds)),
        first_frame=0,
        foot_pixels=(home, foot),
        height_pixels=tall,
        shadow=_shadow(tall),
    )
    red, green, blue = scene.picture.resize((1, 1), Image.Resampling.BOX).tobytes()
    actors = []
    for passer_by in sorted(video.passers_by, key=lambda who: -who.distance):
        look = draw_look(random)
        # Size falls with the distance to the horizon, which lies a little above the ground's top.
        far = foot + passer_by.distance * (scene.ground_top_pixels - foot) * 0.9
        size = 0.93 * tall * (far - 0.42 * foot) / (foot - 0.42 * foot)
        seconds = 0.5 + (width + 1.4 * size) / (passer_by.heights_a_second * size)
        times = np.arange(int(seconds * video.frames_per_second)) / video.frames_per_second
        enters = width + 0.7 * size if passer_by.mirrored else -0.7 * size
        actors.append(
            _Actor(
                painter=FigurePainter(
                    dimmed(look, (red, green, blue), 0.1 + 0.3 * passer_by.distance),
                    size,
                    settings.supersampling,
                ),
                joints=joints(walker(passer_by, times)),
                first_frame=passer_by.start_frame,
                foot_pixels=(enters, far),
                height_pixels=size,
                shadow=_shadow(size),
            )
        )
    return [*actors, figure]


def _frame(
    frame: int,
    backgrounds: list[Image.Image],
    camera: Camera,
    actors: list[_Actor],
    size: tuple[int, int],
) -> NDArray[np.uint8]:
    steps = np.rint(camera.shift_pixels[frame] * _STEPS_A_PIXEL).astype(int)
    shift = steps / _STEPS_A_PIXEL
    whole, part = steps // _STEPS_A_PIXEL + MARGIN_PIXELS, steps % _STEPS_A_PIXEL
    left, top = int(whole[0]), int(whole[1])
    background = backgrounds[int(part[1]) * _STEPS_A_PIXEL + int(part[0])]
    picture = background.crop((left, top, left + size[0], top + size[1]))
    for actor in actors:
        at = frame - actor.first_frame
        if 0 <= at < len(actor.joints):
            _paint_actor(picture, actor, actor.joints[at], np.array(actor.foot_pixels) - shift)
    brightness = float(camera.brightness[frame])
    table = np.rint(np.minimum(brightness * np.arange(256), 255.0)).astype(np.uint8)
    lit = np.frombuffer(picture.tobytes().translate(table.tobytes()), dtype=np.uint8)
    return camera.noise[int(camera.noise_order[frame])].added_to(lit.reshape(size[1], size[0], 3))


def _paint_actor(picture: Image.Image, actor: _Actor, at: Floats, foot: Floats) -> None:
    pelvis = float(at[JOINT["pelvis"], 0])
    x = foot[0] + actor.height_pixels * pelvis - 0.5 * actor.shadow.width
    y = foot[1] - 0.5 * actor.shadow.height
    picture.paste((18, 14, 22), (round(x), round(y)), actor.shadow)
    actor.painter.paint(picture, at, (float(foot[0]), float(foot[1])))


def _shadow(height_pixels: float) -> Image.Image:
    """A soft ellipse on the ground, as a mask."""
    half_width, half_height = 0.2 * height_pixels, 0.035 * height_pixels
    blur = 0.02 * height_pixels
    edge = 3 * blur
    mask = Image.new("L", (round(2 * (half_width + edge)), round(2 * (half_height + edge))), 0)
    box = (edge, edge, edge + 2 * half_width, edge + 2 * half_height)
    ImageDraw.Draw(mask).ellipse(box, fill=105)
    return mask.filter(ImageFilter.GaussianBlur(blur))
