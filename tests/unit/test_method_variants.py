"""benchmarks/method_variants.py trains as the trainer does and gives the affinities it promises."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from backtal.settings import parse
from backtal_training.affinity import affinity
from backtal_training.batches import make_batch
from backtal_training.bundle import describe
from backtal_training.datasets import Sample, make_sample
from backtal_training.settings import Recipe
from backtal_training.trainer import train
from backtal_training.tuning import Corpus
from tests import synthetic

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
MADE = synthetic.corpus(8, 1)
WIDTHS = {"hidden_dim": 16, "embedding_hidden_dim": 8, "filter_hidden_dim": 8, "embedding_dim": 4}
RECIPE = parse(
    Recipe,
    {
        "name": "tiny",
        "grid": synthetic.GRID.model_dump(),
        "network": WIDTHS,
        "optimizer": {"learning_rate": 3e-3, "batch_videos": 3, "epochs": 2},
        "selection": {"held_out_fraction": 0.0},
    },
    source="the test",
)


@pytest.fixture
def variants(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("method_variants")


def samples() -> tuple[Sample, ...]:
    return tuple(
        make_sample(
            name,
            MADE.sequences[name],
            instances=video.instances,
            clicks=MADE.clicks,
            classes=synthetic.CLASSES,
            grid=synthetic.GRID,
        )
        for name, video in MADE.truth.subset("training").videos.items()
    )


def corpus() -> Corpus:
    sequence = next(iter(MADE.sequences.values()))
    return Corpus(samples(), (), RECIPE, describe(RECIPE, synthetic.CLASSES, sequence))


@pytest.mark.parametrize("name", ["method", "separation_x10", "hard_negatives"])
def test_a_variant_of_the_losses_is_what_the_trainer_makes(variants: Any, name: str) -> None:
    made, variant = corpus(), variants.VARIANTS[name]
    recipe = variants.variant_recipe(made, variant, 3, None)
    theirs = train(made.training, recipe, made.description).network.state_dict()
    marked = variants.with_stretches(made.training)
    ours = variants.train_variant(marked, made, recipe, variant, lambda *_: None).state_dict()
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        assert torch.equal(ours[key], value), key


def test_given_affinities_are_those_asked_for(variants: Any) -> None:
    made = corpus()
    marked = variants.with_stretches(made.training)
    batch = make_batch(marked, RECIPE.grid.window_positions, np.random.default_rng(0))
    within = batch.frame_labels[:, :-1] == batch.frame_labels[:, 1:]
    is_action = batch.frame_labels[:, :-1] < len(synthetic.CLASSES)
    right = {}
    for kind in ("one", "zero", "true", "decoys"):
        network = variants.VariantNetwork(
            RECIPE.network.network(
                feature_dim=made.description.feature_dim, num_classes=len(synthetic.CLASSES)
            ),
            kind,
        )
        output = variants.answer(network, batch)
        right[kind] = affinity(output.embedding)[:, 2, :-1][output.mask[:, 1:]]
    real = output.mask[:, 1:]
    assert (right["one"] == 1).all()
    assert (right["zero"] == 0).all()
    assert torch.equal(right["true"] == 1, within[real])
    assert (right["decoys"][~within[real]] == 0).all()
    assert (right["decoys"][(within & is_action)[real]] == 1).all()
    assert (right["decoys"] < right["true"]).any()
