"""The main job, end to end: what `make demo` runs. `make demo VIDEO=my.mp4` for a video of yours.

Without a video: one held-out video of the generated corpus is drawn, sent as pixels by gRPC to
the bundle `demo`, and shown with its truth beside the answer; then the whole held-out split is
sent as features, and its mAP is measured on what the running server answered.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from backtal import cli
from backtal.annotations import GroundTruth, Instance
from backtal.client import Client
from backtal.commands.detect import show_progress
from backtal.detection import DetectionAnswer
from backtal.errors import BacktalError, NotFound
from backtal.evaluation import mean_average_precision
from backtal.features import FeatureSequence
from backtal.report import Report, clock, write_report
from backtal.segments import Segment, overlap_ratio

DEMO = Path(__file__).resolve().parent
ROOT = DEMO.parent
VAR = ROOT / "var"
REPOSITORY = VAR / "repository"
CORPUS = VAR / "corpus"
PAGE = VAR / "demo.html"
CHECKPOINT = DEMO / "checkpoint"
FEATURES = DEMO / "features"
GROUND_TRUTH = DEMO / "ground_truth.json"
EXPORTED_BY = ("backtal", "export", "model_repository")
KINETICS400 = "kinetics400"
BUNDLE = "demo"
SUBSET = "test"
TIOU_THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7)
ROWS_WITHOUT_TRUTH = 5

console = Console(highlight=False)


def main() -> int:
    """Run what the options say."""
    parser = argparse.ArgumentParser(prog="demo/run.py", description=__doc__)
    parser.add_argument("--video", help="a video of your own, for the bundle kinetics400")
    parser.add_argument("--serve", action="store_true", help="serve both bundles until Ctrl-C")
    arguments = parser.parse_args()
    if arguments.video:
        if not Path(arguments.video).is_file():
            raise NotFound(f"no such file: {arguments.video}")
        export_bundle(KINETICS400, KINETICS400)
        words = ["detect", arguments.video, "--bundle", KINETICS400, "--html", str(PAGE)]
        return cli.main([*words, "--repository", str(REPOSITORY)])
    export_bundle(KINETICS400, KINETICS400)
    if not (CHECKPOINT / "checkpoint.json").is_file():
        raise NotFound(f"the demo's checkpoint is not in {CHECKPOINT}: make assets")
    export_bundle(str(CHECKPOINT), BUNDLE)
    if arguments.serve:
        return cli.main(["serve", "--repository", str(REPOSITORY)])
    run_demo()
    return 0


def run_demo() -> None:
    """The two halves of the demo, by one server."""
    truth = held_out_videos()
    name = min(truth.videos, key=lambda video: (truth.videos[video].duration_seconds, video))
    with step(f"drawing {name}, a video that was held out"):
        run_command("corpus", str(CORPUS), "--only", name)
    video = CORPUS / "videos" / f"{name}.mp4"
    with running_server() as client:
        show_one_video(client, video, truth.videos[name].instances)
        show_whole_split(client, truth)


def held_out_videos() -> GroundTruth:
    """What the corpus says of the videos that training never saw."""
    truth = GroundTruth.load(GROUND_TRUTH).subset(SUBSET)
    absent = [name for name in truth.videos if not (FEATURES / f"{name}.npz").is_file()]
    if absent:
        raise NotFound(f"no features of {', '.join(absent)} in {FEATURES}: make assets")
    return truth


def export_bundle(source: str, bundle: str) -> None:
    """Export `source` into the repository, unless this very code did so already."""
    wanted = export_sha256(source)
    stamp = REPOSITORY / f".{bundle}.source"
    manifest = REPOSITORY / bundle / "1" / "manifest.json"
    if manifest.is_file() and stamp.is_file() and stamp.read_text() == wanted:
        return
    with step(f"exporting the bundle {bundle} to {shown(REPOSITORY)}"):
        run_command("export", source, "--repository", str(REPOSITORY), "--name", bundle)
    stamp.write_text(wanted)


def export_sha256(source: str) -> str:
    """Of what an export depends on: the checkpoint's files and the code."""
    digest = hashlib.sha256(source.encode())
    folders = [ROOT / name for name in EXPORTED_BY]
    if Path(source).is_dir():
        folders.append(Path(source))
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(path.read_bytes())
    return digest.hexdigest()


def run_command(*words: str) -> None:
    """A subcommand of backtal; its error has been told when it fails."""
    code = cli.main(words)
    if code != 0:
        sys.exit(code)


@contextmanager
def running_server() -> Iterator[Client]:
    """A real Triton with both bundles, on free ports of loopback."""
    from backtal_serving.embedded import EmbeddedServer

    console.print("starting Triton with both bundles")
    server = EmbeddedServer(REPOSITORY, [CORPUS / "videos"], log_file=VAR / "triton.log")
    with server, Client(server.grpc_address) as client:
        console.print(
            f"ready: gRPC on {server.grpc_address}, bundles {', '.join(client.bundles())}"
        )
        yield client


def show_one_video(client: Client, video: Path, truth: tuple[Instance, ...]) -> None:
    """Send the video's bytes and show the truth beside the answer."""
    started = time.monotonic()
    with show_progress(console, video.name) as on_progress:
        answer = client.detect(
            video=video.read_bytes(), bundle=BUNDLE, with_cas=True, on_progress=on_progress
        )
    seconds = time.monotonic() - started
    console.print(truth_table(video.name, answer, truth))
    console.print(f"{answer.duration_seconds:.0f} s of video in {seconds:.0f} s, by gRPC as pixels")
    known = tuple(Segment(one.start_seconds, one.end_seconds, one.label, 1.0) for one in truth)
    write_report(Report(title=video.name, answer=answer, video=video, truth=known), PAGE)
    console.print(f"wrote {shown(PAGE)}: open it in a browser")


def truth_table(name: str, answer: DetectionAnswer, truth: tuple[Instance, ...]) -> Table:
    """Each instance with the detected segment that overlaps it most, then the best others."""
    table = Table(title=f"{name}: the truth and the answer", title_justify="left")
    for heading in ("truth", "label", "detected", "score", "tIoU"):
        table.add_column(heading, justify="right" if heading in ("score", "tIoU") else "left")
    free = list(answer.segments)
    for instance in truth:
        same = [segment for segment in free if segment.label == instance.label]
        best = max(same, key=lambda segment: overlap(segment, instance), default=None)
        if best is None or overlap(best, instance) == 0.0:
            table.add_row(span(instance), instance.label, "missed", "", "")
            continue
        free.remove(best)
        tiou = f"{overlap(best, instance):.2f}"
        table.add_row(span(instance), instance.label, span(best), f"{best.score:.2f}", tiou)
    for segment in free[:ROWS_WITHOUT_TRUTH]:
        table.add_row("", segment.label, span(segment), f"{segment.score:.2f}", "")
    if len(free) > ROWS_WITHOUT_TRUTH:
        table.caption = f"and {len(free) - ROWS_WITHOUT_TRUTH} more without a truth, scored lower"
    return table


def show_whole_split(client: Client, truth: GroundTruth) -> None:
    """Send every held-out video's features and measure what the server answers."""
    started = time.monotonic()
    names = track(truth.videos, "the held-out split", console=console, transient=True)
    answers = {
        name: client.detect(
            features=FeatureSequence.load(FEATURES / f"{name}.npz"), bundle=BUNDLE
        ).segments
        for name in names
    }
    result = mean_average_precision(truth, answers, TIOU_THRESHOLDS)
    table = Table(title=f"mAP of the {result.num_videos} held-out videos", title_justify="left")
    for threshold in TIOU_THRESHOLDS:
        table.add_column(f"@{threshold:g}", justify="right")
    table.add_row(*(f"{figure:.3f}" for figure in result.mean_average_precision))
    console.print(table)
    console.print(f"as features, by the same server, in {time.monotonic() - started:.0f} s")


def overlap(first: Segment, second: Instance) -> float:
    """The tIoU of a segment and an instance."""
    spans = (np.array([[one.start_seconds, one.end_seconds]]) for one in (first, second))
    return float(overlap_ratio(*spans)[0, 0])


def span(stretch: Segment | Instance) -> str:
    """Start and end as a person reads them."""
    return f"{clock(stretch.start_seconds)} \u2013 {clock(stretch.end_seconds)}"


def shown(path: Path) -> str:
    """The path as seen from the project's folder."""
    return str(path.relative_to(ROOT))


@contextmanager
def step(text: str) -> Iterator[None]:
    """Say what is done, and how long it took."""
    console.print(f"{text} ...")
    started = time.monotonic()
    yield
    console.print(f"  {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BacktalError as error:
        sys.exit(f"demo: {error.message}")
    except KeyboardInterrupt:
        sys.exit(130)
