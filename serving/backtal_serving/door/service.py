"""A Triton and the door in front of it: how each is told of the other.

The folder that they share is of mode 0700: in it are Triton's socket, the spool and the jobs.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from backtal_serving.door.process import DoorProcess
from backtal_serving.door.settings import DoorSettings
from backtal_serving.metrics.supervision import FILE_NAME, SupervisionMetrics
from backtal_serving.server import TritonServer
from backtal_serving.server_options import ServerOptions

# Where nobody set a folder; a path of a socket has 107 bytes at most.
PREFIX = "backtal-private-"


@contextmanager
def private_folder() -> Iterator[Path]:
    """A folder for a socket, its owner's alone, while the block runs."""
    with tempfile.TemporaryDirectory(prefix=PREFIX) as folder:
        yield Path(folder)


def behind_door(options: ServerOptions, socket_folder: Path, spool_folder: Path) -> TritonServer:
    """A Triton that listens on a socket in `socket_folder` only and reads videos of the spool."""
    settings = options.settings.model_copy(update={"spool_folder": spool_folder})
    return TritonServer(replace(options, settings=settings, socket_folder=socket_folder))


def door_of(
    server: TritonServer,
    settings: DoorSettings,
    log_file: Path | None = None,
    supervision: SupervisionMetrics | None = None,
) -> DoorProcess:
    """The door of a server that `behind_door` made, with the server's own limits."""
    limits = server.options.settings.limits
    return DoorProcess(
        settings.model_copy(
            update={
                "triton_address": server.grpc_address,
                "repository": server.options.repository,
                "report_file": server.options.report_file,
                "requests": limits.requests,
                "video": limits.video,
                "tracing": server.options.settings.tracing,
                "triton_metrics": server.options.metrics_socket,
                "supervisor_metrics": supervision_file(server),
                "exit_timeout_seconds": server.options.exit_timeout_seconds,
            }
        ),
        log_file,
        supervision,
    )


def supervision_file(server: TritonServer) -> Path | None:
    """Where the supervisor of a server that `behind_door` made leaves its metrics."""
    folder = server.options.socket_folder
    return None if folder is None else folder / FILE_NAME
