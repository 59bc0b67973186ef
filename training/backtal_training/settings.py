"""A training recipe: everything that is chosen before a run, in one YAML file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from backtal.localization.settings import LocalizationSettings
from backtal.manifest import Grid
from backtal.settings import Settings
from backtal_training.losses import LossSettings
from backtal_training.network import NetworkSettings
from backtal_training.relabel import RelabelSettings

DEMO_RECIPE = Path(__file__).with_name("recipes") / "demo.yaml"

Supervision = Literal["clicks", "video_labels", "frames"]
"""What a run learns from: labels and clicks, labels alone, or a class for every position."""


class WidthSettings(Settings):
    """The network's sizes; the data decide the number of features and of classes."""

    layout: Literal["paper", "released"] = "paper"
    hidden_dim: int = Field(default=2048, ge=1)
    embedding_hidden_dim: int = Field(default=512, ge=1)
    embedding_dim: int = Field(default=32, ge=1)
    filter_hidden_dim: int = Field(default=512, ge=1)
    dropout: float = Field(default=0.7, ge=0, lt=1)

    def network(self, *, feature_dim: int, num_classes: int) -> NetworkSettings:
        """The settings of a network for such data."""
        return NetworkSettings(
            feature_dim=feature_dim, num_classes=num_classes, **self.model_dump()
        )


class OptimizerSettings(Settings):
    """Adam with betas 0.9 and 0.999, and how long it runs.

    The paper's is a constant rate in float32, without clipping or averaging.
    """

    learning_rate: float = Field(default=1e-4, gt=0)
    schedule: Literal["constant", "cosine"] = "constant"
    warmup_epochs: float = Field(default=0.0, ge=0, description="linear, from 0")
    final_fraction: float = Field(default=0.0, ge=0, le=1, description="cosine: of the rate")
    clip_norm: float | None = Field(
        default=None, gt=0, description="longest gradient, over all parameters"
    )
    precision: Literal["float32", "bfloat16"] = Field(
        default="float32", description="of the network's products; weights and losses: float32"
    )
    weight_decay: float = Field(default=5e-4, ge=0)
    batch_videos: int = Field(default=16, ge=1)
    epochs: int = Field(default=40, ge=1)
    ema_decay: float | None = Field(
        default=None, gt=0, lt=1, description="average the weights over steps and keep the average"
    )


class SelectionSettings(Settings):
    """How the epoch is chosen: by mAP on videos of the training split that are held out.

    With a fraction of 0 nothing is held out and the last epoch is kept. `on_test_split` is what
    the released code does: it trains on the whole training split and its figures are no longer
    those of unseen videos, which the result file then says. A run ends early after `patience`
    evaluations in a row without a better one.
    """

    held_out_fraction: float = Field(default=0.2, ge=0, lt=1)
    on_test_split: bool = False
    every_epochs: int = Field(default=1, ge=1)
    patience: int | None = Field(default=None, ge=1)
    tious: tuple[float, ...] = Field(default=(0.5,), min_length=1, description="mAP's mean over")


class Recipe(Settings):
    """A training run.

    `temporal` is ``windows`` (a random window of T positions of a longer video, a shorter one
    whole: what is served) or ``resize`` (the paper: each video resized linearly to T positions,
    which goes with the `released` localization). With several `time_scales`, each window is of
    one of them, by chance: twice as slow with 0.5, twice as fast with 2.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$", description="of the bundle")
    seed: int = Field(default=0, ge=0)
    temporal: Literal["windows", "resize"] = "windows"
    time_scales: tuple[Annotated[float, Field(gt=0)], ...] = Field(default=(1.0,), min_length=1)
    grid: Grid
    network: WidthSettings = WidthSettings()
    losses: LossSettings = LossSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    relabel: RelabelSettings = RelabelSettings()
    selection: SelectionSettings = SelectionSettings()
    localization: LocalizationSettings = LocalizationSettings()

    @model_validator(mode="before")
    @classmethod
    def _one_ratio(cls, raw: Any) -> Any:
        """Scores are taken as they were trained: localization has the losses' ratio."""
        if not isinstance(raw, Mapping):
            return raw
        losses, localization = raw.get("losses"), raw.get("localization", {})
        if not (isinstance(losses, Mapping) and isinstance(localization, Mapping)):
            return raw
        ratio = {name: losses[name] for name in ("top_k_ratio",) if name in losses}
        return {**raw, "localization": {**ratio, **localization}}

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        ratio = self.localization.top_k_ratio
        if ratio != self.losses.top_k_ratio:
            raise ValueError(
                f"localization.top_k_ratio {ratio} differs from losses.top_k_ratio "
                f"{self.losses.top_k_ratio}: leave it out"
            )
        if (self.temporal == "resize") != (self.localization.preset == "released"):
            raise ValueError(
                f"temporal {self.temporal!r} does not go with localization.preset "
                f"{self.localization.preset!r}: resize goes with released, windows with calibrated"
            )
        if self.temporal == "resize" and self.time_scales != (1.0,):
            raise ValueError("time_scales go with temporal 'windows'")
        return self
