"""The rows of the ablation: each a change of the corpus's own recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from backtal_training.settings import Recipe, Supervision


@dataclass(frozen=True)
class Arm:
    """What is changed, section by section of the recipe, and what is learned from."""

    title: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    supervision: Supervision = "clicks"
    temporal: Literal["windows", "resize"] = "windows"

    def recipe(self, base: Recipe, seed: int) -> Recipe:
        """The base recipe with the changes; nothing is held out, the last epoch is kept."""
        raw = base.model_dump()
        for section, change in self.changes.items():
            raw[section] = {**raw[section], **change} if isinstance(change, Mapping) else change
        raw["selection"]["held_out_fraction"] = 0.0
        raw["seed"] = seed
        return Recipe.model_validate(raw)


def _beyond(title: str, **changes: Any) -> Arm:
    return Arm(f"method + {title}", changes)


ARMS: dict[str, Arm] = {
    "released": Arm(
        "`released`: whole videos resized, its layout and its localization",
        {"network": {"layout": "released"}},
        temporal="resize",
    ),
    "labels": Arm("video labels only", supervision="video_labels"),
    "clicks": Arm("+ clicks", {"losses": {"separation_weight": 0.0, "affinity_weight": 0.0}}),
    "separation": Arm("+ score separation", {"losses": {"affinity_weight": 0.0}}),
    "method": Arm("+ affinity: the method, on windows"),
    "released_layout": Arm(
        "the method in the `released` layout", {"network": {"layout": "released"}}
    ),
    "bfloat16": Arm("the method, trained in bfloat16", {"optimizer": {"precision": "bfloat16"}}),
    "average": _beyond("averaged weights", optimizer={"ema_decay": 0.99}),
    "hard_negatives": _beyond(
        "clicks as hard negatives with a margin", losses={"hard_negative_weight": 1.0}
    ),
    "negatives_spread": _beyond(
        "hard negatives, clicks spread",
        losses={"hard_negative_weight": 1.0},
        relabel={"spread_positions": 3, "spread_cosine": 0.8},
    ),
    "negatives_spread_separation": _beyond(
        "hard negatives, clicks spread, score separation ten times",
        losses={"hard_negative_weight": 1.0, "separation_weight": 10.0},
        relabel={"spread_positions": 3, "spread_cosine": 0.8},
    ),
    "scales": _beyond("several time scales", time_scales=(0.5, 0.75, 1.0, 1.5, 2.0)),
    "spread": _beyond("clicks spread", relabel={"spread_positions": 3, "spread_cosine": 0.8}),
    "drop": _beyond("conflicting clicks dropped", relabel={"drop_above": 0.75}),
    "negatives_spread_drop": _beyond(
        "hard negatives, clicks spread, conflicting ones dropped: the recipe of `own.yaml`",
        losses={"hard_negative_weight": 1.0},
        relabel={"spread_positions": 3, "spread_cosine": 0.8, "drop_above": 0.75},
    ),
    "pseudo": _beyond(
        "pseudo-labels of an averaged teacher",
        optimizer={"ema_decay": 0.99},
        relabel={"pseudo_weight": 1.0},
    ),
    "all": _beyond(
        "average, hard negatives, pseudo-labels",
        optimizer={"ema_decay": 0.99},
        losses={"hard_negative_weight": 1.0},
        relabel={"pseudo_weight": 1.0},
    ),
    "frames": Arm("full supervision", supervision="frames"),
}
