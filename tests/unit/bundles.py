"""Small bundle descriptions for tests."""

from __future__ import annotations

from typing import Any, Literal

from backtal.localization import LocalizationSettings
from backtal.manifest import Backbone, BundleDescription, CasKind, ClipPlan, Grid


def describe(
    num_classes: int = 2,
    *,
    kind: Literal["logits", "probability"] = "probability",
    window_positions: int = 16,
    position_seconds: float = 1.0,
    background: bool = False,
    magnitude: bool = False,
    **settings: Any,
) -> BundleDescription:
    """A bundle with classes c0, c1, ...; `settings` are those of localization."""
    backbone = Backbone(name="i3d", stream="rgb", sha256="0" * 64, feature_dim=4)
    return BundleDescription(
        name="small",
        classes=tuple(f"c{i}" for i in range(num_classes)),
        clip_plan=ClipPlan(),
        backbones=(backbone,),
        grid=Grid(position_seconds=position_seconds, window_positions=window_positions),
        cas=CasKind(kind=kind, background=background, magnitude=magnitude),
        localization=LocalizationSettings(**settings),
    )
