"""A Triton backend named `openvino`: see `backtal_serving.network_model`.

Of the native backend's parameters it knows `INFERENCE_NUM_THREADS` and `HINT_BF16`. Without the
hint it computes in float32, where the native one takes what OpenVINO thinks best.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from backtal.networks import OpenNetwork, OpenVinoNetwork
from backtal_serving.network_model import NetworkModel, number, text


class TritonPythonModel(NetworkModel):
    """One instance of one network, by OpenVINO."""

    def open(self, path: Path, config: dict[str, Any]) -> OpenNetwork:
        """See `NetworkModel.open`."""
        hinted = text(config, "HINT_BF16").lower() == "yes"
        threads = number(config, "INFERENCE_NUM_THREADS") or None
        return OpenVinoNetwork(path, "bfloat16" if hinted else "float32", threads)
