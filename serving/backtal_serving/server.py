"""One Triton of our own: started on loopback, waited for, stopped without a trace."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from backtal.errors import InvalidArgument, Unavailable
from backtal.manifest import Manifest
from backtal_serving.command_line import arguments
from backtal_serving.drain import drain
from backtal_serving.launcher import Installation, Layout, find_installation, lay_out
from backtal_serving.model_control import ModelControl
from backtal_serving.ports import accepts, check_free, free_port
from backtal_serving.processes import kill_group
from backtal_serving.repository_view import RepositoryView, write_view
from backtal_serving.server_options import ServerOptions
from backtal_serving.triton_log import log_tail

SHARED_MEMORY = Path("/dev/shm")
POLL_SECONDS = 0.02
# Triton takes a model's process that is silent for a second for dead, and aborts: so it does on a
# machine that is busy with other things.
START_ATTEMPTS = 3
# Beyond Triton's own exit timeout: it finishes what is in flight, then unloads.
GRACE_SECONDS = 5.0
PROBE_SECONDS = 5.0
_TETHER = Path(__file__).with_name("tether.py")


class _Aborted(Unavailable):
    """Triton was ended by a signal while it loaded its models."""


class TritonServer:
    """A tritonserver and its children, from `start` to `stop`.

    A context manager: ready inside, gone after. `exit_code` is 0 after a clean stop.

    With `model_control`, `shown` is what a start loads: numbered versions of each bundle with the
    networks that they name, None for all of the repository. A model that does not load then ends
    nothing: who controls the models looks which are ready, and shows others in `view`.
    """

    def __init__(self, options: ServerOptions) -> None:
        self.options = options
        self.exit_code: int | None = None
        # Triton's shared memory is found again by this name when it could not remove it itself.
        self.shared_memory_prefix = f"backtal-{os.getpid()}-{secrets.token_hex(4)}-"
        self.grpc_port = options.grpc_port or 0
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None
        self._ready = False
        self._was_ready = False
        self.shown: Mapping[str, Sequence[tuple[int, Manifest]]] | None = None
        self.view: RepositoryView | None = None

    @property
    def grpc_address(self) -> str:
        """HOST:PORT, or unix:PATH, for `tritonclient.grpc`."""
        return self.options.grpc_address(self.grpc_port)

    @property
    def process_id(self) -> int | None:
        """Of the tritonserver, which leads its own process group. None when not running."""
        return None if self._process is None else self._process.pid

    @property
    def log_file(self) -> Path:
        """Where Triton and the models write."""
        if self.options.log_file is not None:
            return self.options.log_file
        if self._folder is None:
            raise Unavailable("the server was not started")
        return self._folder / "triton.log"

    def __enter__(self) -> TritonServer:
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
        """Start and wait until every model is ready.

        Raises MissingDependency; Unavailable for a port that is taken, and with the log's last
        lines if Triton ends at start or is not ready in time.
        """
        if self._process is not None:
            raise InvalidArgument("the server is running already")
        installation = find_installation()
        for port in (self.options.grpc_port, self.options.http_port):
            if port is not None:
                check_free(port)
        for _ in range(START_ATTEMPTS - 1):
            with suppress(_Aborted):
                self._start_once(installation)
                return
        self._start_once(installation)

    def stop(self) -> int:
        """Wait for what is in flight, SIGTERM, SIGKILL what is left; the exit code.

        Nothing of the server outlives this: no process of its group, no shared memory of its name.
        """
        return self._stop(self._end)

    def kill(self) -> int:
        """End a server that does not work, at once, whatever is in flight; the exit code."""
        return self._stop(kill_group)

    def _stop(self, end: Callable[[subprocess.Popen[bytes]], int]) -> int:
        process, self._process = self._process, None
        if process is not None:
            self.exit_code = end(process)
            for region in SHARED_MEMORY.glob(f"{self.shared_memory_prefix}*"):
                region.unlink(missing_ok=True)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
        self._ready = False
        return 0 if self.exit_code is None else self.exit_code

    def reload(self, model: str) -> None:
        """Unload a model and load it again, as is to be done where its process died.

        Raises Unavailable where Triton cannot, DeadlineExceeded where it does not do that in time;
        InvalidArgument for a server without `model_control`.
        """
        if not self.options.model_control:
            raise InvalidArgument("this server was started without model_control")
        control = ModelControl(self.grpc_address, self.options.startup_timeout_seconds)
        control.unload(model)
        control.load(model)

    def triton_version(self) -> str:
        """What Triton says that it is, say 2.51.0; empty where it does not answer."""
        from tritonclient.grpc import InferenceServerClient, InferenceServerException

        with InferenceServerClient(self.grpc_address) as client:
            try:
                return str(client.get_server_metadata(client_timeout=PROBE_SECONDS).version)
            except InferenceServerException:
                return ""

    def wait(self, timeout_seconds: float | None = None) -> int | None:
        """The exit code once Triton has ended by itself, None after `timeout_seconds`."""
        if self._process is None:
            return self.exit_code
        try:
            return self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            return None

    def _start_once(self, installation: Installation) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="backtal-triton-"))
        try:
            self._launch(installation, lay_out(installation, self._folder))
            self._wait_until_ready()
            self._ready = self._was_ready = True
        except BaseException:
            self.stop()
            raise

    def _launch(self, installation: Installation, layout: Layout) -> None:
        # A server that is started again keeps the port that its clients know.
        if not self._was_ready:
            self.grpc_port = self.options.grpc_port or free_port()
        # A Triton that was killed leaves them, and would seem to listen until the new one does.
        for left in (self.options.socket, self.options.metrics_socket):
            if left is not None:
                left.unlink(missing_ok=True)
        assert self._folder is not None
        view = self._write_view(self._folder / "repository")
        words = arguments(
            self.options,
            repository=view,
            backends=layout.backends,
            grpc_port=self.grpc_port,
            shared_memory_prefix=self.shared_memory_prefix,
            ends_on_error=self.shown is None,
        )
        tether = [sys.executable, "-I", "-S", str(_TETHER), str(os.getpid())]
        has_metrics = self.options.metrics_socket is not None
        settings = self.options.settings.model_copy(
            update={"state_folder": self._folder, "metrics": has_metrics}
        )
        environment = {**layout.environment, **settings.to_environment()}
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [*tether, str(installation.tritonserver), *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )

    def _write_view(self, folder: Path) -> Path:
        repository, limits = self.options.repository, self.options.settings.limits.requests
        if self.shown is None:
            return write_view(repository, folder, limits)
        self.view = RepositoryView(repository, folder, limits)
        for bundle, versions in self.shown.items():
            self.view.show_bundle(bundle, versions)
            for network in {part.model for _, shown in versions for part in shown.networks}:
                self.view.show_network(network)
        return folder

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + self.options.startup_timeout_seconds
        process = self._process
        assert process is not None
        # Triton opens its port when all models are loaded, and ends if one of them is not.
        while not self._is_ready():
            if process.poll() is not None:
                kind = _Aborted if process.returncode < 0 else Unavailable
                raise kind(
                    f"Triton ended at start with exit code {process.returncode}; the end of its "
                    f"log:\n{log_tail(self.log_file)}"
                )
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"Triton was not ready after {self.options.startup_timeout_seconds:g} s; the "
                    f"end of its log:\n{log_tail(self.log_file)}"
                )
            time.sleep(POLL_SECONDS)

    def _is_ready(self) -> bool:
        # gRPC comes first, then HTTP.
        listens = self.options.socket
        ports = [self.grpc_port if listens is None else None, self.options.http_port]
        if listens is not None and not listens.exists():
            return False
        return all(accepts(port) for port in ports if port is not None) and _is_ready(
            self.grpc_address, with_models=self.shown is None
        )

    def _end(self, process: subprocess.Popen[bytes]) -> int:
        if process.poll() is None:
            if self._ready and self._folder is not None:
                drain(self._folder, self.options.exit_timeout_seconds)
            process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(self.options.exit_timeout_seconds + GRACE_SECONDS)
        return kill_group(process)


def _is_ready(address: str, *, with_models: bool) -> bool:
    from tritonclient.grpc import InferenceServerClient, InferenceServerException

    with InferenceServerClient(address) as client:
        ask = client.is_server_ready if with_models else client.is_server_live
        try:
            return bool(ask(client_timeout=PROBE_SECONDS))
        except InferenceServerException:
            return False
