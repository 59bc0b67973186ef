"""Make a key for the front door: the key is printed once, the file gets its SHA-256.

The file is read again by a service that runs. Remove an entry by hand to take its key away.
"""

from __future__ import annotations

import argparse
import os
import secrets
from pathlib import Path
from typing import Any

import yaml

from backtal.errors import InvalidArgument

KEY_BYTES = 32


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `backtal keys`."""
    parser.add_argument("file", type=Path, metavar="FILE", help="of keys; made where there is none")
    parser.add_argument("name", metavar="NAME", help="what logs and metrics call the key's holder")
    parser.add_argument(
        "--model", action="append", metavar="NAME", help="a bundle it may use (default: all)"
    )
    parser.add_argument(
        "--root", action="append", metavar="DIR", help="what its uri may name (default: as served)"
    )
    parser.add_argument("--requests-per-second", type=float, metavar="N", help="default: no bound")
    parser.add_argument("--at-once", type=int, metavar="N", help="default: no bound")
    parser.add_argument("--operator", action="store_true", help="may see /metrics from elsewhere")


def run(arguments: argparse.Namespace) -> int:
    """Add an entry and print its key."""
    from backtal.settings import read_yaml
    from backtal_serving.door.callers import KeyFile, key_entries, sha256_of_key

    key = secrets.token_urlsafe(KEY_BYTES)
    known = read_yaml(KeyFile, arguments.file).keys if arguments.file.exists() else ()
    if any(entry.name == arguments.name for entry in known):
        raise InvalidArgument(f"{arguments.file} has a key named {arguments.name!r} already")
    wanted = {
        "name": arguments.name,
        "sha256": sha256_of_key(key),
        "role": "operator" if arguments.operator else "user",
        "models": arguments.model,
        "roots": arguments.root,
        "requests_per_second": arguments.requests_per_second,
        "at_once": arguments.at_once,
    }
    entries = [entry.model_dump(mode="json", exclude_defaults=True) for entry in known]
    document = {"keys": [*entries, {k: v for k, v in wanted.items() if v is not None}]}
    key_entries(document, "backtal keys")
    _write(arguments.file, document)
    print(key)
    return 0


def _write(path: Path, document: dict[str, Any]) -> None:
    """Replace the file at once, for its owner's eyes only: a service may be reading it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        yaml.safe_dump(document, file, sort_keys=False)
    temporary.replace(path)
