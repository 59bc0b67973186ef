"""Which backbones a checkpoint names: those that its features say made them."""

from __future__ import annotations

import numpy as np
import pytest

from backtal.errors import InvalidFile
from backtal.features import FeatureProvenance, FeatureSequence
from backtal.manifest import Backbone, ClipPlan
from backtal.settings import read_yaml
from backtal_training.bundle import describe
from backtal_training.settings import DEMO_RECIPE, Recipe

LIGHT = Backbone(name="efficientnet-lite0", stream="rgb", sha256="1" * 64, feature_dim=5)
FLOW = Backbone(name="i3d-flow", stream="flow", sha256="2" * 64, feature_dim=3)
PLAN = ClipPlan(flow="dis")


def features(dim: int, *backbones: Backbone, **changes) -> FeatureSequence:
    made = FeatureProvenance(
        clip_plan=PLAN,
        backbone_sha256=("1" * 64, "2" * 64),
        backbones=backbones,
    )
    return FeatureSequence.from_equal_parts(
        np.ones((dim, 4), np.float32),
        8.0,
        streams=("rgb", "flow"),
        provenance=made.model_copy(update=changes),
    )


def described(sequence: FeatureSequence):
    return describe(read_yaml(Recipe, DEMO_RECIPE), ("jump", "run"), sequence)


def test_they_are_named_as_the_features_say_whatever_their_sizes() -> None:
    description = described(features(8, LIGHT, FLOW))
    assert description.backbones == (LIGHT, FLOW)
    assert description.feature_dim == 8
    assert description.clip_plan == PLAN


def test_features_that_say_a_hash_alone_are_i3ds_in_equal_parts() -> None:
    backbones = described(features(8)).backbones
    assert [(part.name, part.feature_dim) for part in backbones] == [
        ("i3d-rgb", 4),
        ("i3d-flow", 4),
    ]
    with pytest.raises(InvalidFile, match="7 features of streams .*equal parts"):
        described(features(7))


@pytest.mark.parametrize(
    ("sequence", "message"),
    [
        (features(9, LIGHT, FLOW), "are 9 of .* say that they are 8"),
        (features(8, FLOW, LIGHT), "say that they are 8 of .*flow.*rgb"),
        (features(5, LIGHT), "are 5 of .*flow"),
        (features(8, LIGHT, FLOW, backbone_sha256=("3" * 64, "2" * 64)), "3333"),
    ],
)
def test_features_that_contradict_themselves_are_refused(sequence, message) -> None:
    with pytest.raises(InvalidFile, match=message):
        described(sequence)


def test_a_bundle_of_flow_says_how_it_is_computed_or_takes_no_video() -> None:
    description = described(features(8, LIGHT, FLOW, clip_plan=ClipPlan()))
    assert description.clip_plan.flow is None


def test_features_made_alike_may_lack_the_backbones_names() -> None:
    full = features(8, LIGHT, FLOW).provenance
    plain = features(8).provenance
    assert plain != full
    assert plain.made_alike(full)
    assert full.made_alike(plain)
    assert not plain.model_copy(update={"decoder": "decord"}).made_alike(full)
