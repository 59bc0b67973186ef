"""A step of training at THUMOS14's size: its time, memory and share of the matrix rate.

The *literal form* is the same network as the paper's code has it: torch's Unfold, an affinity
tiled over channels, both branches through both layers. Every form runs in a process of its own
with the same weights; a step is forward, losses, backward and Adam.

    python benchmarks/training_step.py [--quick] [--json FILE]

Share of the matrix rate: 2 x the multiply-adds that a step must compute (below), a second, over
the best float32 square product (2048 and 4096) with the same threads in the same run.

    U = 3 * D * H * T * B: one layer of one branch, D = H
    first layer, both branches (one product, then weights): 2 U, forward and the kernel's gradient
    second layer, both branches: 6 U, forward and two gradients
    embedding and filter: 2 x (forward, kernel's gradient) of their first layers, 3 x of the others
    classifier: 3 x, both branches

The features are data: no gradient of theirs is computed, and none is counted.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from backtal.manifest import Grid
from backtal_training.adam import Adam
from backtal_training.affinity import affinity
from backtal_training.batches import Batch
from backtal_training.losses import NO_CLICK
from backtal_training.network import (
    LEAKY_SLOPE,
    BackTALNetwork,
    Branch,
    NetworkOutput,
    NetworkSettings,
)
from backtal_training.settings import OptimizerSettings, Recipe
from backtal_training.steps import step

CLASSES, FEATURES, POSITIONS = 20, 2048, 750
SETTINGS = NetworkSettings(feature_dim=FEATURES, num_classes=CLASSES)
Layout = Literal["paper", "released"]
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Case:
    """What one process measures."""

    literal: bool
    layout: Layout
    precision: Precision
    batch_videos: int
    num_steps: int
    threads: int


@dataclass(frozen=True)
class Measured:
    """The best step's seconds, and the process's peak memory over that before the network."""

    seconds: float
    peak_bytes: int


class LiteralNetwork(BackTALNetwork):
    """The network with nothing shared and nothing computed again."""

    def forward(self, features: Tensor, lengths: Tensor | None = None) -> NetworkOutput:
        if lengths is not None:
            raise ValueError("the literal form knows no padding")
        first, second = self.filter_module.conv_1[0], self.filter_module.conv_2[0]
        foreground = torch.sigmoid(second(functional.leaky_relu(first(features), LEAKY_SLOPE)))
        embedding_module = self.embedding_module
        hidden = functional.leaky_relu(embedding_module.conv_1(features), LEAKY_SLOPE)
        embedding = functional.normalize(embedding_module.conv_2(hidden), dim=1)
        affinities = affinity(embedding)
        cas = [self._branch(one, affinities) for one in (features, foreground * features)]
        mask = torch.ones(len(features), features.shape[2], dtype=torch.bool)
        return NetworkOutput(Branch(cas[0]), Branch(cas[1]), embedding, foreground, mask)

    def _branch(self, features: Tensor, affinities: Tensor) -> Tensor:
        base = self.base_module
        for layer in (base.conv_1, base.conv_2):
            features = functional.leaky_relu(
                self._convolution(features, affinities, layer.weight), LEAKY_SLOPE
            )
        dropped = nn.functional.dropout(features, self.settings.dropout, self.training)
        return self.classifier_module.conv(dropped)  # type: ignore[no-any-return]

    def _convolution(self, features: Tensor, affinities: Tensor, weight: Tensor) -> Tensor:
        channels = features.shape[1]
        unfolded = functional.unfold(features[..., None], (3, 1), padding=(1, 0))
        if self.settings.layout == "released":
            tiled = affinities.repeat_interleave(channels, dim=1)
        else:
            tiled = affinities.repeat(1, channels, 1)
        return weight.reshape(len(weight), -1) @ (unfolded * tiled)


def needed_flops(batch_videos: int) -> float:
    """2 x the multiply-adds of a step: see the module."""
    s = SETTINGS
    per_position = (
        3 * (2 * s.feature_dim * s.hidden_dim + 6 * s.hidden_dim * s.hidden_dim)
        + 2 * (3 * s.feature_dim * s.embedding_hidden_dim + s.feature_dim * s.filter_hidden_dim)
        + 3 * (3 * s.embedding_hidden_dim * s.embedding_dim + s.filter_hidden_dim)
        + 3 * 2 * s.hidden_dim * (CLASSES + 1)
    )
    return 2.0 * per_position * POSITIONS * batch_videos


def matrix_rate(dtype: torch.dtype, sizes: Sequence[int], repeats: int = 3) -> float:
    """The best square product's FLOP a second."""
    rates = []
    for size in sizes:
        left, right = (torch.randn(size, size).to(dtype) for _ in range(2))
        torch.mm(left, right)
        rates.append(2.0 * size**3 / best_seconds(lambda a=left, b=right: a @ b, repeats))  # type: ignore[misc]
    return max(rates)


def best_seconds(function: Callable[[], object], repeats: int) -> float:
    """The shortest of `repeats` runs."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        function()
        times.append(time.perf_counter() - started)
    return min(times)


def make_thumos_batch(batch_videos: int) -> Batch:
    """Random features of whole videos, one label and about eleven clicks each."""
    random = np.random.default_rng(0)
    labels = np.zeros((batch_videos, CLASSES), np.float32)
    labels[np.arange(batch_videos), random.integers(CLASSES, size=batch_videos)] = 1
    clicks = np.where(random.random((batch_videos, POSITIONS)) < 11 / POSITIONS, CLASSES, NO_CLICK)
    features = random.standard_normal((batch_videos, FEATURES, POSITIONS), np.float32)
    frames = np.full((batch_videos, POSITIONS), NO_CLICK)
    return Batch(
        features=torch.from_numpy(features),
        lengths=torch.full((batch_videos,), POSITIONS),
        video_labels=torch.from_numpy(labels),
        click_labels=torch.from_numpy(clicks),
        frame_labels=torch.from_numpy(frames),
    )


def measure(case: Case) -> Measured:
    """Run the steps of a case in this process."""
    torch.set_num_threads(case.threads)
    batch = make_thumos_batch(case.batch_videos)
    before = _resident_bytes()
    torch.manual_seed(0)
    kind = LiteralNetwork if case.literal else BackTALNetwork
    network = kind(SETTINGS.model_copy(update={"layout": case.layout})).train()
    recipe = Recipe(
        name="benchmark",
        grid=Grid(position_seconds=0.2, window_positions=POSITIONS),
        optimizer=OptimizerSettings(precision=case.precision),
    )
    adam = Adam(network.parameters(), learning_rate=1e-4, weight_decay=5e-4)
    seconds = best_seconds(lambda: step(network, adam, batch, recipe), case.num_steps)
    return Measured(seconds, _peak_bytes() - before)


def check_forms_agree() -> None:
    """Both forms of a small network give the same CAS; else there is nothing to compare."""
    layouts: tuple[Layout, ...] = ("paper", "released")
    for layout in layouts:
        small = NetworkSettings(
            layout=layout, feature_dim=12, num_classes=3, hidden_dim=9, dropout=0.0
        )
        torch.manual_seed(0)
        ours, literal = BackTALNetwork(small), LiteralNetwork(small)
        literal.load_state_dict(ours.state_dict())
        features = torch.randn(2, 12, 11)
        one, other = ours(features), literal(features)
        torch.testing.assert_close(one.base.cas, other.base.cas)
        torch.testing.assert_close(one.suppressed.cas, other.suppressed.cas)


def in_own_process(case: Case) -> Measured:
    """The same, so that a peak is this case's alone."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, (case,))


def _resident_bytes() -> int:
    return _status("VmRSS:")


def _peak_bytes() -> int:
    return _status("VmHWM:")


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {name}")


def has_bfloat16() -> bool:
    """Whether this processor has instructions for bfloat16 products."""
    flags = Path("/proc/cpuinfo").read_text().split()
    return "amx_bf16" in flags or "avx512_bf16" in flags


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="batches of 2 instead of 16")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--batch", type=int, metavar="B", help="default: 16, with --quick 2")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, metavar="N")
    chosen = parser.parse_args(words)
    torch.set_num_threads(chosen.threads)
    check_forms_agree()
    batch = chosen.batch or (2 if chosen.quick else 16)
    cases = {
        "literal": Case(True, "released", "float32", batch, 2, chosen.threads),
        "paper": Case(False, "paper", "float32", batch, 3, chosen.threads),
        "released": Case(False, "released", "float32", batch, 2, chosen.threads),
    }
    if has_bfloat16():
        cases["bfloat16"] = Case(False, "paper", "bfloat16", batch, 3, chosen.threads)
    rates, results = [], {}
    for name, case in cases.items():
        rates.append(matrix_rate(torch.float32, (2048, 4096)))
        results[name] = in_own_process(case)
        print(f"{name}: {results[name].seconds:.2f} s", file=sys.stderr, flush=True)
    rate = max(rates)
    flops = needed_flops(batch)
    print(f"{chosen.threads} threads, matrix rate {rate / 1e9:.0f} GFLOP/s (float32)")
    print(f"a step of {batch} videos must compute {flops / 1e9:.0f} GFLOP")
    for name, one in results.items():
        share = flops / one.seconds / rate
        print(
            f"{name:10} {one.seconds:7.2f} s a step  {share:5.0%} of the float32 matrix rate  "
            f"{one.peak_bytes / 2**20:6.0f} MiB at most"
        )
    literal, paper, released = (results[name] for name in ("literal", "paper", "released"))
    figures = {
        "share_of_matrix_rate": flops / paper.seconds / rate,
        "share_of_matrix_rate_released": flops / released.seconds / rate,
        "share_of_matrix_rate_literal": flops / literal.seconds / rate,
        "step_over_literal": paper.seconds / literal.seconds,
        "memory_over_literal": paper.peak_bytes / literal.peak_bytes,
        "memory_over_literal_released": released.peak_bytes / literal.peak_bytes,
    }
    if "bfloat16" in results:
        figures["bf16_over_float32"] = paper.seconds / results["bfloat16"].seconds
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
