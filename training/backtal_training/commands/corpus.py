"""Generate the demo's corpus: videos of figures in action, ground truth and background clicks."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from backtal.errors import InvalidArgument, MissingDependency


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("folder", metavar="DIR", type=Path, help="where the corpus is written")
    parser.add_argument("--seed", type=int, help="makes another corpus (default: the demo's)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="make these videos alone")
    parser.add_argument("--split", choices=("training", "test"), help="make this split alone")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: all cores)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Write the labels of the whole corpus and the videos asked for; finished ones are kept."""
    try:
        import PIL  # noqa: F401
    except ImportError:
        raise MissingDependency(
            "the corpus is drawn with Pillow: pip install 'backtal[training]'"
        ) from None
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from backtal_training.corpus import CorpusSettings, VideoPlan, plan, select, write_corpus

    if arguments.seed is not None and arguments.seed < 0:
        raise InvalidArgument(f"seed is {arguments.seed}, must be at least 0")
    settings = CorpusSettings() if arguments.seed is None else CorpusSettings(seed=arguments.seed)
    whole = plan(settings)
    videos = select(whole, only=arguments.only, split=arguments.split)
    columns = (
        TextColumn("drawing {task.fields[name]}"),
        BarColumn(),
        TextColumn("{task.fields[done]} of {task.fields[count]} videos"),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as progress:
        total = sum(video.num_frames for video in videos)
        task = progress.add_task("", total=total, name="videos", done=0, count=len(videos))
        done = 0

        def advance(video: VideoPlan) -> None:
            nonlocal done
            done += 1
            progress.update(task, advance=video.num_frames, name=video.name, done=done)

        write_corpus(arguments.folder, whole, videos=videos, jobs=arguments.jobs, on_video=advance)
    print(f"{len(videos)} videos, ground_truth.json and clicks.txt are in {arguments.folder}")
    return 0
