"""The stages in process: offline work, tests, `detect --local`.

It runs the networks of the model repository that Triton serves. With the same options, batches
and thread count the answers are the server's: in float32 bit for bit, in another precision within
the gate that the bundle passed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from backtal.errors import Internal, InvalidArgument, NotFound
from backtal.features import FloatArray
from backtal.flow import plan_flow_fields
from backtal.manifest import FeatureManifest, Manifest, Network
from backtal.networks import PROVIDERS, OpenNetwork, num_cores, open_network, session_options
from backtal.repository import load_bundle, network_path
from backtal.stages import CasOutput, Clips

__all__ = ["PROVIDERS", "OnnxStages", "load_bundle", "num_cores", "session_options"]


class OnnxStages:
    """A bundle's networks, ONNX files run in this process; see `backtal.pipeline.Stages`.

    A network is loaded when it is first used, so that features alone need no CAS network.
    """

    def __init__(
        self,
        repository: Path,
        manifest: Manifest | FeatureManifest,
        threads: int | None = None,
    ) -> None:
        if threads is not None and threads < 1:
            raise InvalidArgument(f"threads is {threads}, allowed are whole numbers from 1")
        self._repository = repository
        self._manifest = manifest
        self._threads = threads
        self._open: dict[str, OpenNetwork] = {}

    def flow_fields(self, frames: NDArray[np.uint8]) -> FloatArray:
        """Frames [m + 1, 224, 224, 3] in their order to the flow between them, by OpenCV."""
        return plan_flow_fields(frames, self._manifest.description.clip_plan)

    def features(self, stream: str, clips: Clips) -> FloatArray:
        """Clips to features [n, D] by the stream's backbone."""
        network = next(
            (net for name, net in self._manifest.backbones.items() if name == stream), None
        )
        if network is None:
            streams = ", ".join(self._manifest.backbones)
            raise InvalidArgument(f"stream is {stream!r}, allowed are {streams}")
        (features,) = self._network(network).run(["features"], {"clips": clips})
        return np.asarray(features, np.float32)

    def cas(self, features: FloatArray) -> CasOutput:
        """Features [B, D, L] to the class activation sequence."""
        if isinstance(self._manifest, FeatureManifest):
            raise Internal(f"{self._manifest.description.name} are backbones without a CAS")
        network = self._network(self._manifest.cas)
        if self._manifest.description.cas.magnitude:
            return CasOutput(*network.run(["cas", "magnitude"], {"features": features}))
        return CasOutput(*network.run(["cas"], {"features": features}))

    def _network(self, network: Network) -> OpenNetwork:
        if network.model not in self._open:
            path = network_path(self._repository, network.model)
            if not path.is_file():
                raise NotFound(f"no such file: {path}, the network {network.model}")
            self._open[network.model] = open_network(
                path, network.backend, network.precision, self._threads
            )
        return self._open[network.model]
