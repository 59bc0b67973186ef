"""Index a library of videos once, search its segments ever after.

Each of its commands has its own --help.
"""

from __future__ import annotations

import argparse
import importlib
import inspect

from backtal.cli import Command

# Each is a module of backtal_indexing.subcommands.
SUBCOMMANDS = ("run", "status", "retry", "verify", "compact", "search", "stats", "export")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the commands below `backtal index`."""
    subparsers = parser.add_subparsers(
        title="commands", dest="index_command", metavar="COMMAND", required=True
    )
    for name in SUBCOMMANDS:
        module = importlib.import_module(f"backtal_indexing.subcommands.{name}")
        docstring = inspect.getdoc(module) or ""
        command: Command = module
        command.configure(
            subparsers.add_parser(
                name,
                help=docstring.partition("\n")[0].rstrip("."),
                description=docstring,
                formatter_class=argparse.RawDescriptionHelpFormatter,
            )
        )


def run(arguments: argparse.Namespace) -> int:
    """Run the chosen one."""
    module = importlib.import_module(f"backtal_indexing.subcommands.{arguments.index_command}")
    return int(module.run(arguments))
