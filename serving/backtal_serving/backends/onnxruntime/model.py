"""A Triton backend named `onnxruntime`: see `backtal_serving.network_model`.

Of the native backend's parameters it knows `intra_op_thread_count` and `inter_op_thread_count`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from backtal.networks import OnnxRuntimeNetwork, OpenNetwork, session_options
from backtal_serving.network_model import NetworkModel, number


class TritonPythonModel(NetworkModel):
    """One instance of one network, by ONNX Runtime."""

    def open(self, path: Path, config: dict[str, Any]) -> OpenNetwork:
        """See `NetworkModel.open`."""
        options = session_options(number(config, "intra_op_thread_count") or None)
        options.inter_op_num_threads = number(config, "inter_op_thread_count") or 1
        return OnnxRuntimeNetwork(path, options)
