"""What a checkpoint's bundle is, as its recipe and the features it was trained on say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from backtal.errors import InvalidFile
from backtal.features import FeatureSequence
from backtal.manifest import Backbone, BundleDescription, CasKind, StreamName
from backtal_training.settings import Recipe


def describe(
    recipe: Recipe, classes: Sequence[str], sequence: FeatureSequence
) -> BundleDescription:
    """The description of a network that is trained by `recipe` on features like `sequence`.

    Raises InvalidFile where the features do not say which backbone and clip plan made them:
    nothing could be served that fits them.
    """
    provenance, streams = sequence.provenance, sequence.streams
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
    return BundleDescription(
        name=recipe.name,
        classes=tuple(classes),
        clip_plan=provenance.clip_plan,
        backbones=backbones,
        grid=recipe.grid,
        cas=CasKind(kind="logits", background=True, magnitude=True),
        localization=recipe.served_localization,
    )


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
