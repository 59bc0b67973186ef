"""How a Triton of ours is started, and where it is then reached."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from backtal.errors import InvalidArgument, NotFound
from backtal_serving.ports import LOOPBACK
from backtal_serving.settings import ServingSettings
from backtal_serving.version_report import REPORT_NAME

SOCKET_NAME, SOCKET_PORT = "triton.sock", 1
METRICS_SOCKET_NAME = "metrics.sock"


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

    def grpc_address(self, port: int) -> str:
        """HOST:PORT, or unix:PATH, for `tritonclient.grpc`."""
        return f"{LOOPBACK}:{port}" if self.socket is None else f"unix:{self.socket}"

    @property
    def socket(self) -> Path | None:
        """What gRPC listens on, None where it has a port."""
        # Triton has no option for a socket: of an address unix:PATH it listens on PATH:PORT.
        return self._in_socket_folder(f"{SOCKET_NAME}:{SOCKET_PORT}")

    @property
    def metrics_socket(self) -> Path | None:
        """Where Triton's own metrics are to be had by HTTP, None where they are off."""
        return self._in_socket_folder(METRICS_SOCKET_NAME) if self.settings.metrics else None

    @property
    def report_file(self) -> Path | None:
        """Where the front door reads which versions are served; None where there is no door."""
        return self._in_socket_folder(REPORT_NAME)

    def _in_socket_folder(self, name: str) -> Path | None:
        return None if self.socket_folder is None else self.socket_folder / name
