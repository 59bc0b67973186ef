"""Find the actions in videos: a table, ActivityNet JSON, or a page to look at.

VIDEO is a file, a features file (.npz), or with --server a URI that the server may read.
Without --server and --local a server is started for the call and stopped after it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from backtal.errors import BacktalError, InvalidArgument

if TYPE_CHECKING:
    from rich.console import Console

    from backtal.client import DetectionOptions
    from backtal.detection import DetectionAnswer
    from backtal.detectors import Detector, OnProgress

REPOSITORY_VARIABLE = "BACKTAL_REPOSITORY"
DEFAULT_REPOSITORY = Path("var/repository")
STANDARD_OUTPUT = "-"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument("videos", nargs="+", metavar="VIDEO", help="what to look at")
    where = parser.add_argument_group("where it is computed")
    place = where.add_mutually_exclusive_group()
    place.add_argument("--server", metavar="HOST:PORT", help="a running server's gRPC address")
    place.add_argument("--local", action="store_true", help="in this process, without Triton")
    where.add_argument(
        "--repository",
        type=Path,
        metavar="DIR",
        help=f"the model repository, without --server: by default ${REPOSITORY_VARIABLE}, "
        f"else {DEFAULT_REPOSITORY}",
    )
    where.add_argument("--bundle", metavar="NAME", help="by default the only one, else kinetics400")
    where.add_argument(
        "--timeout", type=float, metavar="SECONDS", help="for each video, with a server"
    )
    output = parser.add_argument_group("what comes out")
    output.add_argument(
        "--json", metavar="FILE", help="write ActivityNet's results format; - is standard output"
    )
    output.add_argument(
        "--html",
        metavar="FILE",
        type=Path,
        help="write one self-contained page; for several videos a folder",
    )
    output.add_argument("--score-threshold", type=float, metavar="X", help="the lowest score")
    output.add_argument("--max-segments", type=int, metavar="N", help="the N best")
    output.add_argument(
        "--classes",
        metavar="NAME,...",
        help="only these classes; for a comma in a name, give a JSON list",
    )
    output.add_argument("--nms", type=float, metavar="TIOU", help="join segments that overlap more")
    output.add_argument(
        "--allow-partial", action="store_true", help="answer for what a damaged file still has"
    )


def run(arguments: argparse.Namespace) -> int:
    """Answer every video; the exit code is that of the last that failed."""
    from rich.console import Console

    console = Console(stderr=arguments.json == STANDARD_OUTPUT, highlight=False)
    messages = Console(stderr=True, highlight=False)
    options = _options(arguments)
    answers: list[tuple[str, DetectionAnswer]] = []
    exit_code = 0
    with _detector(arguments, messages) as detector:
        for source in arguments.videos:
            try:
                with show_progress(messages, source) as on_progress:
                    answer = detector.detect(source, options, on_progress)
            except BacktalError as error:
                if len(arguments.videos) == 1:
                    raise
                messages.print(f"backtal: {source}: {error.message}", markup=False)
                exit_code = 2 if isinstance(error, InvalidArgument) else 1
                continue
            answers.append((source, answer))
            show(console, source, answer)
    _write(arguments, answers, messages)
    return exit_code


def show(console: Console, source: str, answer: DetectionAnswer) -> None:
    """Print an answer as a table."""
    from rich.table import Table
    from rich.text import Text

    from backtal.report import clock

    bundle = str(answer.provenance.get("bundle", ""))
    title = f"{_name(source)}  {clock(answer.duration_seconds)}  {bundle}"
    table = Table(title=Text(title.rstrip()), title_justify="left", title_style="bold")
    for heading in ("start", "end"):
        table.add_column(heading, justify="right")
    table.add_column("label", overflow="fold")
    table.add_column("score", justify="right")
    for segment in answer.segments:
        table.add_row(
            clock(segment.start_seconds),
            clock(segment.end_seconds),
            Text(segment.label),
            f"{segment.score:.3f}",
        )
    if not answer.segments:
        table.add_row("", "", "no action found", "")
    console.print(table)
    for warning in answer.warnings:
        console.print(f"warning: {warning}", style="yellow", markup=False)


@contextmanager
def _detector(arguments: argparse.Namespace, messages: Console) -> Iterator[Detector]:
    from backtal.client import Client
    from backtal.detectors import (
        LocalDetector,
        ServerDetector,
        embedded_server,
        existing_file,
        is_uri,
    )

    if arguments.server:
        with Client(arguments.server) as client:
            yield ServerDetector(client, arguments.bundle, timeout_seconds=arguments.timeout)
        return
    repository = arguments.repository or Path(
        os.environ.get(REPOSITORY_VARIABLE, DEFAULT_REPOSITORY)
    )
    if arguments.local:
        yield LocalDetector(repository, arguments.bundle)
        return
    files = [existing_file(source) for source in arguments.videos if not is_uri(source)]
    roots = sorted({path.resolve().parent for path in files})
    with messages.status("starting Triton"):
        server = embedded_server(repository, roots)
        client = server.__enter__()
    try:
        yield ServerDetector(
            client, arguments.bundle, shares_files=True, timeout_seconds=arguments.timeout
        )
    finally:
        server.__exit__(None, None, None)


@contextmanager
def show_progress(messages: Console, source: str) -> Iterator[OnProgress]:
    """A bar while a video is answered: give the seconds done and in all to what it yields."""
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f} s of video"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=messages, transient=True) as bar:
        task = bar.add_task(_name(source), total=1.0)

        def on_progress(done_seconds: float, total_seconds: float) -> None:
            bar.update(task, completed=done_seconds, total=max(total_seconds, done_seconds, 1e-3))

        yield on_progress


def _options(arguments: argparse.Namespace) -> DetectionOptions:
    from backtal.client import DetectionOptions

    return DetectionOptions(
        score_threshold=arguments.score_threshold,
        max_segments=arguments.max_segments,
        classes=_class_names(arguments.classes),
        nms=arguments.nms,
        allow_partial=arguments.allow_partial,
    )


def _class_names(text: str | None) -> tuple[str, ...]:
    if not text:
        return ()
    if not text.lstrip().startswith("["):
        return tuple(name.strip() for name in text.split(",") if name.strip())
    try:
        names = json.loads(text)
    except json.JSONDecodeError as error:
        raise InvalidArgument(f"--classes {text!r} is no JSON list: {error}") from None
    if not all(isinstance(name, str) for name in names):
        raise InvalidArgument(f"--classes {text!r} holds something that is no name")
    return tuple(names)


def _write(
    arguments: argparse.Namespace,
    answers: list[tuple[str, DetectionAnswer]],
    messages: Console,
) -> None:
    from backtal.detectors import is_uri
    from backtal.evaluation import results_document
    from backtal.report import Report, write_report

    if arguments.json:
        document = results_document(
            {Path(source).stem: answer.segments for source, answer in answers}
        )
        text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
        if arguments.json == STANDARD_OUTPUT:
            sys.stdout.write(text)
        else:
            path = Path(arguments.json)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            messages.print(f"wrote {path}", markup=False)
    if arguments.html:
        several = len(arguments.videos) > 1
        for source, answer in answers:
            page = arguments.html / f"{Path(source).stem}.html" if several else arguments.html
            has_file = not is_uri(source) and not source.endswith(".npz")
            video = Path(source) if has_file else None
            write_report(Report(title=_name(source), answer=answer, video=video), page)
            messages.print(f"wrote {page}", markup=False)


def _name(source: str) -> str:
    return source.rstrip("/").rpartition("/")[2] or source
