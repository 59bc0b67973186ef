"""The command `backtal`: finds the rooms' subcommands and answers errors in one line.

A subcommand is a module, registered as an entry point of the group `backtal.commands`: its
docstring's first line is its help, `configure(parser)` adds its options and `run(arguments)`
gives the exit code. Only the chosen one is imported; the others' help is read from their source.

Exit codes: 0 done, 1 it could not be done, 2 the caller can mend it (wrong option, file or
video), 130 interrupted.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.util
import os
import pkgutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, cast

from backtal import __version__
from backtal.errors import BacktalError, InvalidArgument, MissingDependency, NotFound

ENTRY_POINT_GROUP = "backtal.commands"

EXIT_FAILED = 1
EXIT_MENDABLE = 2
EXIT_INTERRUPTED = 130

# Which extra brings a module that a command may miss.
_EXTRA_OF_MODULE = {
    "decord": "decord",
    "duckdb": "index",
    "google": "client",
    "grpc": "client",
    "onnx": "export",
    "onnxruntime": "local",
    "obstore": "s3",
    "onnxscript": "export",
    "opentimelineio": "timeline",
    "pebble": "index",
    "prometheus_client": "serving",
    "pyarrow": "index",
    "pytriton": "serving",
    "ray": "ray",
    "safetensors": "training",
    "tensorboard": "tensorboard",
    "torch": "training",
    "tritonclient": "client",
}


_DESCRIPTION = "Find actions in untrimmed videos: when each starts and ends, and which it is."


class Command(Protocol):
    """What the module of a subcommand offers."""

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the options."""

    def run(self, arguments: argparse.Namespace) -> int:
        """Do it, and give the exit code. Raises BacktalError."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: the process's own) and give the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        return _dispatch(words)
    except BacktalError as error:
        _complain(error.message)
        mendable = isinstance(error, (InvalidArgument, NotFound, MissingDependency))
        return EXIT_MENDABLE if mendable else EXIT_FAILED
    except KeyboardInterrupt:
        _complain("interrupted")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our output (`| head`) has gone: leave quietly, as other commands do.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED


def _dispatch(words: list[str]) -> int:
    modules = find_commands()
    chosen = next((word for word in words if not word.startswith("-")), None)
    parser = argparse.ArgumentParser(prog="backtal", description=_DESCRIPTION)
    parser.add_argument("--version", action="version", version=f"backtal {__version__}")
    subparsers = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND")
    for name, module_name in sorted(modules.items()):
        docstring = _docstring(module_name)
        summary = docstring.partition("\n")[0]
        subparser = subparsers.add_parser(
            name,
            help=summary.rstrip("."),
            description=docstring,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if name == chosen:
            _import(module_name).configure(subparser)
    arguments = parser.parse_args(words)
    if arguments.command is None:
        parser.print_help()
        return EXIT_MENDABLE
    try:
        return int(_import(modules[arguments.command]).run(arguments))
    except ModuleNotFoundError as error:
        raise _missing(error) from None


def find_commands() -> dict[str, str]:
    """Name -> module of every subcommand: of the installed rooms, else of the importable ones."""
    from importlib.metadata import entry_points

    installed = {point.name: point.value for point in entry_points(group=ENTRY_POINT_GROUP)}
    return installed or _importable_commands()


def _importable_commands() -> dict[str, str]:
    """What `python -m backtal.cli` has in a source tree that was never installed."""
    rooms = [
        module.name
        for module in pkgutil.iter_modules()
        if module.ispkg and module.name.partition("_")[0] == "backtal"
    ]
    found = {}
    for room in rooms:
        spec = importlib.util.find_spec(room)
        for location in (spec.submodule_search_locations or []) if spec else []:
            for path in sorted(Path(location, "commands").glob("[a-z]*.py")):
                found[path.stem.replace("_", "-")] = f"{room}.commands.{path.stem}"
    return found


def _docstring(module_name: str) -> str:
    """The module's docstring, without importing it: its imports may be missing or slow."""
    try:
        spec = importlib.util.find_spec(module_name)
    except ModuleNotFoundError:
        spec = None
    if spec is None or spec.origin is None:
        return "(not installed)"
    source = Path(spec.origin).read_text(encoding="utf-8")
    return ast.get_docstring(ast.parse(source)) or ""


def _import(module_name: str) -> Command:
    try:
        return cast(Command, importlib.import_module(module_name))
    except ModuleNotFoundError as error:
        raise _missing(error) from None


def _missing(error: ModuleNotFoundError) -> MissingDependency:
    module = (error.name or "").partition(".")[0]
    extra = _EXTRA_OF_MODULE.get(module)
    if extra is None:
        return MissingDependency(f"the module {error.name} is missing: reinstall backtal")
    return MissingDependency(
        f"this needs {module}, which is not installed: pip install 'backtal[{extra}]'"
    )


def _complain(message: str) -> None:
    print(f"backtal: error: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
