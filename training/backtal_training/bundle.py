"""What a checkpoint's bundle is, as its recipe and the features it was trained on say."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import get_args

from backtal.errors import InvalidFile
from backtal.features import FeatureSequence
from backtal.manifest import Backbone, BundleDescription, CasKind, ClipPlan, StreamName
from backtal.published import PUBLISHED
from backtal_training.settings import Recipe

PUBLISHED_BACKBONES = "published-i3d-"
"""What the names of the backbones behind published features begin with: no file is theirs."""


def describe(
    recipe: Recipe, classes: Sequence[str], sequence: FeatureSequence
) -> BundleDescription:
    """The description of a network that is trained by `recipe` on features like `sequence`.

    Raises InvalidFile where the features do not say which backbone and clip plan made them:
    nothing could be served that fits them.
    """
    provenance, streams = sequence.provenance, sequence.streams
    if provenance == PUBLISHED:
        return describe_published(recipe, classes, sequence.feature_dim)
    if provenance.clip_plan is None:
        raise InvalidFile("the features do not say which clip plan they were made with")
    if len(provenance.backbone_sha256) != len(streams):
        raise InvalidFile(
            f"the features have streams {streams}, but the hashes of "
            f"{len(provenance.backbone_sha256)} backbones"
        )
    backbones = provenance.backbones or _i3d(sequence)
    said = [(part.stream, part.sha256) for part in backbones]
    dim = sum(part.feature_dim for part in backbones)
    found = list(zip(streams, provenance.backbone_sha256, strict=True))
    if said != found or dim != sequence.feature_dim:
        raise InvalidFile(
            f"the features are {sequence.feature_dim} of {found}, but say that they are {dim} of "
            f"{said}"
        )
    return _description(recipe, classes, provenance.clip_plan, backbones)


def _i3d(sequence: FeatureSequence) -> tuple[Backbone, ...]:
    """What features that say no more than a hash are of."""
    streams = sequence.streams
    unknown = [stream for stream in streams if stream not in get_args(StreamName)]
    if unknown or sequence.feature_dim % len(streams):
        raise InvalidFile(
            f"{sequence.feature_dim} features of streams {streams}: "
            f"allowed are equal parts of {get_args(StreamName)}"
        )
    return tuple(
        Backbone.model_validate(
            {
                "name": f"i3d-{stream}",
                "stream": stream,
                "sha256": sha256,
                "feature_dim": sequence.feature_dim // len(streams),
            }
        )
        for stream, sha256 in zip(streams, sequence.provenance.backbone_sha256, strict=True)
    )


def describe_published(
    recipe: Recipe, classes: Sequence[str], feature_dim: int
) -> BundleDescription:
    """The description of a network for BackTAL's published features, RGB above flow.

    Which weights made them is not known: their backbones carry a hash that no file has, so that
    the bundle takes features, and no video. Raises InvalidFile for an odd number of features.
    """
    if feature_dim % 2:
        raise InvalidFile(f"{feature_dim} features: published ones are RGB and flow, half each")
    streams = get_args(StreamName)
    backbones = tuple(
        Backbone(
            name=f"{PUBLISHED_BACKBONES}{stream}",
            stream=stream,
            sha256=hashlib.sha256(f"BackTAL, published features, {stream}".encode()).hexdigest(),
            feature_dim=feature_dim // 2,
        )
        for stream in streams
    )
    return _description(recipe, classes, ClipPlan(), backbones)


def _description(
    recipe: Recipe,
    classes: Sequence[str],
    clip_plan: ClipPlan,
    backbones: tuple[Backbone, ...],
) -> BundleDescription:
    return BundleDescription(
        name=recipe.name,
        classes=tuple(classes),
        clip_plan=clip_plan,
        backbones=backbones,
        grid=recipe.grid,
        cas=CasKind(kind="logits", background=True, magnitude=True),
        localization=recipe.localization,
    )
