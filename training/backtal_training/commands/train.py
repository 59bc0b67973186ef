"""Train a network from features, video labels and background clicks into a checkpoint."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from backtal_training.trainer import Epoch, Run

METRICS_NAME = "metrics.json"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--features", type=Path, required=True, metavar="DIR", help="NAME.npz of each video"
    )
    parser.add_argument(
        "--ground-truth", type=Path, required=True, metavar="FILE", help="ActivityNet's format"
    )
    parser.add_argument("--clicks", type=Path, metavar="FILE", help="background clicks")
    parser.add_argument(
        "--recipe", type=Path, metavar="YAML", help="default: the recipe of the demo"
    )
    parser.add_argument(
        "--to", type=Path, required=True, metavar="DIR", help="the checkpoint's folder"
    )
    parser.add_argument(
        "--subset", default="training", help="of the ground truth (default: training)"
    )
    parser.add_argument("--seed", type=int, metavar="N", help="in the recipe's place")
    parser.add_argument(
        "--without-clicks", action="store_true", help="learn from video labels alone"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="default: one a core")


def run(arguments: argparse.Namespace) -> int:
    """Train, and write checkpoint and metrics."""
    import torch

    from backtal.annotations import GroundTruth
    from backtal.clicks import Clicks
    from backtal.errors import InvalidArgument
    from backtal.settings import parse, read_yaml
    from backtal_training import checkpoint
    from backtal_training.bundle import describe
    from backtal_training.datasets import load_samples
    from backtal_training.settings import DEMO_RECIPE, Recipe, Supervision
    from backtal_training.trainer import train

    if arguments.clicks is None and not arguments.without_clicks:
        raise InvalidArgument("--clicks is missing; --without-clicks learns from labels alone")
    if arguments.threads is not None:
        if arguments.threads < 1:
            raise InvalidArgument(f"--threads is {arguments.threads}, allowed are numbers from 1")
        torch.set_num_threads(arguments.threads)
    recipe = read_yaml(Recipe, arguments.recipe or DEMO_RECIPE)
    if arguments.seed is not None:
        changed = recipe.model_dump(exclude_unset=True) | {"seed": arguments.seed}
        recipe = parse(Recipe, changed, source="--seed")
    truth = GroundTruth.load(arguments.ground_truth).subset(arguments.subset)
    clicks = Clicks({}) if arguments.without_clicks else Clicks.load(arguments.clicks)
    samples, sequence = load_samples(
        arguments.features, truth, clicks, grid=recipe.grid, temporal=recipe.temporal
    )
    description = describe(recipe, truth.classes, sequence)
    supervision: Supervision = "video_labels" if arguments.without_clicks else "clicks"
    with _Table(recipe.optimizer.epochs) as table:
        result = train(
            samples, recipe, description, supervision=supervision, on_epoch=table.on_epoch
        )
    training = {
        "recipe": recipe.model_dump(mode="json"),
        "supervision": supervision,
        "num_videos": len(samples),
        "num_clicks": sum(len(sample.click_positions) for sample in samples),
        "chosen_epoch": result.chosen_epoch,
    }
    checkpoint.save(
        arguments.to,
        checkpoint.CheckpointDescription(
            bundle=description, network=result.network.settings, training=training
        ),
        result.network,
    )
    _write_metrics(arguments.to / METRICS_NAME, result)
    return 0


def _write_metrics(path: Path, result: Run) -> None:
    document = {
        "chosen_epoch": result.chosen_epoch,
        "epochs": [epoch.as_dict() for epoch in result.epochs],
    }
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


class _Table:
    """The epochs as they end: live on a terminal, the whole table at the end elsewhere."""

    def __init__(self, num_epochs: int) -> None:
        from rich.console import Console
        from rich.live import Live
        from rich.table import Table

        self._table = Table(title=f"Training, {num_epochs} epochs")
        columns = ("epoch", "loss", "base", "suppressed", "click", "separation", "affinity")
        for column in (*columns, "held-out mAP", "seconds"):
            self._table.add_column(column, justify="right")
        self._terms = ("total", *columns[2:])
        self._live = Live(self._table, console=Console(), vertical_overflow="visible")

    def __enter__(self) -> _Table:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def on_epoch(self, epoch: Epoch) -> None:
        """One row more."""
        terms = [f"{epoch.losses[name]:.4f}" for name in self._terms]
        score = "" if epoch.held_out_map is None else f"{epoch.held_out_map:.3f}"
        self._table.add_row(str(epoch.number), *terms, score, f"{epoch.seconds:.2f}")
        self._live.refresh()
