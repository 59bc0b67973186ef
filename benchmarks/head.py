"""The CAS network at 750 positions, by form, runtime and precision.

    python benchmarks/head.py [--quick] [--json FILE] [--positions 750] [--feature-dim 2048]

THUMOS14's size: D 2048, width 2048, 20 classes and background. Compared are

- the literal form in eager PyTorch: torch's Unfold, an affinity tiled over channels, both branches;
- three ways of writing the affinity convolution, of the suppressed branch alone: *unfold, weight*
  (weigh the unfolded input, one product), *weight after* (three products, each scaled by its
  affinity, added), *grouped* (one grouped convolution whose groups are the three blocks of rows
  that share an affinity, then scaled and added);
- each by ONNX Runtime and OpenVINO, and the default: what `backtal export` writes here.

Share of the matrix rate: 2 x the multiply-adds of the layers that the suppressed branch must
compute, a second, over the best float32 square product with the same threads in the same run.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from machine import matrix_rate, options, shortest, show, write
from torch import Tensor
from training_step import LiteralNetwork

from backtal.networks import num_cores, open_network
from backtal.precision import processor_has_bfloat16
from backtal_export.affinity_forms import FASTEST_FORM, FORMS, Form
from backtal_export.cas_network import cas_onnx
from backtal_export.runtimes import Runtime, choose_runtime
from backtal_training.network import BackTALNetwork, NetworkSettings

CLASSES = 20
LITERAL = "PyTorch eager, literal, both branches"


def operations(settings: NetworkSettings, positions: int) -> float:
    """2 x the multiply-adds of the suppressed branch's layers."""
    dim, hidden = settings.feature_dim, settings.hidden_dim
    per_position = (
        dim * settings.filter_hidden_dim
        + settings.filter_hidden_dim
        + 3 * dim * settings.embedding_hidden_dim
        + 3 * settings.embedding_hidden_dim * settings.embedding_dim
        + 3 * dim * hidden
        + 3 * hidden * hidden
        + hidden * (settings.num_classes + 1)
    )
    return 2.0 * per_position * positions


def main() -> int:
    parser = options(__doc__)
    parser.add_argument("--positions", type=int, default=750)
    parser.add_argument("--feature-dim", type=int, default=2048)
    arguments = parser.parse_args()
    torch.set_num_threads(num_cores())
    torch.manual_seed(0)
    settings = NetworkSettings(feature_dim=arguments.feature_dim, num_classes=CLASSES)
    network = BackTALNetwork(settings).eval()
    features = torch.rand(1, arguments.feature_dim, arguments.positions)
    rate = matrix_rate()
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        work = _variants(network, features, Path(folder))
        answers = {name: np.asarray(call()) for name, call in work.items()}
        seconds = shortest(work, 2 if arguments.quick else 8)
    rate = max(rate, matrix_rate())
    wanted = answers[LITERAL]
    scale = float(np.abs(wanted).max())
    flops = operations(settings, arguments.positions)
    share = {name: flops / taken / rate for name, taken in seconds.items()}
    rows = [
        (
            name,
            f"{taken:.3f}",
            f"{seconds[LITERAL] / taken:.2f}",
            f"{share[name]:.2f}",
            f"{float(np.abs(answers[name] - wanted).max()) / scale:.1e}",
        )
        for name, taken in seconds.items()
    ]
    title = (
        f"CAS network, {arguments.positions} positions, {flops / 1e9:.1f} GFLOP, "
        f"{num_cores()} threads, matrix rate {rate / 1e9:.0f} GFLOP/s"
    )
    show(title, ("", "s", "x literal", "share of rate", "largest error"), rows)
    default = _name(choose_runtime("embedded", None))
    runtimes = (Runtime("float32", "onnxruntime"), Runtime("float32", "openvino"))
    exact = max(map(_name, runtimes), key=lambda name: share[name])
    write(
        arguments.json,
        {
            "default": default,
            "default_over_literal": seconds[LITERAL] / seconds[default],
            "float32_share_of_matrix_rate": share[exact],
            "float32_form": exact,
            "float32_over_literal": seconds[LITERAL] / seconds[exact],
            "cas_error": float(np.abs(answers[default] - wanted).max()) / scale,
            "matrix_rate_gflops": rate / 1e9,
        },
    )
    return 0


def _variants(network: BackTALNetwork, features: Tensor, folder: Path) -> dict[str, Callable]:
    literal = LiteralNetwork(network.settings).eval()
    literal.load_state_dict(network.state_dict())
    work: dict[str, Callable] = {
        LITERAL: lambda: literal(features).suppressed.cas,
        "PyTorch eager, three products": lambda: network.infer(features)[0],
    }
    runtimes = [Runtime("float32", "onnxruntime"), Runtime("float32", "openvino")]
    if processor_has_bfloat16():
        runtimes.append(Runtime("bfloat16", "openvino"))
    for form in FORMS:
        path = folder / f"{form}.onnx"
        path.write_bytes(cas_onnx(network, form=form))
        for runtime in runtimes:
            work[_name(runtime, form)] = _run(path, runtime, features.numpy())
    return work


def _run(path: Path, runtime: Runtime, features: np.ndarray) -> Callable:
    network = open_network(path, runtime.backend, runtime.precision)
    return lambda: network.run(["cas"], {"features": features})[0]


def _name(runtime: Runtime, form: Form | None = None) -> str:
    library = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}[runtime.backend]
    return f"{library}, {runtime.precision}, {form or FASTEST_FORM[runtime.backend]}"


if __name__ == "__main__":
    sys.exit(main())
