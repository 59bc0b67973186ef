"""One Triton of our own: started on loopback, waited for, stopped without a trace."""

from __future__ import annotations

import math
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from backtal.errors import InvalidArgument, NotFound, Unavailable
from backtal.manifest import Manifest
from backtal.runtime import num_cores
from backtal_serving.drain import drain
from backtal_serving.launcher import Installation, Layout, find_installation, lay_out
from backtal_serving.model_control import ModelControl
from backtal_serving.repository_view import RepositoryView, write_view
from backtal_serving.settings import ServingSettings
from backtal_serving.version_report import REPORT_NAME

LOOPBACK = "127.0.0.1"
SOCKET_NAME, SOCKET_PORT = "triton.sock", 1
METRICS_SOCKET_NAME = "metrics.sock"
SHARED_MEMORY = Path("/dev/shm")
POLL_SECONDS = 0.02
# Triton takes a model's process that is silent for a second for dead, and aborts: so it does on a
# machine that is busy with other things.
START_ATTEMPTS = 3
# Beyond Triton's own exit timeout: it finishes what is in flight, then unloads.
GRACE_SECONDS = 5.0
PROBE_SECONDS = 5.0
TAIL_LINES = 12
MAXIMUM_LINE = 500
# Triton starts its own error lines with E and the date.
_ERROR_LINE = re.compile(r"E\d{4} |error: |.*Failed to ")
_NOISE_LINE = re.compile(r"[+|]|  <frozen importlib|.*CudaDriverHelper")
_TETHER = Path(__file__).with_name("tether.py")


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """How a server is started.

    repository: a model repository as `backtal export` writes it.
    grpc_port, http_port: on loopback; None is a free port for gRPC, and no HTTP.
    socket_folder: of mode 0700; gRPC listens on a socket in it, on no port, for the front door.
    log_file: Triton's and the models' log, appended to; None keeps it for errors at start only.
    model_config_name: takes ``<model>/configs/NAME.pbtxt`` where it exists.
    startup_timeout_seconds: how long the models may take to load.
    exit_timeout_seconds: how long requests in flight may take after a stop.
    model_control: models can be unloaded and loaded by whoever reaches Triton's gRPC, and with
        them any code: only where that is nobody else, never on a port of loopback.
    """

    repository: Path
    settings: ServingSettings = field(default_factory=ServingSettings)
    grpc_port: int | None = None
    http_port: int | None = None
    socket_folder: Path | None = None
    log_file: Path | None = None
    model_config_name: str | None = None
    startup_timeout_seconds: float = 120.0
    exit_timeout_seconds: int = 30
    model_control: bool = False

    def __post_init__(self) -> None:
        if not self.repository.is_dir():
            raise NotFound(f"no such model repository: {self.repository}")
        for name, port in (("gRPC", self.grpc_port), ("HTTP", self.http_port)):
            if port is not None and not 1 <= port <= 65535:
                raise InvalidArgument(f"{name} port {port} is not between 1 and 65535")


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
        if self.options.socket_folder is not None:
            return f"unix:{self._socket}"
        return f"{LOOPBACK}:{self.grpc_port}"

    @property
    def _socket(self) -> Path:
        # Triton has no option for a socket: of an address unix:PATH it listens on PATH:PORT.
        assert self.options.socket_folder is not None
        return self.options.socket_folder / f"{SOCKET_NAME}:{SOCKET_PORT}"

    @property
    def report_file(self) -> Path | None:
        """Where the front door reads which versions are served; None where there is no door."""
        folder = self.options.socket_folder
        return None if folder is None else folder / REPORT_NAME

    @property
    def metrics_socket(self) -> Path | None:
        """Where Triton's own metrics are to be had by HTTP, None where they are off."""
        folder = self.options.socket_folder
        if folder is None or not self.options.settings.metrics:
            return None
        return folder / METRICS_SOCKET_NAME

    @property
    def http_address(self) -> str | None:
        """HOST:PORT of Triton's own HTTP, None where it is off."""
        port = self.options.http_port
        return None if port is None else f"{LOOPBACK}:{port}"

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
                _check_free(port)
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
        return self._stop(_kill_group)

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

    def log_tail(self) -> str:
        """The log's last errors, then its last lines, without Triton's tables."""
        try:
            text = self.log_file.read_text(errors="replace")
        except OSError:
            return "(no log)"
        lines = [
            line[:MAXIMUM_LINE]
            for line in text.splitlines()
            if line.strip() and not _NOISE_LINE.match(line)
        ]
        last = lines[-TAIL_LINES:]
        errors = [line for line in lines[:-TAIL_LINES] if _ERROR_LINE.match(line)]
        return "\n".join([*errors[-TAIL_LINES:], *last])

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
        if self.options.socket_folder is not None:
            # A Triton that was killed leaves it, and would seem to listen until the new one does.
            self._socket.unlink(missing_ok=True)
        if self.metrics_socket is not None:
            self.metrics_socket.unlink(missing_ok=True)
        assert self._folder is not None
        view = self._write_view(self._folder / "repository")
        command = [str(installation.tritonserver), *self._arguments(layout, view)]
        settings = self.options.settings.model_copy(
            update={"state_folder": self._folder, "metrics": self.metrics_socket is not None}
        )
        environment = {**layout.environment, **settings.to_environment()}
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_TETHER), str(os.getpid()), *command],
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

    def _arguments(self, layout: Layout, repository: Path) -> list[str]:
        options = self.options
        stub_timeout = max(30, math.ceil(options.startup_timeout_seconds))
        arguments = [
            f"--model-repository={repository}",
            f"--backend-directory={layout.backends}",
            f"--backend-config=python,shm-region-prefix-name={self.shared_memory_prefix}",
            # Triton's 30 s for a model's process to start are not enough on a busy machine.
            f"--backend-config=python,stub-timeout-seconds={stub_timeout}",
            # Not more at once than cores: the processes that load slow each other down.
            f"--model-load-thread-count={num_cores()}",
            # Our configurations are complete; completing them starts each model's stub twice.
            "--disable-auto-complete-config",
            "--allow-grpc=true",
            *self._grpc_arguments(),
            # Else a large request's memory is kept for the next one.
            "--grpc-infer-allocation-pool-size=0",
            *self._metrics_arguments(),
            f"--exit-timeout-secs={options.exit_timeout_seconds}",
        ]
        if options.http_port is None:
            arguments.append("--allow-http=false")
        else:
            arguments += [
                "--allow-http=true",
                f"--http-address={LOOPBACK}",
                f"--http-port={options.http_port}",
            ]
        if options.model_control:
            arguments += ["--model-control-mode=explicit", "--load-model=*"]
            if self.shown is not None:
                arguments.append("--exit-on-error=false")
        if options.model_config_name is not None:
            arguments.append(f"--model-config-name={options.model_config_name}")
        return arguments

    def _grpc_arguments(self) -> list[str]:
        if self.options.socket_folder is None:
            return [f"--grpc-address={LOOPBACK}", f"--grpc-port={self.grpc_port}"]
        socket_path = self.options.socket_folder / SOCKET_NAME
        return [f"--grpc-address=unix:{socket_path}", f"--grpc-port={SOCKET_PORT}"]

    def _metrics_arguments(self) -> list[str]:
        if self.metrics_socket is None:
            return ["--allow-metrics=false"]
        # Its HTTP can be crashed from outside: a socket that nobody else reaches, and no port.
        address = f"--metrics-address=unix:{self.metrics_socket}"
        return ["--allow-metrics=true", address, "--metrics-port=1"]

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
                    f"log:\n{self.log_tail()}"
                )
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"Triton was not ready after {self.options.startup_timeout_seconds:g} s; the "
                    f"end of its log:\n{self.log_tail()}"
                )
            time.sleep(POLL_SECONDS)

    def _is_ready(self) -> bool:
        # gRPC comes first, then HTTP.
        by_socket = self.options.socket_folder is not None
        ports = [None if by_socket else self.grpc_port, self.options.http_port]
        if by_socket and not self._socket.exists():
            return False
        return all(_accepts(port) for port in ports if port is not None) and _is_ready(
            self.grpc_address, with_models=self.shown is None
        )

    def _end(self, process: subprocess.Popen[bytes]) -> int:
        if process.poll() is None:
            if self._ready and self._folder is not None:
                drain(self._folder, self.options.exit_timeout_seconds)
            process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(self.options.exit_timeout_seconds + GRACE_SECONDS)
        return _kill_group(process)


def _kill_group(process: subprocess.Popen[bytes]) -> int:
    """Kill what is left of a server, and wait until it is gone; the exit code."""
    # The group outlives its leader where a model's stub was busy, and ignores SIGTERM.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    code = process.wait()
    _wait_for_group(process.pid)
    return code


def _wait_for_group(leader: int) -> None:
    """Wait until a killed group is gone; its orphans are ours to bury where we adopt them."""
    deadline = time.monotonic() + GRACE_SECONDS
    with suppress(ProcessLookupError):
        while time.monotonic() < deadline:
            with suppress(ChildProcessError):
                while os.waitpid(-leader, os.WNOHANG)[0]:
                    pass
            os.killpg(leader, 0)
            time.sleep(POLL_SECONDS)


def free_port() -> int:
    """A TCP port of loopback that was free just now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def _check_free(port: int) -> None:
    # Triton binds only when its models are loaded: till then the other server would answer for it.
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            raise Unavailable(
                f"port {port} of {LOOPBACK} cannot be had: {error.strerror}"
            ) from None


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((LOOPBACK, port)) == 0


def _is_ready(address: str, *, with_models: bool) -> bool:
    from tritonclient.grpc import InferenceServerClient, InferenceServerException

    with InferenceServerClient(address) as client:
        ask = client.is_server_ready if with_models else client.is_server_live
        try:
            return bool(ask(client_timeout=PROBE_SECONDS))
        except InferenceServerException:
            return False
