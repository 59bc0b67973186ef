"""What an index holds: hours, segments by class, scores; and the drift between two bundles.

--drift compares what two bundles found in the videos that both have answered, or two versions of
one (NAME@HASH, the start of the bundle's SHA-256): how many segments of each class, how far scores
moved (Wasserstein's distance in units of the score; PSI beside what chance alone would give), and
the share of segments that agree in time.
"""

from __future__ import annotations

import argparse
import dataclasses
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa
    from rich.text import Text

    from backtal_indexing.drift import Drift

BARS = " ▁▂▃▄▅▆▇█"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument("index", metavar="INDEX", help="a folder or s3://BUCKET/PREFIX")
    parser.add_argument("--bundle", metavar="NAME", help="only of this bundle")
    parser.add_argument(
        "--drift", nargs=2, metavar=("REFERENCE", "OTHER"), help="compare two bundles instead"
    )
    parser.add_argument(
        "--tiou", type=float, default=0.5, metavar="TIOU", help="at which segments agree: 0.5"
    )
    parser.add_argument("--json", action="store_true", help="JSON on standard output")


def run(arguments: argparse.Namespace) -> int:
    """Print the tables."""
    from backtal_indexing.drift import drift
    from backtal_indexing.reading import open_tables
    from backtal_indexing.stats import segments_by_class, videos_by_status
    from backtal_indexing.subcommands.printing import print_json

    with open_tables(arguments.index) as tables:
        if arguments.drift:
            reference, other = arguments.drift
            found = drift(tables, reference, other, arguments.tiou)
            if arguments.json:
                print_json(_drift_document(found))
            else:
                _show_drift(found)
            return 0
        videos = videos_by_status(tables, arguments.bundle)
        classes = segments_by_class(tables, arguments.bundle)
    if arguments.json:
        print_json({"videos": videos.to_pylist(), "classes": classes.to_pylist()})
    else:
        _show(videos, classes)
    return 0


def _drift_document(found: Drift) -> dict[str, Any]:
    document = dataclasses.asdict(found)
    for plain, one in zip(document["classes"], found.classes, strict=True):
        plain["agreement"] = one.agreement
    return document


def _show(videos: pa.Table, classes: pa.Table) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    table = Table("bundle", "status", box=box.SIMPLE_HEAD)
    for heading in ("videos", "hours"):
        table.add_column(heading, justify="right")
    for row in videos.to_pylist():
        cells = (str(row["num_videos"]), f"{row['hours']:.1f}")
        table.add_row(Text(row["bundle"]), row["status"], *cells)
    console.print(table)
    for bundle in dict.fromkeys(classes["bundle"].to_pylist()):
        table = Table(title=Text(bundle), title_justify="left", box=box.SIMPLE_HEAD)
        table.add_column("label", overflow="fold")
        for heading in ("segments", "videos", "seconds", "median", "score 10/50/90%", "0 to 1"):
            table.add_column(heading, justify="right", no_wrap=True)
        for row in classes.to_pylist():
            if row["bundle"] == bundle:
                table.add_row(*_class_cells(row))
        console.print(table)


def _class_cells(row: dict[str, Any]) -> list[Text]:
    from rich.text import Text

    cells = (
        row["label"],
        str(row["num_segments"]),
        str(row["num_videos"]),
        f"{row['total_seconds']:.0f}",
        f"{row['median_seconds']:.1f} s",
        "/".join(f"{row[f'score_p{share}']:.2f}" for share in (10, 50, 90)),
        _bars(row["score_tenths"]),
    )
    return [Text(cell) for cell in cells]


def _bars(counts: list[int]) -> str:
    """A small picture of how scores are spread; what is there at all is seen."""
    most = max(counts)
    return "".join(BARS[-(-count * (len(BARS) - 1) // most)] for count in counts)


def _show_drift(found: Drift) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    title = f"{found.reference} to {found.other}, {found.num_videos} videos answered by both"
    table = Table(
        title=Text(title), title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1)
    )
    table.add_column("label", overflow="fold")
    headings = ("segments", "agree", "tIoU", "mean score", "Wasserstein", "PSI", "by chance")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for one in found.classes:
        scores = one.scores
        moved = ["-"] * 4
        if scores is not None:
            moved = [f"{scores.mean_shift:+.3f}", f"{scores.wasserstein:.3f}"]
            moved += [f"{scores.psi:.2f}", f"{scores.psi_by_chance:.2f}"]
        table.add_row(
            Text(one.label),
            f"{one.num_reference} to {one.num_other}",
            f"{one.agreement:.1%}",
            "-" if one.mean_tiou is None else f"{one.mean_tiou:.2f}",
            *moved,
        )
    Console(highlight=False).print(table)
