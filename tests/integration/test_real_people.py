"""Real people, from raw files to served segments: features, clicks, training, export, Triton."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import pytest
import yaml

from backtal import cli
from backtal.annotations import GroundTruth
from backtal.clicks import Clicks
from backtal.client import Client
from backtal.evaluation import Detections, mean_average_precision
from backtal.manifest import Grid
from backtal.segments import Segment
from backtal_serving.server import TritonServer
from backtal_serving.server_options import ServerOptions
from backtal_training.datasets import Sample, load_samples
from backtal_training.yardsticks import SceneClassifier, chance, scene_alone
from tests.i3d_weights import real_weights
from tests.joined_people import CLASSES, Joined, People, clicks, ground_truth, write_video
from tests.requirements import shared_folder

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(1800)]

LEAST_MAP = 0.6
TIOU = [0.5]
# Pieces in a row that a proposal of the detector of cuts may have: an instance has two.
MOST_PIECES = 3
POSITION_SECONDS = 0.64
FOLDS = ((0, 1), (2, 3), (4, 5))
SERVED_FOLD = FOLDS[-1]
CLIP_PLAN = {"frames_per_second": 25, "frames_per_clip": 16, "stride_frames": 16}
NETWORK = {
    "layout": "paper",
    "hidden_dim": 128,
    "embedding_hidden_dim": 64,
    "filter_hidden_dim": 64,
    "dropout": 0.5,
}
# `backtal_training/data_sets/own.yaml`, but all four subjects are trained on: no epoch is chosen.
DATA_SET = {
    "name": "people",
    "features": ["features"],
    "ground_truth": "ground_truth.json",
    "training_subset": "training",
    "test_subset": "test",
    "clicks": {"source": "files", "files": ["clicks.csv"]},
    "tious": TIOU,
    "recipe": {
        "name": "people",
        "grid": {"position_seconds": POSITION_SECONDS, "window_positions": 96},
        "network": NETWORK,
        "losses": {"hard_negative_weight": 1.0},
        "relabel": {"spread_positions": 3, "spread_cosine": 0.8},
        "optimizer": {"learning_rate": 1.0e-3, "batch_videos": 8, "epochs": 200},
        "selection": {"held_out_fraction": 0},
        "localization": {"preset": "calibrated"},
    },
}


@dataclass(frozen=True)
class Library:
    """The videos in a folder, with their features."""

    folder: Path
    videos: dict[str, Joined]

    def fold(self, held_out: Sequence[int]) -> Path:
        """A folder with the data set of a fold."""
        folder = self.folder / "-".join(map(str, held_out))
        folder.mkdir()
        (folder / "features").symlink_to(self.folder / "features")
        (folder / "ground_truth.json").write_text(ground_truth(self.videos, held_out))
        (folder / "clicks.csv").write_text(clicks(self.videos, held_out, seed=1))
        (folder / "people.yaml").write_text(yaml.safe_dump(DATA_SET))
        return folder


def run(*words: object) -> None:
    assert cli.main([str(word) for word in words]) == 0


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    clips = shared_folder() / "media" / "weizmann4"
    real_weights()
    folder = tmp_path_factory.mktemp("people")
    (folder / "videos").mkdir()
    videos = dict(People(clips, seed=0).videos())
    for name, video in videos.items():
        write_video(folder / "videos" / f"{name}.mp4", video.frames)
    (folder / "plan.yaml").write_text(yaml.safe_dump(CLIP_PLAN))
    plan = ("--clip-plan", folder / "plan.yaml", "--dtype", "float16", "--jobs", 2)
    run("features", folder / "videos", "--backbone", "i3d-rgb", *plan, "--to", folder / "features")
    return Library(folder, videos)


def served(repository: Path, library: Library, names: Sequence[str]) -> Detections:
    found: dict[str, tuple[Segment, ...]] = {}
    with (
        TritonServer(ServerOptions(repository=repository)) as server,
        Client(server.grpc_address, timeout_seconds=300.0) as client,
    ):
        for name in names:
            content = (library.folder / "videos" / f"{name}.mp4").read_bytes()
            found[name] = client.detect(video=content, bundle="people").segments
    return found


def joins_alone(
    classifier: SceneClassifier, test: Sequence[Sample], videos: dict[str, Joined]
) -> Detections:
    """Knows every cut and nothing else: each stretch of a few pieces, labelled by the scene."""
    wholes = scene_alone(classifier, test, CLASSES)
    found: dict[str, tuple[Segment, ...]] = {}
    for name, labelled in wholes.items():
        cuts = videos[name].cuts
        stretches = [
            (cuts[first], cuts[last])
            for first, last in combinations(range(len(cuts)), 2)
            if last - first <= MOST_PIECES
        ]
        found[name] = tuple(
            Segment(start, end, whole.label, whole.score)
            for whole in labelled
            for start, end in stretches
        )
    return found


def test_the_held_out_subjects_actions_are_found(
    library: Library, record_property: Callable[[str, object], None]
) -> None:
    figures: dict[str, list[float]] = {}
    for held_out in FOLDS:
        folder = library.fold(held_out)
        run("train", "--data-set", folder / "people.yaml", "--to", folder / "checkpoint")
        whole = GroundTruth.load(folder / "ground_truth.json")
        truth = whole.subset("test")
        repository = folder / "repository"
        run("export", folder / "checkpoint", "--repository", repository, "--name", "people")
        run(
            "evaluate",
            *("--features", library.folder / "features", "--bundle", repository / "people"),
            *("--ground-truth", folder / "ground_truth.json", "--subset", "test"),
            *("--tiou", *TIOU, "--json", folder / "figures.json"),
        )
        grid = Grid(position_seconds=POSITION_SECONDS, window_positions=96)
        features = library.folder / "features"
        no_clicks = Clicks({})
        training, _ = load_samples(features, whole.subset("training"), no_clicks, grid=grid)
        test, _ = load_samples(features, truth, no_clicks, grid=grid)
        classifier = SceneClassifier(training)
        found = {
            "joins alone": joins_alone(classifier, test, library.videos),
            "scene alone": scene_alone(classifier, test, CLASSES),
        }
        if held_out == SERVED_FOLD:
            found["served"] = served(repository, library, list(truth.videos))
        for name, detections in found.items():
            value = mean_average_precision(truth, detections, TIOU).mean_average_precision[0]
            figures.setdefault(name, []).append(float(value))
        answer = json.loads((folder / "figures.json").read_text())
        figures.setdefault("offline", []).append(answer["mean_average_precision"][0])
        figures.setdefault("chance", []).append(float(chance(training, test, truth, TIOU)[0]))
    record_property("mAP@0.5 by fold", figures)
    assert figures["served"][0] >= LEAST_MAP
    assert min(figures["offline"]) > max(figures["joins alone"])
