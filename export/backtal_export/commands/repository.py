"""Check a model repository: `backtal repository verify DIR`."""

from __future__ import annotations

import argparse
from pathlib import Path


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    verify = actions.add_parser(
        "verify",
        help="every file against its manifest, and every network's gate anew",
        description="Check each version of each bundle: that its files are there, have the hashes "
        "that the manifest names, and are valid ONNX; that the configurations are those that were "
        "written; and that the newest version's networks still pass their gates on this machine.",
    )
    verify.add_argument("repository", type=Path, metavar="DIR")
    verify.add_argument("--gates", type=Path, metavar="FILE", help="YAML: the thresholds")
    verify.add_argument("--files-only", action="store_true", help="measure nothing: seconds")


def run(arguments: argparse.Namespace) -> int:
    """Say what is whole; the first fault ends it as an error."""
    from backtal_export.gates import read_thresholds
    from backtal_export.verification import verify

    thresholds = read_thresholds(arguments.gates)
    for checked in verify(arguments.repository, thresholds, measured=not arguments.files_only):
        figures = ""
        if checked.measured is not None:
            cosines = [part.feature_cosine or 0.0 for part in checked.measured.backbones.values()]
            figures = f", feature cosine {min(cosines):.6f}, CAS error "
            figures += f"{checked.measured.cas.cas_error or 0.0:.4f}"
        print(f"{checked.bundle} version {checked.version}: whole{figures}", flush=True)
    return 0
