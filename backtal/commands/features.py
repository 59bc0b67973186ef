"""Turn videos into feature files by a bundle's decoder, clip plan and backbones, or by others.

Files that are already there and were made by the same decoder, clip plan and backbone are kept,
so that an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

from backtal.errors import BacktalError, InvalidArgument, InvalidFile, NotFound

if TYPE_CHECKING:
    from backtal.manifest import FeatureManifest, Manifest

_MP4_SUFFIXES = (".mp4", ".m4v", ".mov", ".3gp")
_STREAM_SUFFIXES = (".ts", ".mts", ".m2ts", ".mpg", ".mpeg")
_OTHER_SUFFIXES = (".mkv", ".webm", ".avi", ".wmv", ".flv", ".ogv", ".gif")
LIST_SUFFIX = ".txt"
VIDEO_SUFFIXES = frozenset((*_MP4_SUFFIXES, *_STREAM_SUFFIXES, *_OTHER_SUFFIXES))


@dataclass(frozen=True)
class Job:
    """One video and the feature file it becomes."""

    video: Path
    target: Path


@dataclass(frozen=True)
class Outcome:
    """What became of a job: its warnings, or the reason why there is no file."""

    job: Job
    warnings: tuple[str, ...] = ()
    failure: str | None = None


@dataclass(frozen=True)
class RunOptions:
    """What every worker needs."""

    repository: Path
    manifest: Manifest | FeatureManifest
    threads: int
    decoder: Literal["pyav", "decord"]
    dtype: Literal["float32", "float16"]
    allow_partial: bool


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "sources", nargs="+", type=Path, metavar="SOURCE", help="video, folder, or list (.txt)"
    )
    made_by = parser.add_mutually_exclusive_group(required=True)
    made_by.add_argument("--bundle", type=Path, metavar="REPOSITORY/BUNDLE", help="whose backbones")
    made_by.add_argument(
        "--backbone",
        action="append",
        metavar="NAME",
        help="one that is installed, say efficientnet-lite0, instead of a bundle's; twice for two "
        "streams",
    )
    parser.add_argument(
        "--weights",
        action="append",
        default=[],
        metavar="BACKBONE=PATH",
        help="a file of weights for a --backbone; by default its own",
    )
    parser.add_argument(
        "--clip-plan", type=Path, metavar="FILE", help="YAML, for --backbone; by default 25 fps"
    )
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="for the .npz files")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes (default: 1)")
    parser.add_argument("--threads", type=int, metavar="N", help="each; default: cores / jobs")
    parser.add_argument("--dtype", choices=("float32", "float16"), default="float32")
    parser.add_argument("--decoder", choices=("pyav", "decord"), default="pyav")
    parser.add_argument(
        "--allow-partial", action="store_true", help="damaged videos: what can be decoded of them"
    )


def run(arguments: argparse.Namespace) -> int:
    """Write the files. 1 where a video failed, each with its reason."""
    from rich.console import Console
    from rich.markup import escape

    from backtal.runtime import num_cores

    if arguments.jobs < 1:
        raise InvalidArgument(f"--jobs is {arguments.jobs}, allowed are whole numbers from 1")
    jobs = plan_jobs(arguments.sources, arguments.to)
    console = Console(stderr=True)
    with _networks(arguments) as (repository, manifest):
        options = RunOptions(
            repository=repository,
            manifest=manifest,
            threads=arguments.threads or max(1, num_cores() // arguments.jobs),
            decoder=arguments.decoder,
            dtype=arguments.dtype,
            allow_partial=arguments.allow_partial,
        )
        worker = Worker(options)
        todo = [job for job in jobs if not worker.is_done(job)]
        failures = 0
        for outcome in _with_progress(_outcomes(todo, options, arguments.jobs), len(todo), console):
            failures += outcome.failure is not None
            if outcome.failure is not None:
                console.print(f"[red]failed[/red] {escape(_named(outcome))}")
            for warning in outcome.warnings:
                console.print(f"[yellow]warning[/yellow] {escape(warning)}")
    print(f"{len(todo) - failures} written, {len(jobs) - len(todo)} kept, {failures} failed")
    return 1 if failures else 0


@contextmanager
def _networks(
    arguments: argparse.Namespace,
) -> Iterator[tuple[Path, Manifest | FeatureManifest]]:
    """The repository and the manifest of what makes the features."""
    from backtal.backbones import parse_weights, write_backbones
    from backtal.manifest import ClipPlan
    from backtal.runtime import load_bundle
    from backtal.settings import read_yaml

    weights = parse_weights(arguments.weights)
    if arguments.bundle is not None:
        if weights or arguments.clip_plan is not None:
            raise InvalidArgument("--weights and --clip-plan go with --backbone: a bundle has both")
        yield arguments.bundle.parent, load_bundle(arguments.bundle.parent, arguments.bundle.name)
        return
    path = arguments.clip_plan
    plan = ClipPlan() if path is None else read_yaml(ClipPlan, path)
    with TemporaryDirectory(prefix="backtal-backbones-") as folder:
        yield Path(folder), write_backbones(Path(folder), arguments.backbone, plan, weights, _say)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _named(outcome: Outcome) -> str:
    """The reason with the video's name, which the decoder's own messages begin with."""
    name, reason = str(outcome.job.video), outcome.failure or ""
    return reason if reason.startswith(name) else f"{name}: {reason}"


def plan_jobs(sources: Sequence[Path], folder: Path) -> list[Job]:
    """A job for each video: of a folder, all below it, in the same folders below `folder`.

    Raises NotFound for a source that is not there, InvalidArgument where there is no video or
    where two would become the same file.
    """
    jobs = [
        Job(path, folder / name.with_suffix(".npz"))
        for source in sources
        for path, name in _videos(source)
    ]
    if not jobs:
        suffixes = ", ".join(sorted(VIDEO_SUFFIXES))
        raise InvalidArgument(f"no video in {', '.join(map(str, sources))}, looked for {suffixes}")
    by_target: dict[Path, Path] = {}
    for job in jobs:
        other = by_target.setdefault(job.target, job.video)
        if other != job.video:
            raise InvalidArgument(f"{other} and {job.video} would both become {job.target}")
    return [Job(video, target) for target, video in by_target.items()]


def _videos(source: Path) -> Iterator[tuple[Path, Path]]:
    """The videos of a file, folder or list, each with its name below that."""
    if source.is_dir():
        for path in sorted(source.rglob("*")):
            if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file():
                yield path, path.relative_to(source)
    elif not source.exists():
        raise NotFound(f"no such file or folder: {source}")
    elif source.suffix.lower() == LIST_SUFFIX:
        for path in _listed(source):
            yield path, Path(path.name)
    else:
        yield source, Path(source.name)


def _listed(source: Path) -> Iterator[Path]:
    """The videos of a list: a path a line, from the list's own folder; # begins a comment."""
    try:
        lines = source.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InvalidFile(f"{source} is no UTF-8 text: {error}") from None
    for number, line in enumerate(lines, start=1):
        name = line.partition("#")[0].strip()
        if not name:
            continue
        path = source.parent / name
        if not path.is_file():
            raise NotFound(f"{source}, line {number}: no such file: {path}")
        yield path


class Worker:
    """A bundle's extractor, loaded when the first video needs it."""

    def __init__(self, options: RunOptions) -> None:
        from backtal.extraction import FeatureExtractor
        from backtal.runtime import OnnxStages
        from backtal.video import VideoLimits

        manifest = options.manifest
        stages = OnnxStages(options.repository, manifest, options.threads)
        self._options = options
        self._extractor = FeatureExtractor(manifest, stages, VideoLimits(), options.decoder)

    def is_done(self, job: Job) -> bool:
        """Whether the file is there, whole, newer than the video, and made in the same way."""
        from backtal.features import FeatureSequence

        try:
            if job.target.stat().st_mtime < job.video.stat().st_mtime:
                return False
            made = FeatureSequence.load(job.target).provenance
            return made.made_alike(self._extractor.provenance)
        except (BacktalError, OSError):
            return False

    def do(self, job: Job) -> Outcome:
        """Write the file, or say why not."""
        try:
            extracted = self._extractor.extract(
                job.video, allow_partial=self._options.allow_partial
            )
            job.target.parent.mkdir(parents=True, exist_ok=True)
            extracted.features.save(job.target, self._options.dtype)
        except (BacktalError, OSError) as error:
            return Outcome(job, failure=str(error))
        return Outcome(job, warnings=extracted.warnings)


def _outcomes(jobs: list[Job], options: RunOptions, num_processes: int) -> Iterator[Outcome]:
    if num_processes == 1 or len(jobs) <= 1:
        worker = Worker(options)
        yield from map(worker.do, jobs)
        return
    # Forking would copy threads of ONNX Runtime that do not live on in the copy.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        min(num_processes, len(jobs)), context, initializer=_start, initargs=(options,)
    ) as pool:
        futures = {pool.submit(_do, job): job for job in jobs}
        try:
            for future in as_completed(futures):
                error = future.exception()
                yield future.result() if error is None else Outcome(futures[future], (), str(error))
        finally:
            pool.shutdown(cancel_futures=True)


_worker: Worker | None = None


def _start(options: RunOptions) -> None:
    global _worker
    _worker = Worker(options)


def _do(job: Job) -> Outcome:
    if _worker is None:
        raise RuntimeError("the worker process was not started")
    return _worker.do(job)


def _with_progress(outcomes: Iterator[Outcome], total: int, console: Any) -> Iterator[Outcome]:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        task = progress.add_task("features", total=total)
        for outcome in outcomes:
            progress.advance(task)
            yield outcome
