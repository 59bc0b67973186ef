"""The table of what each part of the method, and each idea beyond it, is worth.

``python -m backtal_training.ablation --state FILE --to docs/ablation.md`` with ``--features``,
``--ground-truth`` and ``--clicks`` of the generated corpus, ``--thumos14 DIR`` for the simulation,
or both. Every finished run is kept in the state file: the command goes on where it stopped, and
ends after ``--limit-seconds`` with what it has. ``--on held-out`` measures on a held-out part of
the training split, where the default recipe is chosen; ``--on test`` on the test split.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures import TimeoutError as OutOfTime
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Literal

import torch
import yaml

from backtal.annotations import GroundTruth
from backtal.clicks import Clicks
from backtal.errors import BacktalError, InvalidArgument, InvalidFile
from backtal.evaluation import Detections, mean_average_precision
from backtal.settings import parse
from backtal_training.ablation_arms import ARMS, Arm
from backtal_training.ablation_table import REFERENCE, Measured, write_document
from backtal_training.bundle import describe
from backtal_training.click_sources import plant_inside
from backtal_training.data_set import FOLDER as DATA_SETS
from backtal_training.datasets import hold_out, load_samples, truth_of
from backtal_training.experiment import TIOUS
from backtal_training.settings import DEMO_RECIPE, Recipe
from backtal_training.simulation import SimulationSettings, simulated_corpus
from backtal_training.trainer import activations, localize_all, train
from backtal_training.tuning import Corpus, arm_description
from backtal_training.yardsticks import SceneClassifier, chance, scene_alone

SIMULATION_RECIPE = DEMO_RECIPE.with_name("simulation.yaml")
HELD_OUT_FRACTION = 0.25
# The same errors in every run: what differs is the network.
CLICKS_SEED = 0
YARDSTICKS = ("chance", "scene alone")

CorpusName = Literal["corpus", "simulation"]
Part = Literal["held-out", "test"]


@dataclass(frozen=True)
class Sources:
    """Where the two corpora come from; None for one that is left out.

    clicks_inside: the part of their clicks that is moved into actions.
    """

    features: Path | None = None
    ground_truth: Path | None = None
    clicks: Path | None = None
    thumos14: Path | None = None
    clicks_inside: float | None = None

    @property
    def names(self) -> tuple[CorpusName, ...]:
        """The corpora that are there."""
        found: list[CorpusName] = []
        if self.features is not None:
            found.append("corpus")
        if self.thumos14 is not None:
            found.append("simulation")
        return tuple(found)


@dataclass(frozen=True)
class Task:
    """One run."""

    corpus: CorpusName
    arm: str
    seed: int
    part: Part


@lru_cache(maxsize=4)
def load_corpus(sources: Sources, name: CorpusName, temporal: str) -> Corpus:
    """A corpus on windows or resized: each process makes each once."""
    path = DEMO_RECIPE if name == "corpus" else SIMULATION_RECIPE
    raw = yaml.safe_load(path.read_text(encoding="utf-8")) | {"temporal": temporal}
    if temporal == "resize":
        thumos = yaml.safe_load((DATA_SETS / "thumos14.yaml").read_text(encoding="utf-8"))
        raw["localization"] = thumos["recipe"]["localization"]
    recipe = parse(Recipe, raw, source=str(path))
    if name == "simulation":
        settings = SimulationSettings(clicks_inside=sources.clicks_inside)
        return simulated_corpus(sources.thumos14 or Path(), settings, recipe)
    return _generated_corpus(sources, recipe)


def _generated_corpus(sources: Sources, recipe: Recipe) -> Corpus:
    if sources.features is None or sources.ground_truth is None or sources.clicks is None:
        raise InvalidArgument("the generated corpus needs features, ground truth and clicks")
    truth, clicks = GroundTruth.load(sources.ground_truth), Clicks.load(sources.clicks)
    if sources.clicks_inside is not None:
        clicks = plant_inside(clicks, truth, sources.clicks_inside, CLICKS_SEED)
    load = partial(load_samples, sources.features, grid=recipe.grid, temporal=recipe.temporal)
    training, sequence = load(truth.subset("training"), clicks)
    test, _ = load(truth.subset("test"), Clicks({}))
    return Corpus(training, test, recipe, describe(recipe, truth.classes, sequence))


def run_task(sources: Sources, task: Task) -> Measured:
    """Train, answer and measure; with yardsticks, answer and measure."""
    torch.set_num_threads(1)
    started = time.perf_counter()
    arm = ARMS.get(task.arm) or Arm("a yardstick")
    corpus = load_corpus(sources, task.corpus, arm.temporal)
    training, test = corpus.training, corpus.test
    if task.part == "held-out":
        training, test = hold_out(training, HELD_OUT_FRACTION, task.seed)
    truth = truth_of(test, corpus.description.classes)
    if task.arm == "chance":
        maps = chance(training, test, truth, TIOUS, seed=task.seed).tolist()
        return Measured(maps, time.perf_counter() - started)
    if task.arm == "scene alone":
        found: Detections = scene_alone(SceneClassifier(training), test, corpus.description.classes)
    else:
        recipe = arm.recipe(corpus.base, task.seed)
        description = arm_description(corpus.description, arm.supervision)
        run = train(training, recipe, description, supervision=arm.supervision)
        found = localize_all(activations(run.network, test), description)
    result = mean_average_precision(truth, found, TIOUS)
    return Measured(list(result.mean_average_precision), time.perf_counter() - started)


def tasks(sources: Sources, arms: Sequence[str], num_seeds: int, part: Part) -> Iterator[Task]:
    """Every run of the table: all arms with one seed before any with the next."""
    for seed in range(num_seeds):
        for corpus in sources.names:
            for arm in (*YARDSTICKS, *arms):
                if arm not in YARDSTICKS or seed == 0:
                    yield Task(corpus, arm, seed, part)


def _finished(line: str, where: str) -> tuple[Task, Measured]:
    try:
        raw = json.loads(line)
        return Task(**raw["task"]), Measured(**raw["measured"])
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidFile(f"{where} is no finished run: {error}") from None


class State:
    """The finished runs, a JSON line each, in the order they finished."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.done: dict[Task, Measured] = {}
        if path.exists():
            lines = path.read_text(encoding="utf-8").splitlines()
            self.done = dict(
                _finished(line, f"{path}, line {n}") for n, line in enumerate(lines, 1)
            )

    def add(self, task: Task, measured: Measured) -> None:
        """Keep one run more."""
        self.done[task] = measured
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"task": vars(task), "measured": vars(measured)}) + "\n")


def run_all(
    sources: Sources, todo: Sequence[Task], state: State, *, jobs: int, limit_seconds: float
) -> None:
    """Run what is not done yet, until there is nothing left or no time."""
    deadline = time.monotonic() + limit_seconds
    waiting = [task for task in todo if task not in state.done]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        futures = {pool.submit(run_task, sources, task): task for task in waiting}
        try:
            for future in as_completed(futures, timeout=limit_seconds):
                state.add(futures[future], future.result())
                print(f"{len(state.done)} done: {futures[future]}", file=sys.stderr, flush=True)
                if time.monotonic() > deadline:
                    break
        except OutOfTime:
            print("out of time: run the command again for the rest", file=sys.stderr)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()


def main(words: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    for name in ("--features", "--ground-truth", "--clicks", "--thumos14"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--state", type=Path, required=True, metavar="FILE")
    parser.add_argument("--to", type=Path, metavar="FILE", help="write the table (Markdown)")
    parser.add_argument("--on", choices=("held-out", "test"), default="test")
    parser.add_argument("--arms", nargs="+", choices=tuple(ARMS), default=tuple(ARMS))
    parser.add_argument("--less", choices=tuple(ARMS), default=REFERENCE, help="what is subtracted")
    parser.add_argument("--seeds", type=int, default=5, metavar="N")
    parser.add_argument("--jobs", type=int, default=1, metavar="N")
    parser.add_argument("--clicks-inside", type=float, metavar="PART", help="errors planted")
    parser.add_argument("--limit-seconds", type=float, default=1e9, metavar="S")
    chosen = parser.parse_args(words)
    try:
        sources = _sources(chosen)
        state = State(chosen.state)
        todo = list(tasks(sources, chosen.arms, chosen.seeds, chosen.on))
        run_all(sources, todo, state, jobs=chosen.jobs, limit_seconds=chosen.limit_seconds)
    except BacktalError as error:
        print(f"error: {error.message}", file=sys.stderr)
        return 1
    text = write_document(
        {
            (task.corpus, task.arm, task.seed): state.done[task]
            for task in todo
            if task in state.done
        },
        part=chosen.on,
        tious=TIOUS,
        reference=chosen.less,
    )
    if chosen.to is not None:
        chosen.to.write_text(text, encoding="utf-8")
    print(text)
    return 0


def _sources(chosen: argparse.Namespace) -> Sources:
    sources = Sources(
        features=chosen.features,
        ground_truth=chosen.ground_truth,
        clicks=chosen.clicks,
        thumos14=chosen.thumos14,
        clicks_inside=chosen.clicks_inside,
    )
    if not sources.names:
        raise InvalidArgument("give --features with --ground-truth and --clicks, or --thumos14")
    if sources.features is not None and None in (sources.ground_truth, sources.clicks):
        raise InvalidArgument("--features needs --ground-truth and --clicks")
    return sources


if __name__ == "__main__":
    sys.exit(main())
