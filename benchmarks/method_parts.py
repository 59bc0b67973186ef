"""What score separation and affinity do in training, and what the best affinity could add.

    python benchmarks/method_parts.py [--quick] [--json FILE] [--seeds N] [--variants NAME ...]
        [--thumos14 DIR] [--features DIR --ground-truth FILE --clicks FILE]

Trains each variant of `method_variants` on the ablation's corpora and measures it on the test
split, with what `part_measures` tells. Every finished run is in the JSON file: the same command
goes on where it stopped. --quick is one seed and two epochs: a check, no figures.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from corpora import parsed
from method_variants import (
    VARIANTS,
    Variant,
    VariantNetwork,
    train_variant,
    variant_recipe,
    with_stretches,
)
from part_measures import boundaries, compared, gradients, score_gaps

from backtal.evaluation import mean_average_precision
from backtal_training.ablation import load_corpus
from backtal_training.datasets import truth_of
from backtal_training.experiment import TIOUS
from backtal_training.statistics import over_seeds
from backtal_training.trainer import activations, localize_all
from backtal_training.tuning import Corpus

SHOWN = (
    "base.gap",
    "base.left",
    "base.within",
    "auc",
    "far_auc",
    "cosine_within",
    "cosine_across",
)
# Of the training, in parts: where losses and gradients are told.
LOOKS = (0.025, 0.25, 0.5, 1.0)

Figures = dict[str, float]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one seed, two epochs: no figures")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--seeds", type=int, default=5, metavar="N")
    parser.add_argument("--variants", nargs="+", choices=tuple(VARIANTS), default=tuple(VARIANTS))
    chosen, sources = parsed(parser)
    torch.set_num_threads(1)
    seeds = range(1 if chosen.quick else chosen.seeds)
    figures: Figures = {}
    if chosen.json is not None and chosen.json.exists():
        figures = json.loads(chosen.json.read_text(encoding="utf-8"))
    for name in sources.names:
        corpus = _marked(load_corpus(sources, name, "windows"))
        for seed in seeds:
            for variant in chosen.variants:
                run = f"{name}.{variant}.{seed}"
                if f"{run}.average_map" in figures:
                    continue
                told = measure(corpus, VARIANTS[variant], seed, 2 if chosen.quick else None)
                figures |= {f"{run}.{what}": value for what, value in told.items()}
                print(f"{run}: {told['average_map']:.3f}", file=sys.stderr, flush=True)
                if chosen.json is not None:
                    chosen.json.write_text(json.dumps(figures, indent=2) + "\n")
        print("\n".join(["", f"## {name}", "", *table(figures, name, chosen.variants, seeds)]))
    return 0


def _marked(corpus: Corpus) -> Corpus:
    training, test = map(with_stretches, (corpus.training, corpus.test))
    return replace(corpus, training=training, test=test)


def measure(corpus: Corpus, variant: Variant, seed: int, epochs: int | None) -> Figures:
    """One run: average_map, losses and gradients at the LOOKS, gaps and boundaries at the end."""
    recipe = variant_recipe(corpus, variant, seed, epochs)
    looks = {max(1, round(part * recipe.optimizer.epochs)): part for part in LOOKS}
    told: Figures = {}

    def look(number: int, network: VariantNetwork, terms: Mapping[str, float]) -> None:
        if number in looks:
            seen = gradients(network, corpus.training, recipe, variant)
            seen |= {f"loss.{term}": value for term, value in terms.items()}
            told.update({f"at{looks[number]:g}.{what}": value for what, value in seen.items()})

    network = train_variant(corpus.training, corpus, recipe, variant, look)
    found = localize_all(activations(network, corpus.test), corpus.description)
    truth = truth_of(corpus.test, corpus.description.classes)
    average = mean_average_precision(truth, found, TIOUS).average
    gaps = score_gaps(network, corpus.training, recipe.losses)
    told["compared"] = compared(network, corpus.training, recipe.losses)
    return {"average_map": average} | gaps | boundaries(network, corpus.test) | told


def table(
    figures: Figures, corpus: str, variants: Sequence[str], seeds: Sequence[int]
) -> list[str]:
    """A row a variant: average mAP, its difference from the method with the same seed, SHOWN."""

    def over(variant: str, what: str) -> list[float]:
        return [figures[f"{corpus}.{variant}.{seed}.{what}"] for seed in seeds]

    lines = [
        "| | average mAP | less the method | " + " | ".join(SHOWN) + " |",
        "| --- " * (3 + len(SHOWN)) + "|",
    ]
    for variant in variants:
        maps = over(variant, "average_map")
        less = ""
        if variant != "method" and f"{corpus}.method.{seeds[-1]}.average_map" in figures:
            pairs = zip(maps, over("method", "average_map"), strict=True)
            less = str(over_seeds([ours - theirs for ours, theirs in pairs]))
        means = [f"{over_seeds(over(variant, what)).mean:.3f}" for what in SHOWN]
        cells = [VARIANTS[variant].title, f"{over_seeds(maps).mean:.3f}", less, *means]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


if __name__ == "__main__":
    sys.exit(main())
