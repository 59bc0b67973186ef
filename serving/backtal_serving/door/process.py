"""Starts the door's process, and starts it again where it ends by itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from backtal.errors import Unavailable
from backtal_serving.door.settings import DoorSettings
from backtal_serving.metrics.supervision import SupervisionMetrics

POLL_SECONDS = 0.05
STARTUP_SECONDS = 30.0
# Beside what requests in flight may take.
STOP_SECONDS = 10.0
MIN_BACKOFF_SECONDS, MAX_BACKOFF_SECONDS = 0.1, 10.0
_TETHER = Path(__file__).parent.parent / "tether.py"


class DoorProcess:
    """A front door in a process of its own, from `start` to `stop`; a context manager.

    One that ends by itself is started again on the same ports, later and later if that does not
    help. It ends with the process that started it. `log_file` is appended to; None keeps it
    for what it says at start only.
    """

    def __init__(
        self,
        settings: DoorSettings,
        log_file: Path | None = None,
        supervision: SupervisionMetrics | None = None,
    ) -> None:
        self.settings = settings
        self._supervision = supervision or SupervisionMetrics()
        self.process_id: int | None = None
        self._log_file = log_file
        self._folder = tempfile.TemporaryDirectory(prefix="backtal-door-")
        self._stopping = threading.Event()
        self._ready = threading.Event()
        self._failure: str | None = None
        # The kernel ends the process with the thread that started it: this one lives as long.
        self._keeper = threading.Thread(target=self._keep, daemon=True)

    @property
    def grpc_address(self) -> str:
        """HOST:PORT for `tritonclient.grpc`."""
        return f"{self.settings.host}:{self.settings.grpc_port}"

    @property
    def http_address(self) -> str | None:
        """HOST:PORT of HTTP, None where it is off."""
        port = self.settings.http_port
        return None if port is None else f"{self.settings.host}:{port}"

    def __enter__(self) -> DoorProcess:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start, and wait until the door listens. Raises Unavailable with what it said."""
        self._keeper.start()
        deadline = time.monotonic() + STARTUP_SECONDS
        while not self._ready.wait(POLL_SECONDS):
            if self._failure is not None or time.monotonic() > deadline:
                self.stop()
                raise Unavailable(f"the front door did not start: {self._failure or 'no answer'}")

    def stop(self) -> None:
        """End it: what is in flight is answered first."""
        self._stopping.set()
        if self._keeper.ident is not None:
            self._keeper.join()
        self._folder.cleanup()

    def _keep(self) -> None:
        backoff_seconds = MIN_BACKOFF_SECONDS
        while not self._stopping.is_set():
            started = time.monotonic()
            self._run()
            if not self._ready.is_set():
                return
            if time.monotonic() - started > MAX_BACKOFF_SECONDS:
                backoff_seconds = MIN_BACKOFF_SECONDS
            if not self._stopping.wait(backoff_seconds):
                self._supervision.child_restarted("door")
            backoff_seconds = min(2 * backoff_seconds, MAX_BACKOFF_SECONDS)

    def _run(self) -> None:
        """One process, from its start to its end."""
        folder = Path(self._folder.name)
        settings_file, ready_file = folder / "settings.json", folder / "ready.json"
        settings_file.write_text(self.settings.model_dump_json())
        ready_file.unlink(missing_ok=True)
        module = ["-m", "backtal_serving.door.main", str(settings_file), str(ready_file)]
        command = [sys.executable, "-I", "-S", str(_TETHER), str(os.getpid()), sys.executable]
        errors = folder / "errors"
        with (self._log_file or errors).open("ab") as log:
            start = log.tell()
            process = subprocess.Popen(
                [*command, *module],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.process_id = process.pid
        while process.poll() is None:
            if not self._ready.is_set() and ready_file.exists():
                ports = json.loads(ready_file.read_text())
                self.settings = self.settings.model_copy(update=ports)
                self._ready.set()
            if self._stopping.wait(POLL_SECONDS):
                _end(process, self.settings.exit_timeout_seconds + STOP_SECONDS)
        if not self._ready.is_set():
            text = (self._log_file or errors).read_bytes()[start:].decode(errors="replace")
            self._failure = text.strip()[-2000:] or f"exit code {process.returncode}"


def _end(process: subprocess.Popen[bytes], timeout_seconds: float) -> None:
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout_seconds)
        return
    process.kill()
    process.wait()
