"""The page of `--html` in a real browser: what it draws, and that a segment plays."""

from __future__ import annotations

import http.server
import json
import queue
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backtal.detection import DetectionAnswer
from backtal.report import Report, render
from backtal.segments import Segment
from tests.integration.videos import moving_colours
from tests.requirements import require

pytestmark = pytest.mark.slow

SECONDS = 8.0
PATIENCE_SECONDS = 60.0
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# Without these a browser looks for updates, and for a graphics card.
FLAGS = (
    "--headless",
    "--remote-debugging-port=0",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
    "--mute-audio",
)

# Chooses the second segment once the video can play, and tells the test's server what then happens.
WATCH = """
<script>
(function () {
  var video = document.getElementById("video");
  var seen = {};
  video.addEventListener("canplay", function () {
    if (seen.videoSeconds) return;
    seen.videoSeconds = video.duration;
    document.querySelectorAll("button.segment")[1].click();
  });
  video.addEventListener("playing", function () {
    seen.playedFrom = video.currentTime;
    requestAnimationFrame(function () {
      seen.current = document.querySelector("button.segment[aria-current]").dataset.start;
    });
  });
  video.addEventListener("pause", function () {
    seen.pausedAt = video.currentTime;
    fetch("/seen", { method: "POST", body: JSON.stringify(seen) });
  });
})();
</script>
"""


def browser() -> str:
    found = [path for path in map(shutil.which, BROWSERS) if path is not None]
    return (
        found[0]
        if found
        else require("browser", f"none of {', '.join(BROWSERS)} is installed: make system")
    )


def watched(page: str, profile: Path) -> dict[str, Any]:
    """What the page did in a browser, as the script that is added to it tells."""
    page = page.replace("default-src 'none';", "default-src 'none'; connect-src 'self';")
    page = page.replace("</body>", f"{WATCH}</body>")
    told: queue.Queue[dict[str, Any]] = queue.Queue()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/" else 404)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(page.encode() if self.path == "/" else b"")

        def do_POST(self) -> None:
            told.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/"
        command = [browser(), *FLAGS, f"--user-data-dir={profile}", address]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
            try:
                return told.get(timeout=PATIENCE_SECONDS)
            finally:
                run.terminate()
                run.wait()
                server.shutdown()


def test_choosing_a_segment_plays_it_and_stops_at_its_end(tmp_path: Path) -> None:
    video = tmp_path / "video.mp4"
    video.write_bytes(moving_colours(SECONDS))
    segments = (Segment(1.0, 2.0, "jump", 0.9), Segment(4.0, 5.0, "run", 0.5))
    length = 20
    answer = DetectionAnswer(
        segments=segments,
        duration_seconds=SECONDS,
        cas=np.random.default_rng(0).normal(size=(2, length)).astype(np.float32),
        position_seconds=((np.arange(length) + 0.5) * SECONDS / length).astype(np.float32),
        classes=("jump", "run"),
        provenance={"bundle": "demo"},
    )
    page = render(Report("video.mp4", answer, video, truth=segments), tmp_path)
    seen = watched(page, tmp_path / "profile")
    assert seen["videoSeconds"] == pytest.approx(SECONDS, abs=0.1)
    assert seen["playedFrom"] == pytest.approx(segments[1].start_seconds, abs=0.3)
    assert seen["pausedAt"] == pytest.approx(segments[1].end_seconds, abs=0.3)
    assert float(seen["current"]) == segments[1].start_seconds
