"""The stages in process, by ONNX Runtime: offline work, tests, `detect --local`.

It reads the networks of the model repository that Triton serves. With the same session options,
batches and thread count the answers are the server's, bit for bit.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backtal.errors import Internal, InvalidArgument, InvalidFile, MissingDependency, NotFound
from backtal.features import FloatArray
from backtal.flow import plan_flow_fields
from backtal.manifest import MANIFEST_NAME, FeatureManifest, Manifest, Network
from backtal.stages import CasOutput, Clips

PROVIDERS = ("CPUExecutionProvider",)


def num_cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def session_options(threads: int | None = None) -> Any:
    """ONNX Runtime's options, the same wherever a network runs; `threads` of None: all cores.

    Raises MissingDependency where ONNX Runtime is not installed.
    """
    options = _onnxruntime().SessionOptions()
    options.intra_op_num_threads = threads or num_cores()
    options.inter_op_num_threads = 1
    # Threads that spin between runs take the core that decoding needs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return options


def load_bundle(repository: Path, bundle: str) -> Manifest:
    """The manifest of a repository's bundle. Raises NotFound, naming the bundles there are."""
    path = repository / bundle / "1" / MANIFEST_NAME
    if not path.is_file():
        found = sorted(file.parent.parent.name for file in repository.glob(f"*/1/{MANIFEST_NAME}"))
        bundles = ", ".join(name for name in found if not name.endswith("_stream"))
        raise NotFound(f"no bundle {bundle!r} in {repository}; it has: {bundles or 'none'}")
    return Manifest.load(path)


class OnnxStages:
    """A bundle's networks as ONNX Runtime sessions; see `backtal.pipeline.Stages`.

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
        self._options = session_options(threads)
        self._sessions: dict[str, Any] = {}

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
        (features,) = self._session(network).run(["features"], {"clips": clips})
        return np.asarray(features, np.float32)

    def cas(self, features: FloatArray) -> CasOutput:
        """Features [B, D, L] to the class activation sequence."""
        if isinstance(self._manifest, FeatureManifest):
            raise Internal(f"{self._manifest.description.name} are backbones without a CAS")
        session = self._session(self._manifest.cas)
        if self._manifest.description.cas.magnitude:
            return CasOutput(*session.run(["cas", "magnitude"], {"features": features}))
        return CasOutput(*session.run(["cas"], {"features": features}))

    def _session(self, network: Network) -> Any:
        if network.model not in self._sessions:
            path = self._repository / network.model / "1" / "model.onnx"
            if not path.is_file():
                raise NotFound(f"no such file: {path}, the network {network.model}")
            runtime = _onnxruntime()
            try:
                session = runtime.InferenceSession(str(path), self._options, providers=PROVIDERS)
            except Exception as error:
                raise InvalidFile(f"{path} is no network that can be loaded: {error}") from None
            self._sessions[network.model] = session
        return self._sessions[network.model]


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise MissingDependency(
            "onnxruntime is not installed: pip install 'backtal[local]', or onnxruntime-gpu"
        ) from None
    return onnxruntime
