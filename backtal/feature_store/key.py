"""Under which name a video's features are kept: of all that they depend on, to the bit."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import PackageNotFoundError, version

import backtal
from backtal.features import FeatureProvenance
from backtal.manifest import FeatureManifest, Manifest
from backtal.precision import computed_in
from backtal.video import VideoLimits

# What pixels and flow are made by; their versions may differ in a bit.
LIBRARIES = ("av", "opencv-contrib-python-headless")


def feature_key(
    video: str,
    manifest: Manifest | FeatureManifest,
    provenance: FeatureProvenance,
    limits: VideoLimits,
) -> str:
    """The key of the features that `manifest`'s backbones give for the content `video`.

    The limits are part of it: a video that is kept once passed them, and they need not be checked
    again. Of the bundle only what makes features is, so that others with its backbones share them.
    """
    networks = [manifest.backbones[backbone.stream] for backbone in provenance.backbones]
    made_of = {
        "video": video,
        "provenance": provenance.model_dump(mode="json", exclude={"backbones"}),
        "streams": [backbone.stream for backbone in provenance.backbones],
        "networks": [
            [network.sha256, network.backend, computed_in(network.precision)]
            for network in networks
        ],
        "target": manifest.target if isinstance(manifest, Manifest) else None,
        "limits": limits.model_dump(mode="json"),
        "versions": [backtal.__version__, *map(_version, LIBRARIES)],
    }
    return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None
