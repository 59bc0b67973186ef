"""Put an exported bundle into the repository that is served, past its gate on a golden set."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from backtal.client_wire import KEY_VARIABLE


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument(
        "bundle", type=Path, metavar="REPOSITORY/BUNDLE", help="what `backtal export` wrote"
    )
    parser.add_argument(
        "--to", type=Path, required=True, metavar="DIR", help="the repository that is served"
    )
    parser.add_argument(
        "--golden",
        type=Path,
        required=True,
        metavar="DIR",
        help="feature files of a few videos and their ground_truth.json",
    )
    parser.add_argument("--gates", type=Path, metavar="FILE", help="YAML: the thresholds")
    add_server_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Publish, saying what was measured."""
    from backtal_export.gates import read_thresholds
    from backtal_export.publishing import publish

    done = publish(
        arguments.bundle.parent,
        arguments.bundle.name,
        arguments.to,
        arguments.golden,
        read_thresholds(arguments.gates),
        say=lambda text: print(text, flush=True),
    )
    before = "" if done.replaced_map is None else f", before {done.replaced_map:.4f}"
    print(
        f"published {done.bundle} as version {done.version} in {arguments.to}: "
        f"mAP {done.golden_map:.4f} on the golden set{before}"
    )
    return confirmed(arguments.to, done.bundle, done.version, arguments.server)


def add_server_option(parser: argparse.ArgumentParser) -> None:
    """Add the option that names the service which is waited for."""
    parser.add_argument(
        "--server",
        metavar="HOST:PORT",
        help="wait until this service (its gRPC) answers by the new version, and take back what it "
        f"refuses; its key is ${KEY_VARIABLE}",
    )


def confirmed(repository: Path, bundle: str, version: int, server: str | None) -> int:
    """Wait for the service, where one is named; the exit code. Raises as `confirm`."""
    from backtal_export.publishing import confirm

    if server is not None:
        confirm(repository, bundle, version, server, os.environ.get(KEY_VARIABLE))
        print(f"{server} serves version {version} of {bundle}")
    return 0
