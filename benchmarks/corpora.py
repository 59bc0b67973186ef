"""The ablation's corpora, as a benchmark is told of them."""

from __future__ import annotations

import argparse
from pathlib import Path

from backtal_training.ablation import Sources

FILES = ("features", "ground-truth", "clicks", "thumos14")


def parsed(parser: argparse.ArgumentParser) -> tuple[argparse.Namespace, Sources]:
    """The options, with those of the corpora's files; an error where there is no corpus."""
    for name in FILES:
        parser.add_argument(f"--{name}", type=Path)
    chosen = parser.parse_args()
    paths = {name: getattr(chosen, name) for name in (file.replace("-", "_") for file in FILES)}
    sources = Sources(**paths)
    if not sources.names:
        parser.error("give --thumos14, or --features with --ground-truth and --clicks")
    return chosen, sources
