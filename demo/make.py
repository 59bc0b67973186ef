"""Make the demo's checkpoint, features and ground truth again, from nothing but the code.

``python demo/make.py [--work DIR] [--to DIR]``: the corpus is drawn, its features are made by
the exported backbone, the network is trained by the demo's recipe. What is there already in the
work folder is kept, so that a run that was cut off goes on. On two cores: about half an hour.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from backtal import cli
from backtal.errors import BacktalError

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "demo"
WORK = ROOT / "var" / "make"
RECIPES = ROOT / "training" / "backtal_training" / "recipes"
SUBSET = "test"


def main() -> int:
    """Run what the options say."""
    parser = argparse.ArgumentParser(prog="demo/make.py", description=__doc__)
    parser.add_argument("--work", type=Path, default=WORK, help="for the videos and all features")
    parser.add_argument("--to", type=Path, default=DEMO, help="where the demo looks for the result")
    arguments = parser.parse_args()
    make_features(arguments.work)
    train(arguments.work, arguments.to)
    keep(arguments.work, arguments.to)
    return 0


def make_features(work: Path, *names: str) -> None:
    """Draw the corpus, or the videos `names` of it, and make their features in `work`."""
    run("corpus", work / "corpus", *(("--only", *names) if names else ()))
    run(
        "features",
        work / "corpus" / "videos",
        *("--backbone", "i3d-rgb", "--clip-plan", RECIPES / "demo-clips.yaml"),
        *("--to", work / "features", "--dtype", "float16", "--jobs", 2),
    )


def train(work: Path, target: Path) -> None:
    """Train on the corpus's training split by the demo's recipe."""
    corpus = work / "corpus"
    labels = ("--ground-truth", corpus / "ground_truth.json", "--clicks", corpus / "clicks.txt")
    run("train", "--features", work / "features", *labels, "--to", target / "checkpoint")


def keep(work: Path, target: Path) -> None:
    """Copy the held-out videos' features and the ground truth to `target`."""
    features = target / "features"
    shutil.rmtree(features, ignore_errors=True)
    features.mkdir(parents=True)
    for path in sorted((work / "features").glob(f"{SUBSET}_*.npz")):
        shutil.copyfile(path, features / path.name)
    shutil.copyfile(work / "corpus" / "ground_truth.json", target / "ground_truth.json")


def run(*words: object) -> None:
    """A subcommand of backtal; its error has been told when it fails."""
    code = cli.main([str(word) for word in words])
    if code != 0:
        sys.exit(code)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BacktalError as error:
        sys.exit(f"make: {error.message}")
