"""Memory of a whole server by length of video, sent as a `uri`, with a tiny backbone.

    python benchmarks/long_video_served.py [--quick] [--minutes 1 10 60 240] [--json FILE]

A fresh server, a real Triton with the tests' tiny networks, for each length of the recording that
`long_video.py` repeats. The memory is the most that Triton, its models' processes and their
decoders had together at once, shared pages counted once (PSS); "idle" is before the request.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from pathlib import Path

from long_video import MINUTES, QUICK_MINUTES, recording, repeat, tree_bytes

from backtal.client import Client
from backtal_serving.embedded import EmbeddedServer

SAMPLE_SECONDS = 0.2


class Peak:
    """The most memory of a process tree while the block runs."""

    def __init__(self, process_id: int) -> None:
        self._process_id = process_id
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.num_bytes = 0

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(SAMPLE_SECONDS):
            self.num_bytes = max(self.num_bytes, tree_bytes(self._process_id))


def measure(repository: Path, video: Path) -> dict[str, float]:
    """One request to a fresh server."""
    with (
        EmbeddedServer(repository, [video.parent]) as server,
        Client(server.grpc_address, timeout_seconds=3600.0) as client,
    ):
        assert server.process_id is not None
        idle_bytes = tree_bytes(server.process_id)
        started = time.monotonic()
        with Peak(server.process_id) as peak:
            answer = client.detect(uri=video.as_uri(), bundle="tiny")
        return {
            "video_seconds": answer.duration_seconds,
            "seconds": time.monotonic() - started,
            "idle_bytes": idle_bytes,
            "peak_bytes": peak.num_bytes,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="up to 10 minutes")
    parser.add_argument("--minutes", type=int, nargs="+", default=MINUTES)
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    lengths = QUICK_MINUTES if arguments.quick else arguments.minutes
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from tests.integration.tiny_repository import write_tiny_repository

    data = recording()
    figures: dict[str, float] = {}
    print(f"{'minutes':>8} {'seconds':>8} {'x real time':>12} {'idle MB':>8} {'peak MB':>8}")
    with tempfile.TemporaryDirectory() as folder:
        repository = Path(folder) / "repository"
        write_tiny_repository(repository)
        for minutes in lengths:
            video = Path(folder) / f"{minutes}.mp4"
            repeat(data, minutes, video)
            one = measure(repository, video)
            video.unlink()
            figures |= {f"{name}_{minutes}": value for name, value in one.items()}
            speed = one["video_seconds"] / one["seconds"]
            print(
                f"{minutes:8d} {one['seconds']:8.1f} {speed:12.0f} "
                f"{one['idle_bytes'] / 1e6:8.0f} {one['peak_bytes'] / 1e6:8.0f}",
                flush=True,
            )
    first, last = lengths[0], lengths[-1]
    for name, key in (("memory", "peak_bytes"), ("seconds", "seconds")):
        ratio = figures[f"{key}_{last}"] / figures[f"{key}_{first}"]
        figures[f"{name}_{last}_over_{first}"] = ratio
        print(f"{name}_{last}_over_{first}: {ratio:.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
