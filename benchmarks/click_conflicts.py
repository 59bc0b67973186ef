"""Which clicks `relabel.drop_above` drops, where it is known which of them lie inside actions.

    python benchmarks/click_conflicts.py [--quick] [--json FILE] [--planted PART ...]
        [--thumos14 DIR] [--features DIR --ground-truth FILE --clicks FILE]

On the training splits of the ablation's corpora, with the clicks as they are and with a part of
them (0.08 if not told) moved into actions. Beside it the network as a judge: trained on the same
clicks, it drops as many, those where it sees the video's classes most strongly (--quick leaves it
out: a minute each). AUC is the chance that a click inside an action is doubted more than one
outside.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from corpora import parsed
from numpy.typing import NDArray

from backtal_training.ablation import load_corpus
from backtal_training.ablation_arms import ARMS
from backtal_training.click_conflicts import click_conflicts
from backtal_training.datasets import Sample
from backtal_training.trainer import activations, train
from backtal_training.tuning import Corpus

COLUMNS = ("inside", "auc", "dropped_of_inside", "dropped_of_outside")
ABOVE: float = ARMS["drop"].changes["relabel"]["drop_above"]

Doubts = NDArray[np.floating]
Which = NDArray[np.bool_]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="without the network")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--planted", type=float, nargs="+", default=[0.0, 0.08], metavar="PART")
    chosen, sources = parsed(parser)
    torch.set_num_threads(1)
    figures: dict[str, float] = {}
    print("|", " | ".join(["corpus", "planted", "judge", *COLUMNS]), "|")
    print("| --- " * (3 + len(COLUMNS)) + "|")
    for name in sources.names:
        for part in chosen.planted:
            corpus = load_corpus(replace(sources, clicks_inside=part or None), name, "windows")
            planted = f"{part:g}"
            for judge, told in measure(corpus, with_network=not chosen.quick).items():
                figures |= {f"{name}.{planted}.{judge}.{what}": told[what] for what in told}
                cells = [f"{told[what]:.3f}" if what in told else "" for what in COLUMNS]
                print("|", " | ".join([name, planted, judge, *cells]), "|", flush=True)
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


def measure(corpus: Corpus, *, with_network: bool) -> dict[str, dict[str, float]]:
    """What each judge makes of the clicks: COLUMNS, less those that need a click inside."""
    inside = np.concatenate([is_inside(sample) for sample in corpus.training])
    doubts = np.concatenate(click_conflicts(corpus.training))
    judged = {"discriminant": (doubts, doubts > ABOVE)}
    if with_network:
        seen = seen_by_network(corpus)
        most_doubted = np.argsort(-seen, kind="stable")[: int((doubts > ABOVE).sum())]
        judged["network"] = (seen, np.isin(np.arange(len(seen)), most_doubted))
    figures = {}
    for judge, (doubted, dropped) in judged.items():
        told = {"inside": float(inside.mean())}
        if inside.any():
            told["auc"] = auc(doubted, inside)
            told["dropped_of_inside"] = float(dropped[inside].mean())
        figures[judge] = told | {"dropped_of_outside": float(dropped[~inside].mean())}
    return figures


def is_inside(sample: Sample) -> Which:
    """Which of the sample's clicks lie on a position of an action."""
    inside: Which = sample.frame_labels[sample.click_positions] < len(sample.video_labels)
    return inside


def seen_by_network(corpus: Corpus) -> Doubts:
    """The trained network's greatest activation of the video's classes, at each click."""
    recipe = ARMS["method"].recipe(corpus.base, 0)
    network = train(corpus.training, recipe, corpus.description).network
    return np.concatenate(
        [
            cas[:-1][sample.video_labels > 0].max(axis=0)[sample.click_positions]
            for sample, cas, _ in activations(network, corpus.training)
        ]
    )


def auc(doubts: Doubts, inside: Which) -> float:
    outside = np.sort(doubts[~inside])
    below, upto = (np.searchsorted(outside, doubts[inside], side) for side in ("left", "right"))
    return float((below + upto).mean() / 2 / len(outside))


if __name__ == "__main__":
    sys.exit(main())
