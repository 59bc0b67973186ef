"""Train a network from features, video labels and background clicks into a checkpoint.

A run that is killed goes on where it was when the same command is given again: its state is kept
in DIR.state until the checkpoint is written. `torchrun -m backtal.cli train ...` trains in several
processes, one a GPU.
"""

from __future__ import annotations

import argparse
import json
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backtal.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from backtal.features import FeatureSequence
    from backtal.manifest import BundleDescription
    from backtal_training.datasets import Sample
    from backtal_training.processes import Processes
    from backtal_training.settings import Recipe
    from backtal_training.state import Epoch
    from backtal_training.trainer import Answer, Run

METRICS_NAME = "metrics.json"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--data-set", metavar="DATASET", help="YAML file or built-in name, with all of the next"
    )
    parser.add_argument("--root", type=Path, metavar="DIR", help="of the data set's files")
    parser.add_argument("--features", type=Path, metavar="DIR", help="NAME.npz of each video")
    parser.add_argument("--ground-truth", type=Path, metavar="FILE", help="ActivityNet's format")
    parser.add_argument("--clicks", type=Path, metavar="FILE", help="background clicks")
    parser.add_argument(
        "--recipe", type=Path, metavar="YAML", help="default: the data set's, else the demo's"
    )
    parser.add_argument(
        "--to", type=Path, required=True, metavar="DIR", help="the checkpoint's folder"
    )
    parser.add_argument(
        "--subset", default="training", help="of the ground truth (default: training)"
    )
    parser.add_argument(
        "--choose-on-test",
        metavar="SUBSET",
        help="choose the epoch there, as the released code does; the results say so",
    )
    parser.add_argument("--seed", type=int, metavar="N", help="in the recipe's place")
    parser.add_argument(
        "--without-clicks", action="store_true", help="learn from video labels alone"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="default: one a core")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: a GPU if there is one")
    parser.add_argument("--tensorboard", type=Path, metavar="DIR", help="write event files")
    parser.add_argument("--restart", action="store_true", help="forget a run that was killed")


def run(arguments: argparse.Namespace) -> int:
    """Train, and write checkpoint and metrics."""
    import torch

    from backtal_training.processes import joined

    if arguments.threads is not None:
        if arguments.threads < 1:
            raise InvalidArgument(f"--threads is {arguments.threads}, allowed are numbers from 1")
        torch.set_num_threads(arguments.threads)
    recipe = _recipe(arguments)
    with joined(arguments.device) as processes:
        _train(arguments, recipe, processes)
    return 0


def _recipe(arguments: argparse.Namespace) -> Recipe:
    """The recipe with what the command line has in its places. InvalidArgument for what clashes."""
    from backtal.settings import parse, read_yaml
    from backtal_training.data_set import find
    from backtal_training.settings import DEMO_RECIPE, Recipe

    loose = {"--features": arguments.features, "--ground-truth": arguments.ground_truth}
    if arguments.data_set is not None:
        given = [name for name, value in {**loose, "--clicks": arguments.clicks}.items() if value]
        if given:
            raise InvalidArgument(f"--data-set has what {', '.join(given)} would say: give one")
    else:
        missing = [name for name, value in loose.items() if not value]
        if missing:
            raise InvalidArgument(f"{missing[0]} is missing, and there is no --data-set")
        if arguments.clicks is None and not arguments.without_clicks:
            raise InvalidArgument("--clicks is missing; --without-clicks learns from labels alone")
    if arguments.recipe is None and arguments.data_set is not None:
        recipe = find(arguments.data_set)[0].recipe
    else:
        recipe = read_yaml(Recipe, arguments.recipe or DEMO_RECIPE)
    raw: dict[str, Any] = recipe.model_dump(exclude_unset=True)
    if arguments.seed is not None:
        raw["seed"] = arguments.seed
    if arguments.choose_on_test is not None:
        raw["selection"] = raw.get("selection", {}) | {"on_test_split": True}
    return parse(Recipe, raw, source="--seed")


@dataclass(frozen=True)
class _Inputs:
    samples: tuple[Sample, ...]
    test_samples: tuple[Sample, ...]
    classes: tuple[str, ...]
    sequence: FeatureSequence


def _inputs(arguments: argparse.Namespace, recipe: Recipe) -> _Inputs:
    from backtal.annotations import GroundTruth
    from backtal.clicks import Clicks
    from backtal_training.data_set import find, load_split
    from backtal_training.datasets import load_samples

    test: tuple[Sample, ...] = ()
    if arguments.data_set is not None:
        data_set, root = find(arguments.data_set)
        data_set = data_set.model_copy(update={"recipe": recipe})
        root = arguments.root or root
        split = load_split(data_set, root, "training")
        if recipe.selection.on_test_split:
            test = load_split(data_set, root, "test").samples
        return _Inputs(split.samples, test, split.truth.classes, split.sequence)
    truth = GroundTruth.load(arguments.ground_truth)
    clicks = Clicks({}) if arguments.without_clicks else Clicks.load(arguments.clicks)
    load = partial(load_samples, arguments.features, grid=recipe.grid, temporal=recipe.temporal)
    samples, sequence = load(truth.subset(arguments.subset), clicks, require_labels=True)
    if arguments.choose_on_test is not None:
        test, _ = load(truth.subset(arguments.choose_on_test), Clicks({}))
    return _Inputs(samples, test, truth.classes, sequence)


def _train(arguments: argparse.Namespace, recipe: Recipe, processes: Processes) -> None:
    from backtal_training.bundle import describe
    from backtal_training.settings import Supervision
    from backtal_training.trainer import train

    state_path = arguments.to.with_name(f"{arguments.to.name}.state")
    if arguments.restart and processes.is_first:
        state_path.unlink(missing_ok=True)
    processes.wait()
    inputs = _inputs(arguments, recipe)
    description = describe(recipe, inputs.classes, inputs.sequence)
    supervision: Supervision = "video_labels" if arguments.without_clicks else "clicks"
    with ExitStack() as stack:
        listeners = _listeners(arguments, recipe, stack) if processes.is_first else ([], [])
        result = train(
            inputs.samples,
            recipe,
            description,
            supervision=supervision,
            test_samples=inputs.test_samples,
            on_epoch=lambda epoch: [told(epoch) for told in listeners[0]],
            on_answers=lambda number, answers: [told(number, answers) for told in listeners[1]],
            processes=processes,
            state_path=state_path,
        )
    if processes.is_first:
        facts = {
            "recipe": recipe.model_dump(mode="json"),
            "supervision": supervision,
            "num_videos": len(inputs.samples),
            "num_clicks": sum(len(sample.click_positions) for sample in inputs.samples),
        }
        _write(arguments.to, result, description, facts)
        state_path.unlink(missing_ok=True)


def _listeners(
    arguments: argparse.Namespace, recipe: Recipe, stack: ExitStack
) -> tuple[list[Callable[[Epoch], None]], list[Callable[[int, Sequence[Answer]], None]]]:
    """Who is told of each epoch, and of the held-out videos' answers."""
    from backtal_training.live_table import LiveTable

    on_test = recipe.selection.on_test_split
    table = LiveTable(recipe.optimizer.epochs, "test mAP" if on_test else "held-out mAP")
    if arguments.tensorboard is None:
        return [stack.enter_context(table).on_epoch], []
    from backtal_training.tensorboard import Board

    board = Board(arguments.tensorboard)
    stack.callback(board.close)
    return [stack.enter_context(table).on_epoch, board.on_epoch], [board.on_answers]


def _write(
    folder: Path, result: Run, description: BundleDescription, facts: dict[str, Any]
) -> None:
    """The checkpoint, and beside its files the figures of every epoch."""
    from backtal_training import checkpoint

    chosen = {"chosen_epoch": result.chosen_epoch, "epoch_chosen_on": result.chosen_on}
    checkpoint.save(
        folder,
        checkpoint.CheckpointDescription(
            bundle=description, network=result.network.settings, training={**facts, **chosen}
        ),
        result.network,
    )
    document = {**chosen, "epochs": [epoch.as_dict() for epoch in result.epochs]}
    (folder / METRICS_NAME).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
