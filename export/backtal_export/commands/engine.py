"""Build TensorRT engines of a bundle's networks, on the GPU of this machine.

Each is held against ONNX Runtime's float32 on clips of the videos and written only where it is
near enough. An engine is good for the GPU and the TensorRT that built it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("bundle", type=Path, metavar="REPOSITORY/BUNDLE", help="whose networks")
    parser.add_argument(
        "--videos", nargs="+", type=Path, required=True, metavar="VIDEO", help="to measure on"
    )
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="for MODEL.plan")
    parser.add_argument("--precision", choices=("float32", "float16", "int8"), default="float16")
    parser.add_argument(
        "--least-cosine", type=float, default=0.999, metavar="X", help="to float32 (default: 0.999)"
    )
    parser.add_argument(
        "--timing-cache", type=Path, metavar="FILE", help="kept from build to build"
    )


def run(arguments: argparse.Namespace) -> int:
    """Build, and print each network's cosine."""
    from backtal.runtime import load_bundle
    from backtal_export.tensorrt.bundle import build_engines
    from backtal_export.tensorrt.engine import BuildSettings

    cosines = build_engines(
        arguments.bundle.parent,
        load_bundle(arguments.bundle.parent, arguments.bundle.name),
        arguments.to,
        arguments.precision,
        arguments.videos,
        least_cosine=arguments.least_cosine,
        settings=BuildSettings(timing_cache=arguments.timing_cache),
        say=_say,
    )
    for model, cosine in cosines.items():
        print(f"{model}.plan  cosine to float32 {cosine:.6f}")
    return 0


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
