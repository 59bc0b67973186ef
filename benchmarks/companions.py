"""What `companion_ratio` finds: classes that share a window, on held-out videos alone and joined.

    python benchmarks/companions.py [--quick] [--json FILE] [--seeds N] [--thumos14 DIR]
        [--features DIR --ground-truth FILE --clicks FILE]

Networks with hard negatives and spread clicks are trained on the ablation's corpora with a quarter
of the training videos held out (--quick: one seed). Mean mAP at tIoU 0.3 to 0.7 on those, each by
itself and joined five at a time (ten on the simulation), for class thresholds and ratios; means
over seeds. Joined, windows hold several classes.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from corpora import parsed

from backtal.annotations import Instance
from backtal.evaluation import mean_average_precision
from backtal.localization import LocalizationSettings
from backtal.manifest import BundleDescription
from backtal_training.ablation import HELD_OUT_FRACTION, CorpusName, Sources, load_corpus
from backtal_training.ablation_arms import ARMS
from backtal_training.datasets import hold_out, truth_of
from backtal_training.experiment import TIOUS
from backtal_training.trainer import Answer, activations, localize_all, train

ARM = "negatives_spread"
THRESHOLDS = (0.16, 0.2, 0.25)
RATIOS = (None, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
VIDEOS_JOINED: Mapping[CorpusName, int] = {"corpus": 5, "simulation": 10}
# So many segments that a long video's answer is not cut.
MAX_SEGMENTS = 2000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one seed")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--seeds", type=int, default=3, metavar="N")
    chosen, sources = parsed(parser)
    torch.set_num_threads(1)
    figures: dict[str, float] = {}
    for name in sources.names:
        seeds = range(1 if chosen.quick else chosen.seeds)
        print(f"{name}, {len(seeds)} seeds\n\n| threshold | ratio | alone | joined |")
        print("| --- | --- | --- | --- |")
        cases = [held_out_answers(sources, name, seed) for seed in seeds]
        for key, maps in rows(cases, VIDEOS_JOINED[name]):
            alone, joined = np.mean(maps, axis=0).tolist()
            print(f"| {key} | {alone:.3f} | {joined:.3f} |", flush=True)
            label = key.replace(" | ", "_")
            figures[f"{name}_{label}_alone"], figures[f"{name}_{label}_joined"] = alone, joined
        print()
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


def held_out_answers(
    sources: Sources, name: CorpusName, seed: int
) -> tuple[BundleDescription, list[Answer]]:
    """A bundle, and what its network makes of the videos that its training held out."""
    corpus = load_corpus(sources, name, "windows")
    training, held_out = hold_out(corpus.training, HELD_OUT_FRACTION, seed)
    run = train(training, ARMS[ARM].recipe(corpus.base, seed), corpus.description)
    return corpus.description, list(activations(run.network, held_out))


def rows(
    cases: Sequence[tuple[BundleDescription, Sequence[Answer]]], count: int
) -> Iterator[tuple[str, list[tuple[float, float]]]]:
    """For each threshold and ratio the mean mAP of each case, alone and joined."""
    groups = [joined_by(answers, count) for _, answers in cases]
    for threshold in THRESHOLDS:
        for ratio in RATIOS:
            changes = {
                "class_score_threshold": threshold,
                "companion_ratio": ratio,
                "max_segments": MAX_SEGMENTS,
            }
            maps = []
            for (bundle, answers), group in zip(cases, groups, strict=True):
                settings = LocalizationSettings.model_validate(
                    {**bundle.localization.model_dump(), **changes}
                )
                changed = bundle.model_copy(update={"localization": settings})
                maps.append((mean_map(changed, answers), mean_map(changed, group)))
            yield f"{threshold} | {'none' if ratio is None else ratio}", maps


def joined_by(answers: Sequence[Answer], count: int) -> list[Answer]:
    """The videos in groups of about `count`, one after the other; who is with whom is seeded."""
    order = np.random.default_rng(0).permutation(len(answers))
    num_groups = max(1, len(answers) // count)
    return [joined([answers[i] for i in order[group::num_groups]]) for group in range(num_groups)]


def joined(answers: Sequence[Answer]) -> Answer:
    """One video of several. No network saw it: each position's neighbours are its own video's."""
    offset = 0.0
    instances: list[Instance] = []
    for sample, cas, _ in answers:
        instances += [
            Instance(one.start_seconds + offset, one.end_seconds + offset, one.label)
            for one in sample.instances
        ]
        offset += cas.shape[1] * sample.position_seconds
    names = "+".join(sample.name for sample, _, _ in answers)
    sample = replace(answers[0][0], name=names, duration_seconds=offset, instances=tuple(instances))
    cas = np.concatenate([cas for _, cas, _ in answers], axis=1)
    return sample, cas, np.concatenate([magnitude for _, _, magnitude in answers])


def mean_map(bundle: BundleDescription, answers: Sequence[Answer]) -> float:
    truth = truth_of([sample for sample, _, _ in answers], bundle.classes)
    return float(mean_average_precision(truth, localize_all(answers, bundle), TIOUS).average)


if __name__ == "__main__":
    sys.exit(main())
