"""What happens when in each video: planned without drawing anything.

Every video has a random generator of its own, seeded by the corpus's seed and the video's name,
so that any slice can be made alone. The standard library's generator is used: its numbers are
the same on every machine and version.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from random import Random

from backtal.errors import NotFound
from backtal_training.corpus.settings import ACTIONS, HABIT, OWN_SCENE, CorpusSettings

FILLERS = (
    "sway",
    "walk",
    "gesture",
    "scratch",
    "march",
    "stretch",
    "turn",
    "phone",
    "drink",
    "wave",
)
"""What the figure does where it does nothing that counts."""

_SECONDS_A_REPETITION = {
    "jumping_jack": (0.75, 1.1),
    "squat": (1.2, 1.9),
    "bow": (1.3, 2.0),
    "high_kick": (0.95, 1.4),
    "arm_windmill": (0.7, 1.1),
    "boxing": (0.6, 0.9),
}
_YAW_RADIANS = {
    "jumping_jack": (0.0, 0.4),
    "squat": (0.5, 1.2),
    "bow": (0.8, 1.4),
    "high_kick": (0.9, 1.4),
    "arm_windmill": (0.6, 1.2),
    "boxing": (0.8, 1.35),
}


@dataclass(frozen=True)
class Instance:
    """One action, [start_frame, end_frame): where its weight in the pose is over a half."""

    start_frame: int
    end_frame: int
    label: str
    num_repetitions: int
    amplitude: float
    phase: float
    yaw_radians: float
    mirrored: bool
    shift: float
    """Sideways, in heights of the body."""


@dataclass(frozen=True)
class Filler:
    """One piece of background, [start_frame, end_frame), of no class."""

    start_frame: int
    end_frame: int
    kind: str
    amplitude: float
    tempo: float
    phase: float
    yaw_radians: float
    mirrored: bool


@dataclass(frozen=True)
class PasserBy:
    """Somebody who walks through behind: enters at start_frame, from the left if not mirrored."""

    start_frame: int
    distance: float
    """0 is right behind the figure, 1 is at the far end of the ground."""
    heights_a_second: float
    mirrored: bool


@dataclass(frozen=True)
class VideoPlan:
    """All that is needed to draw one video with the corpus's settings."""

    name: str
    subset: str
    label: str
    scene: str
    num_frames: int
    frames_per_second: int
    look_seed: int
    instances: tuple[Instance, ...]
    fillers: tuple[Filler, ...]
    passers_by: tuple[PasserBy, ...]
    click_seconds: tuple[float, ...]

    @property
    def duration_seconds(self) -> float:
        """Seconds from the first frame to the end of the last."""
        return self.num_frames / self.frames_per_second

    @property
    def background_fraction(self) -> float:
        """The part of the video that is in no instance."""
        action = sum(instance.end_frame - instance.start_frame for instance in self.instances)
        return 1.0 - action / self.num_frames

    @property
    def sha256(self) -> str:
        """Of the whole plan, as hex."""
        return _sha256(asdict(self))


@dataclass(frozen=True)
class CorpusPlan:
    """Every video's timeline."""

    settings: CorpusSettings
    videos: tuple[VideoPlan, ...]

    @property
    def sha256(self) -> str:
        """Of all videos' plans, as hex."""
        return _sha256([video.sha256 for video in self.videos])

    def video(self, name: str) -> VideoPlan:
        """The video of that name. Raises NotFound."""
        for video in self.videos:
            if video.name == name:
                return video
        raise NotFound(f"no video {name!r} in the corpus; there are {self._span()}")

    def _span(self) -> str:
        if not self.videos:
            return "none"
        return f"{len(self.videos)}, {self.videos[0].name} to {self.videos[-1].name}"


def plan(settings: CorpusSettings | None = None) -> CorpusPlan:
    """The timelines of the whole corpus: training videos, then test videos, classes in turn."""
    settings = settings or CorpusSettings()
    counts = {
        "training": settings.training_videos_per_class,
        "test": settings.test_videos_per_class,
    }
    videos = [
        plan_video(settings, subset, index)
        for subset, per_class in counts.items()
        for index in range(per_class * len(ACTIONS))
    ]
    return CorpusPlan(settings=settings, videos=tuple(videos))


def plan_video(settings: CorpusSettings, subset: str, index: int) -> VideoPlan:
    """The timeline of video `index` of `subset`; its class is ``ACTIONS[index % 6]``."""
    name = f"{subset}_{index:04d}"
    random = Random(f"{settings.seed}/{name}")
    label = ACTIONS[index % len(ACTIONS)]
    scene = OWN_SCENE[label]
    if random.random() >= settings.own_scene_probability:
        scene = random.choice([other for other in OWN_SCENE.values() if other != scene])
    fps = settings.frames_per_second
    num_frames = round(random.uniform(settings.min_video_seconds, settings.max_video_seconds) * fps)
    spans = _action_spans(settings, num_frames, random)
    instances = tuple(
        _instance(span, fps, own, random)
        for span, own in zip(spans, _labels(settings, label, len(spans), random), strict=True)
    )
    return VideoPlan(
        name=name,
        subset=subset,
        label=label,
        scene=scene,
        num_frames=num_frames,
        frames_per_second=fps,
        look_seed=random.getrandbits(48),
        instances=instances,
        fillers=_fillers(settings, label, spans, num_frames, random),
        passers_by=_passers_by(settings, num_frames, random),
        click_seconds=_clicks(settings, name, spans, num_frames) if subset == "training" else (),
    )


def _action_spans(
    settings: CorpusSettings, num_frames: int, random: Random
) -> list[tuple[int, int]]:
    """Start and end frames of the instances; every bound of the settings holds."""
    fps = settings.frames_per_second
    shortest = _ceil(settings.min_instance_seconds * fps)
    longest = int(settings.max_instance_seconds * fps + 1e-6)
    gap = _ceil(settings.min_gap_seconds * fps)
    room = int(num_frames * (1.0 - settings.min_background_fraction) + 1e-6)
    most = min(settings.max_instances, room // shortest, (num_frames - gap) // (shortest + gap))
    count = random.randint(settings.min_instances, max(most, settings.min_instances))
    room = min(room, num_frames - (count + 1) * gap)
    lengths: list[int] = []
    for index in range(count):
        left = room - sum(lengths) - shortest * (count - index - 1)
        lengths.append(random.randint(shortest, max(shortest, min(longest, left))))
    random.shuffle(lengths)
    slack = num_frames - sum(lengths) - (count + 1) * gap
    cuts = sorted(random.randint(0, slack) for _ in range(count))
    spans, used = [], 0
    for index, (cut, length) in enumerate(zip(cuts, lengths, strict=True)):
        start = cut + (index + 1) * gap + used
        spans.append((start, start + length))
        used += length
    return spans


def _labels(settings: CorpusSettings, label: str, count: int, random: Random) -> list[str]:
    if count < 2 or random.random() >= settings.second_class_probability:
        return [label] * count
    second = random.choice([other for other in ACTIONS if other != label])
    of_second = random.randint(1, count // 2)
    labels = [second] * of_second + [label] * (count - of_second)
    random.shuffle(labels)
    return labels


def _instance(span: tuple[int, int], fps: int, label: str, random: Random) -> Instance:
    seconds = (span[1] - span[0]) / fps
    period = random.uniform(*_SECONDS_A_REPETITION[label])
    mirrored = random.random() < 0.5
    return Instance(
        start_frame=span[0],
        end_frame=span[1],
        label=label,
        num_repetitions=max(2, round(seconds / period)),
        amplitude=_draw(random, 0.85, 1.1),
        phase=_draw(random, -0.08, 0.08),
        yaw_radians=_draw(random, *_YAW_RADIANS[label]) * (-1 if random.random() < 0.5 else 1),
        mirrored=mirrored,
        shift=_draw(random, -0.06, 0.06),
    )


def _fillers(
    settings: CorpusSettings,
    label: str,
    spans: list[tuple[int, int]],
    num_frames: int,
    random: Random,
) -> tuple[Filler, ...]:
    edges = [0, *(frame for span in spans for frame in span), num_frames]
    fillers = []
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        for piece in _pieces(settings, start, end, random):
            habit = random.random() < settings.habit_probability
            fillers.append(
                Filler(
                    start_frame=piece[0],
                    end_frame=piece[1],
                    kind=HABIT[label] if habit else random.choice(FILLERS),
                    amplitude=_draw(random, 0.75, 1.1),
                    tempo=_draw(random, 0.8, 1.25),
                    phase=_draw(random, 0.0, 1.0),
                    yaw_radians=_draw(random, -0.8, 0.8),
                    mirrored=random.random() < 0.5,
                )
            )
    return tuple(fillers)


def _pieces(
    settings: CorpusSettings, start: int, end: int, random: Random
) -> list[tuple[int, int]]:
    """Cut a gap into pieces of a filler's length; a gap too short to cut is one piece."""
    fps = settings.frames_per_second
    pieces = []
    while end - start > (settings.min_filler_seconds + settings.max_filler_seconds) * fps:
        cut = start + round(
            random.uniform(settings.min_filler_seconds, settings.max_filler_seconds) * fps
        )
        pieces.append((start, cut))
        start = cut
    return [*pieces, (start, end)]


def _passers_by(settings: CorpusSettings, num_frames: int, random: Random) -> tuple[PasserBy, ...]:
    expected = settings.passers_by_a_minute * num_frames / settings.frames_per_second / 60.0
    count = int(random.uniform(0.0, 2.0 * expected) + 0.5)
    return tuple(
        PasserBy(
            start_frame=random.randrange(-50, num_frames),
            distance=_draw(random, 0.25, 0.8),
            heights_a_second=_draw(random, 0.45, 0.9),
            mirrored=random.random() < 0.5,
        )
        for _ in range(count)
    )


def _clicks(
    settings: CorpusSettings, name: str, spans: list[tuple[int, int]], num_frames: int
) -> tuple[float, ...]:
    """Background times, from a generator of their own."""
    random = Random(f"{settings.seed}/{name}/clicks")
    fps = settings.frames_per_second
    margin = _ceil(settings.click_margin_seconds * fps)
    wanted = max(settings.min_clicks, round(num_frames / fps / settings.seconds_a_click))
    free = [
        frame
        for frame in range(num_frames)
        if all(frame <= start - margin or frame >= end + margin for start, end in spans)
    ]
    random.shuffle(free)
    chosen: list[int] = []
    apart = settings.click_distance_seconds * fps
    for frame in free:
        if len(chosen) == wanted:
            break
        if all(abs(frame - other) >= apart for other in chosen):
            chosen.append(frame)
    return tuple(round(frame / fps, 4) for frame in sorted(chosen))


def _draw(random: Random, low: float, high: float) -> float:
    return round(random.uniform(low, high), 4)


def _ceil(value: float) -> int:
    return -int(-value // 1) if abs(value - round(value)) > 1e-6 else round(value)


def _sha256(content: object) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
