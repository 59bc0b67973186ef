"""Check a data set, or bring its features into the published layout and back.

`check` opens every file and says what the data set holds and what is wrong with it; exit code 1
where anything is. `export` writes features of ours as BackTAL's code reads them, `import` writes
published ones as features v1, which `evaluate` takes. A data set is a YAML file, or one of the
built-in ones: thumos14, activitynet12, hacs (own.yaml is there to be copied).
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backtal_training.data_set_report import SplitReport

PROBLEMS_SHOWN = 20
_ACTIONS = {
    "check": "open every file and report",
    "export": "write features of ours in the published layout",
    "import": "write published features as features v1",
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    actions = parser.add_subparsers(title="actions", dest="action", metavar="ACTION", required=True)
    for name, summary in _ACTIONS.items():
        action = actions.add_parser(name, help=summary)
        action.add_argument("data_set", metavar="DATASET", help="YAML file, or a built-in name")
        action.add_argument("--root", type=Path, metavar="DIR", help="default: the YAML's folder")
        if name == "check":
            action.add_argument("--json", type=Path, metavar="FILE", help="write the figures")
        else:
            action.add_argument("--to", type=Path, required=True, metavar="DIR")


def run(arguments: argparse.Namespace) -> int:
    """Do the action. 1 where `check` finds a file that is missing or wrong."""
    from backtal_training.data_set import find
    from backtal_training.data_set_report import report
    from backtal_training.published_layout import export_published, import_published

    data_set, root = find(arguments.data_set)
    root = arguments.root or root
    if arguments.action != "check":
        write = export_published if arguments.action == "export" else import_published
        print(f"{write(data_set, root, arguments.to)} files written to {arguments.to}")
        return 0
    reports = list(report(data_set, root))
    _show(data_set.name, reports)
    if arguments.json is not None:
        text = json.dumps([asdict(one) for one in reports], indent=1)
        arguments.json.write_text(text + "\n", encoding="utf-8")
    return 1 if any(one.problems for one in reports) else 0


def _show(name: str, reports: Sequence[SplitReport]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("", *(one.split for one in reports), title=name)
    rows = {
        "videos": [f"{one.num_videos}" for one in reports],
        "sound feature files": [f"{one.num_files}" for one in reports],
        "hours": [f"{one.hours:.2f}" for one in reports],
        "classes": [f"{one.num_classes}" for one in reports],
        "instances": [f"{one.num_instances}" for one in reports],
        "clicks": [f"{one.num_clicks}" for one in reports],
        "clicks a video": [f"{one.clicks_per_video:.1f}" for one in reports],
        "clicks inside actions": [f"{one.clicks_inside:.1%}" for one in reports],
        "videos without clicks": [f"{one.num_videos_without_clicks}" for one in reports],
        "seconds a position, median": [f"{one.seconds_per_position[0]:.2f}" for one in reports],
        "of 95 % at most": [f"{one.seconds_per_position[1]:.2f}" for one in reports],
        "problems": [f"{len(one.problems)}" for one in reports],
    }
    for label, cells in rows.items():
        table.add_row(label, *cells)
    console = Console()
    console.print(table)
    for one in reports:
        for problem in one.problems[:PROBLEMS_SHOWN]:
            console.print(f"[red]{one.split}[/red] {escape(problem)}", soft_wrap=True)
        if len(one.problems) > PROBLEMS_SHOWN:
            console.print(f"... and {len(one.problems) - PROBLEMS_SHOWN} more of {one.split}")
