"""Write what an index has found for other tools, or cut the segments themselves.

One file, or a folder of one file a video:

    activitynet    results, as ActivityNet's evaluator and `backtal evaluate --from` read them
    csv            one row a segment, with seconds and timecode
    webvtt         chapters for a player, a file a video
    otio           OpenTimelineIO, a timeline a video with a marker a segment
    edl, fcpxml    the same for editors: CMX 3600, Final Cut Pro
    label-studio   tasks.json with predictions, and interface.xml
    fiftyone       a folder of the type FiftyOneTemporalDetectionDataset

--clips copies the stretches out of the originals without decoding. A copy begins at a key frame,
hence somewhat before its segment: clips.csv has where.
"""

from __future__ import annotations

import argparse
import sys
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from backtal.errors import InvalidArgument
from backtal_indexing.subcommands.query_options import add_query_options, query_of

if TYPE_CHECKING:
    from backtal_indexing.exports.video import IndexedVideo

# backtal_indexing.exports.FORMATS, not imported for a --help.
FORMATS = ("activitynet", "csv", "webvtt", "otio", "edl", "fcpxml", "label-studio", "fiftyone")
STANDARD_OUTPUT = "-"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument("index", metavar="INDEX", help="a folder or s3://BUCKET/PREFIX")
    parser.add_argument("--as", dest="form", choices=FORMATS, help="the format")
    parser.add_argument(
        "--to", metavar="PLACE", help="a folder; a file, or - for standard output, where it is one"
    )
    parser.add_argument(
        "--rate", type=float, metavar="N", help="frames a second to count in; default: the video's"
    )
    parser.add_argument("--clips", type=Path, metavar="DIR", help="cut the segments into this")
    add_query_options(parser)
    parser.add_argument("--limit", type=int, metavar="N", help="at most so many segments")


def run(arguments: argparse.Namespace) -> int:
    """Write the files, then cut; the exit code is 1 where a clip could not be cut."""
    from backtal_indexing.exports.selection import select_videos
    from backtal_indexing.reading import open_tables

    _check(arguments)
    query = query_of(arguments, limit=arguments.limit)
    with open_tables(arguments.index) as tables:
        videos = select_videos(tables, query)
    if arguments.form:
        _export(arguments, videos)
    return _cut(videos, arguments.clips) if arguments.clips else 0


def _check(arguments: argparse.Namespace) -> None:
    if not arguments.form and not arguments.clips:
        raise InvalidArgument(f"nothing to write: give --as ({', '.join(FORMATS)}) or --clips")
    if bool(arguments.form) != bool(arguments.to):
        raise InvalidArgument("--as and --to go together: a format and where to write it")


def _export(arguments: argparse.Namespace, videos: list[IndexedVideo]) -> None:
    from backtal_indexing.exports import FORMATS as EXPORTS

    files = EXPORTS[arguments.form](videos, _rate(arguments.rate))
    if arguments.to == STANDARD_OUTPUT:
        if len(files) != 1:
            raise InvalidArgument(f"{len(files)} files do not go to standard output: {_few(files)}")
        sys.stdout.write(*files.values())
        return
    place = Path(arguments.to)
    for name, text in files.items():
        is_the_file = len(files) == 1 and place.suffix == Path(name).suffix
        path = place if is_the_file else place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="")
    num_segments = sum(len(video.segments) for video in videos)
    _say(f"{num_segments} segments of {len(videos)} videos in {len(files)} files: {place}")


def _cut(videos: list[IndexedVideo], folder: Path) -> int:
    from backtal_indexing.exports.clips import Clip, NotCut, clips_table, cut_clips

    clips: list[Clip] = []
    failed: list[NotCut] = []
    for one in cut_clips(videos, folder):
        if isinstance(one, Clip):
            clips.append(one)
        else:
            failed.append(one)
            _say(f"not cut: {one.error.message}")
    table = folder / "clips.csv"
    table.write_text(clips_table(clips), encoding="utf-8", newline="")
    lead = sum(clip.cut.lead_seconds for clip in clips) / max(1, len(clips))
    _say(f"{len(clips)} clips, on average {lead:.2f} s longer at the front: {table}")
    return 1 if failed else 0


def _rate(figure: float | None) -> Fraction | None:
    from backtal_indexing.timecode import exact_rate

    return None if figure is None else exact_rate(figure)


def _few(files: dict[str, str]) -> str:
    names = list(files)
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "") or "nothing found"


def _say(text: str) -> None:
    print(text, file=sys.stderr)
