"""Backbones by name: an installed package offers one by an entry point of `backtal.backbones`.

`backtal features --backbone NAME` makes features with it and `backtal export` writes it for a
checkpoint that names it. docs/adding-a-backbone.md adds one.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import get_args

from backtal.errors import Internal, InvalidArgument, MissingDependency
from backtal.manifest import (
    FLOW_IN_NETWORK,
    Backbone,
    ClipPlan,
    FeatureManifest,
    FlowMethod,
    Network,
    StreamName,
)
from backtal.settings import parse

GROUP = "backtal.backbones"
Say = Callable[[str], None]


@dataclass(frozen=True)
class BackboneSource:
    """A backbone that can be made into a model file.

    name: what checkpoints call it, and the first part of its model's name in a repository.
    stream: what its clips are of. feature_dim: its share of D.
    model_file: the ONNX file (docs/adding-a-backbone.md has its contract), from a file of weights
    or, where that is None, from its own, which it fetches and keeps. The same weights give the
    same bytes: their hash is the backbone's identity. It tells `say` what takes a while.
    finds_flow: a backbone of the stream flow that takes frames, as `ClipPlan.clip_shape` has them
    where its flow is `tvl1-network`.
    """

    name: str
    stream: StreamName
    feature_dim: int
    model_file: Callable[[Path | None, Say], bytes]
    finds_flow: bool = False


def find_backbone(name: str) -> BackboneSource:
    """The installed backbone of that name.

    Raises InvalidArgument naming those there are, MissingDependency where what it needs is not
    installed.
    """
    offered = {point.name: point for point in entry_points(group=GROUP)}
    if name not in offered:
        near = difflib.get_close_matches(name, offered, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        known = ", ".join(sorted(offered)) or "none"
        raise InvalidArgument(f"no backbone {name!r} is installed, there are: {known}{hint}")
    try:
        source = offered[name].load()
    except ImportError as error:
        raise MissingDependency(
            f"the backbone {name} cannot be loaded ({error}): pip install 'backtal[export]'"
        ) from None
    if not isinstance(source, BackboneSource) or source.name != name:
        raise Internal(f"{offered[name].value} is no BackboneSource of the name {name!r}: {source}")
    return source


def write_backbones(
    repository: Path,
    names: Sequence[str],
    plan: ClipPlan,
    weights: Mapping[str, Path],
    say: Say,
) -> FeatureManifest:
    """Write the named backbones' networks into `repository` and say what features they make.

    weights: files of weights by backbone, for those that shall not use their own. A plan that
    does not say how flow is computed gets TV-L1 where a backbone is of that stream: by OpenCV, or
    by the backbone where it finds flow.

    Raises what `find_backbone` does; InvalidArgument for weights of a backbone that is not named,
    for a plan whose clips have another size than backbones take, and for one whose flow is not
    how the backbone gets it; InvalidFile where two backbones are of one stream.
    """
    check_weights(weights, names)
    wanted = ClipPlan()
    if (plan.frames_per_clip, plan.crop_pixels) != (wanted.frames_per_clip, wanted.crop_pixels):
        raise InvalidArgument(
            f"the clip plan has {plan.frames_per_clip} frames of {plan.crop_pixels} pixels a clip, "
            f"backbones take {wanted.frames_per_clip} of {wanted.crop_pixels}"
        )
    backbones: list[Backbone] = []
    networks: dict[StreamName, Network] = {}
    for name in names:
        source = find_backbone(name)
        plan = with_flow_of(source, plan)
        data = source.model_file(weights.get(name), say)
        digest = hashlib.sha256(data).hexdigest()
        network = Network(model=f"{name}-{digest[:8]}", sha256=digest)
        folder = repository / network.model / "1"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.onnx").write_bytes(data)
        networks[source.stream] = network
        backbones.append(
            Backbone(name=name, stream=source.stream, sha256=digest, feature_dim=source.feature_dim)
        )
    description = {"name": "+".join(names), "clip_plan": plan, "backbones": tuple(backbones)}
    raw = {"description": description, "backbones": networks}
    return parse(FeatureManifest, raw, source="the backbones")


def with_flow_of(source: BackboneSource, plan: ClipPlan) -> ClipPlan:
    """The plan, with a way to compute flow where the backbone is of flow and the plan has none.

    Raises InvalidArgument where the plan's is not how the backbone gets it.
    """
    if source.stream != "flow":
        return plan
    allowed = [
        method
        for method in get_args(FlowMethod)
        if (method == FLOW_IN_NETWORK) == source.finds_flow
    ]
    if plan.flow is None:
        return plan.model_copy(update={"flow": allowed[0]})
    if plan.flow not in allowed:
        takes = "finds flow itself" if source.finds_flow else "is handed flow"
        raise InvalidArgument(
            f"clip_plan.flow is {plan.flow!r}, the backbone {source.name} {takes}: allowed is "
            f"{' or '.join(allowed)}"
        )
    return plan


def check_weights(weights: Mapping[str, Path], names: Sequence[str]) -> None:
    """Raise InvalidArgument for weights of a backbone that is not among `names`."""
    for name in weights:
        if name not in names:
            raise InvalidArgument(
                f"weights are given for {name!r}, the backbones are: {', '.join(names)}"
            )


def parse_weights(words: Sequence[str]) -> dict[str, Path]:
    """Options of the form ``NAME=PATH``. Raises InvalidArgument for another form."""
    weights: dict[str, Path] = {}
    for word in words:
        name, equals, path = word.partition("=")
        if not (name and equals and path):
            raise InvalidArgument(f"--weights is {word!r}, allowed is BACKBONE=PATH")
        weights[name] = Path(path)
    return weights
