"""A folder with the corpus: made in parallel, and only what is missing.

videos/NAME.mp4     the files
ground_truth.json   ActivityNet's format
clicks.txt          the THUMOS14 click format
corpus.json         settings, versions, and the hash of each finished video
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import av
import numpy as np
import PIL
from pydantic import Field

from backtal.errors import InvalidArgument, InvalidFile
from backtal.settings import Settings, read_json
from backtal_training.corpus.film import render
from backtal_training.corpus.labels import (
    CLICKS_NAME,
    GROUND_TRUTH_NAME,
    clicks_text,
    ground_truth_text,
)
from backtal_training.corpus.settings import CorpusSettings
from backtal_training.corpus.timeline import CorpusPlan, VideoPlan

CORPUS_NAME = "corpus.json"
GENERATOR_VERSION = 2
"""Rises with every change that makes other frames from the same plan."""


class FinishedVideo(Settings):
    """A video that is on disk: of which plan, and what its bytes hash to."""

    plan_sha256: str
    sha256: str
    num_frames: int


class CorpusRecord(Settings):
    """corpus.json."""

    generator_version: int = GENERATOR_VERSION
    settings: CorpusSettings
    plan_sha256: str
    versions: dict[str, str]
    videos: dict[str, FinishedVideo] = Field(default_factory=dict)


def select(
    plan: CorpusPlan, *, only: Iterable[str] | None = None, split: str | None = None
) -> tuple[VideoPlan, ...]:
    """The videos of those names, or of that subset, or all. Raises NotFound, InvalidArgument."""
    if split is not None and split not in ("training", "test"):
        raise InvalidArgument(f"split {split!r} is neither 'training' nor 'test'")
    videos = plan.videos if only is None else tuple(plan.video(name) for name in only)
    return tuple(video for video in videos if split in (None, video.subset))


def write_corpus(
    folder: Path,
    plan: CorpusPlan,
    *,
    videos: tuple[VideoPlan, ...] | None = None,
    jobs: int = 1,
    on_video: Callable[[VideoPlan], object] = id,
) -> CorpusRecord:
    """Write labels of the whole corpus, and those `videos` (default all) that are not there.

    A finished video of the same plan and generator with the recorded hash is kept. `on_video` is
    called after each, kept or made. Raises InvalidArgument for jobs < 1.
    """
    if jobs < 1:
        raise InvalidArgument(f"jobs is {jobs}, must be at least 1")
    (folder / "videos").mkdir(parents=True, exist_ok=True)
    _write(folder / GROUND_TRUTH_NAME, ground_truth_text(plan))
    _write(folder / CLICKS_NAME, clicks_text(plan))
    finished = _finished(folder, plan)
    record = _record(folder, plan, finished)
    missing = []
    for video in plan.videos if videos is None else videos:
        if video.name in finished:
            on_video(video)
        else:
            missing.append(video)
    for video, entry in _made(folder, missing, plan.settings, jobs):
        finished[video.name] = entry
        record = _record(folder, plan, finished)
        on_video(video)
    return record


def video_path(folder: Path, name: str) -> Path:
    """Where the video of that name lies."""
    return folder / "videos" / f"{name}.mp4"


def versions() -> dict[str, str]:
    """What, besides the plan, decides the bytes of a video."""
    return {"av": av.__version__, "numpy": np.__version__, "pillow": PIL.__version__}


def _made(
    folder: Path, videos: list[VideoPlan], settings: CorpusSettings, jobs: int
) -> Iterator[tuple[VideoPlan, FinishedVideo]]:
    if jobs == 1 or len(videos) < 2:
        for video in videos:
            yield video, _make(folder, video, settings)
        return
    # Spawned, not forked: the caller may hold threads.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, len(videos)), mp_context=context) as pool:
        futures = {pool.submit(_make, folder, video, settings): video for video in videos}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _make(folder: Path, video: VideoPlan, settings: CorpusSettings) -> FinishedVideo:
    path = video_path(folder, video.name)
    part = path.with_name(f".{video.name}.{os.getpid()}.part")
    try:
        render(video, part, settings)
        digest = _file_sha256(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return FinishedVideo(plan_sha256=video.sha256, sha256=digest, num_frames=video.num_frames)


def _finished(folder: Path, plan: CorpusPlan) -> dict[str, FinishedVideo]:
    """The recorded videos that are what this plan asks for and are whole on disk."""
    path = folder / CORPUS_NAME
    if not path.exists():
        return {}
    try:
        record = read_json(CorpusRecord, path)
    except InvalidFile:
        return {}
    if (record.generator_version, record.settings) != (GENERATOR_VERSION, plan.settings):
        return {}
    planned = {video.name: video for video in plan.videos}
    return {
        name: entry
        for name, entry in record.videos.items()
        if name in planned
        and entry.plan_sha256 == planned[name].sha256
        and video_path(folder, name).exists()
        and _file_sha256(video_path(folder, name)) == entry.sha256
    }


def _record(folder: Path, plan: CorpusPlan, finished: dict[str, FinishedVideo]) -> CorpusRecord:
    record = CorpusRecord(
        settings=plan.settings,
        plan_sha256=plan.sha256,
        versions=versions(),
        videos=dict(sorted(finished.items())),
    )
    _write(folder / CORPUS_NAME, json.dumps(record.model_dump(), indent=1) + "\n")
    return record


def _write(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def _file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
