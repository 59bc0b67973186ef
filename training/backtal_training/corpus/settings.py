"""Every number of the generated corpus in one place."""

from __future__ import annotations

from pydantic import Field, model_validator

from backtal.settings import Settings

ACTIONS = ("jumping_jack", "squat", "bow", "high_kick", "arm_windmill", "boxing")
"""The classes, in the order of their indices."""

OWN_SCENE = {
    "jumping_jack": "gym",
    "squat": "park",
    "bow": "stage",
    "high_kick": "beach",
    "arm_windmill": "office",
    "boxing": "street",
}
"""The scene that goes together with each class: the context that a weak label is confused with."""

HABIT = {
    "jumping_jack": "march",
    "squat": "stretch",
    "bow": "gesture",
    "high_kick": "walk",
    "arm_windmill": "scratch",
    "boxing": "phone",
}
"""What the figure likes to do between the instances of each class: context that moves."""


class CorpusSettings(Settings):
    """What is drawn, and from which seed. Two equal settings plan equal corpora.

    Times are seconds, sizes are pixels of the finished frame, fractions lie in [0, 1].
    """

    seed: int = Field(default=9, ge=0)
    training_videos_per_class: int = Field(default=10, ge=0, le=1000)
    test_videos_per_class: int = Field(default=6, ge=0, le=1000)

    width_pixels: int = Field(default=340, ge=64, le=1920, multiple_of=2)
    height_pixels: int = Field(default=256, ge=64, le=1080, multiple_of=2)
    frames_per_second: int = Field(default=25, ge=5, le=60)
    constant_rate_factor: int = Field(default=23, ge=0, le=51)
    keyframe_interval_frames: int = Field(default=50, ge=1, le=1000)
    supersampling: int = Field(default=2, ge=1, le=6)

    min_video_seconds: float = Field(default=20.0, ge=10.0)
    max_video_seconds: float = Field(default=60.0, le=600.0)
    min_instances: int = Field(default=2, ge=1)
    max_instances: int = Field(default=6, ge=1)
    min_instance_seconds: float = Field(default=2.4, gt=0)
    max_instance_seconds: float = Field(default=8.0, gt=0)
    min_gap_seconds: float = Field(default=1.5, gt=0)
    min_background_fraction: float = Field(default=0.55, ge=0, lt=1)
    min_filler_seconds: float = Field(default=2.0, gt=0)
    max_filler_seconds: float = Field(default=5.0, gt=0)
    blend_seconds: float = Field(default=0.3, gt=0)

    own_scene_probability: float = Field(default=0.9, ge=0, le=1)
    second_class_probability: float = Field(default=0.1, ge=0, le=1)
    habit_probability: float = Field(default=0.4, ge=0, le=1)
    passers_by_a_minute: float = Field(default=4.0, ge=0, le=60)

    min_figure_height: float = Field(default=0.60, gt=0, description="of the frame's height")
    max_figure_height: float = Field(default=0.78, gt=0, description="of the frame's height")
    max_figure_offset: float = Field(default=0.09, ge=0, description="of the frame's width")

    seconds_a_click: float = Field(default=10.0, gt=0)
    min_clicks: int = Field(default=2, ge=1)
    click_margin_seconds: float = Field(default=0.4, ge=0)
    click_distance_seconds: float = Field(default=1.0, ge=0)

    @model_validator(mode="after")
    def _ranges(self) -> CorpusSettings:
        for what in ("video_seconds", "instances", "instance_seconds", "filler_seconds"):
            low, high = getattr(self, f"min_{what}"), getattr(self, f"max_{what}")
            if low > high:
                raise ValueError(f"min_{what} {low} is larger than max_{what} {high}")
        if self.min_figure_height > self.max_figure_height:
            raise ValueError("min_figure_height is larger than max_figure_height")
        shortest = self.min_instances * self.min_instance_seconds
        gaps = (self.min_instances + 1) * self.min_gap_seconds
        room = self.min_video_seconds * (1 - self.min_background_fraction)
        if shortest > room or shortest + gaps > self.min_video_seconds:
            raise ValueError(
                f"{self.min_instances} instances of {self.min_instance_seconds} s do not fit "
                f"into a video of {self.min_video_seconds} s with its background"
            )
        return self
