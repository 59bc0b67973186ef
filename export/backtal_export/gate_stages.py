"""The two sides of a gate, on this machine's CPU: a bundle in float32, and as it is served."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from backtal.manifest import Manifest, Network
from backtal.repository import float32_path, network_path
from backtal.runtime import OnnxStages
from backtal_export.float16 import rounded_as_float16
from backtal_export.runtimes import REFERENCE


@contextmanager
def in_float32(repository: Path, manifest: Manifest) -> Iterator[OnnxStages]:
    """The measure itself: every network in float32, by ONNX Runtime."""

    def place(network: Network, path: Path) -> None:
        path.symlink_to(float32_path(repository, network).absolute())

    with _placed(float32_manifest(manifest), place) as stages:
        yield stages


@contextmanager
def as_served(repository: Path, manifest: Manifest) -> Iterator[OnnxStages]:
    """Every network as the bundle's target computes it; float16 is `rounded_as_float16`."""

    def place(network: Network, path: Path) -> None:
        served = network_path(repository, network.model)
        if network.precision == "float16":
            path.write_bytes(rounded_as_float16(served.read_bytes()))
        else:
            path.symlink_to(served.absolute())

    with _placed(manifest, place) as stages:
        yield stages


def float32_manifest(manifest: Manifest) -> Manifest:
    """The same bundle, its networks computed in float32 by ONNX Runtime."""
    exact = {"precision": REFERENCE.precision, "backend": REFERENCE.backend}
    return manifest.model_copy(
        update={
            "backbones": {
                stream: network.model_copy(update=exact)
                for stream, network in manifest.backbones.items()
            },
            "cas": manifest.cas.model_copy(update=exact),
        }
    )


@contextmanager
def _placed(manifest: Manifest, place: Callable[[Network, Path], None]) -> Iterator[OnnxStages]:
    """Stages on files that `place` puts where each network's is looked for."""
    with tempfile.TemporaryDirectory(prefix="backtal-gate-") as name:
        folder = Path(name)
        for network in manifest.networks:
            path = network_path(folder, network.model)
            path.parent.mkdir(parents=True)
            place(network, path)
        yield OnnxStages(folder, manifest)
