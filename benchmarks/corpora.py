"""The ablation's corpora, as a benchmark is told of them."""

from __future__ import annotations

import argparse
from pathlib import Path

from backtal_training.ablation import Sources


def parsed(parser: argparse.ArgumentParser) -> tuple[argparse.Namespace, Sources]:
    """The options, with those of the corpora's files; an error where there is no corpus."""
    for name in ("--features", "--ground-truth", "--clicks", "--thumos14"):
        parser.add_argument(name, type=Path)
    chosen = parser.parse_args()
    sources = Sources(chosen.features, chosen.ground_truth, chosen.clicks, chosen.thumos14)
    if not sources.names:
        parser.error("give --thumos14, or --features with --ground-truth and --clicks")
    return chosen, sources
