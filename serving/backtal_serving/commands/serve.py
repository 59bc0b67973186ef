"""Serve a model repository by Triton, for programs on this machine.

Triton listens on 127.0.0.1 only. SIGTERM or Ctrl-C stops it: requests in flight are answered
first. The exit code is Triton's, 0 after a clean stop.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from backtal.errors import InvalidArgument

if TYPE_CHECKING:
    from backtal_serving.server import TritonServer

DEFAULT_GRPC_PORT = 8001
POLL_SECONDS = 0.2


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `backtal serve`."""
    parser.add_argument(
        "--repository",
        type=Path,
        required=True,
        metavar="DIR",
        help="the model repository, as `backtal export` writes it",
    )
    parser.add_argument(
        "--grpc-port",
        type=int,
        default=DEFAULT_GRPC_PORT,
        metavar="PORT",
        help=f"gRPC on 127.0.0.1; 0 takes a free one (default: {DEFAULT_GRPC_PORT})",
    )
    parser.add_argument(
        "--http-port",
        type=int,
        metavar="PORT",
        help="Triton's own HTTP on 127.0.0.1 (default: off)",
    )
    parser.add_argument(
        "--allow-root",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="a folder whose files a request's uri may name; can be given several times",
    )
    parser.add_argument(
        "--ready-file",
        type=Path,
        metavar="FILE",
        help="written once requests are answered: JSON with grpc_address and pid; removed after",
    )
    parser.add_argument(
        "--log-file", type=Path, metavar="FILE", help="the log of Triton and the models"
    )
    parser.add_argument(
        "--exit-timeout",
        type=int,
        default=30,
        metavar="SECONDS",
        help="how long requests in flight may take after a stop (default: 30)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal; the exit code."""
    from backtal_serving.server import ServerOptions, TritonServer
    from backtal_serving.settings import ServingSettings

    for root in arguments.allow_root:
        if not root.is_dir():
            raise InvalidArgument(f"--allow-root {root} is no folder")
    options = ServerOptions(
        repository=arguments.repository,
        settings=ServingSettings(allowed_roots=tuple(r.resolve() for r in arguments.allow_root)),
        grpc_port=arguments.grpc_port or None,
        http_port=arguments.http_port,
        log_file=arguments.log_file,
        exit_timeout_seconds=arguments.exit_timeout,
    )
    signal.signal(signal.SIGTERM, _interrupt)
    server = TritonServer(options)
    try:
        server.start()
        _announce(server, arguments.ready_file)
        while (code := server.wait(POLL_SECONDS)) is None:
            pass
        print(f"Triton ended by itself with exit code {code}:", file=sys.stderr)
        print(server.log_tail(), file=sys.stderr)
        server.stop()
        return code or 1
    except KeyboardInterrupt:
        # A second signal must not leave the server half stopped.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        print("stopping", file=sys.stderr)
        return server.stop()
    finally:
        if arguments.ready_file is not None:
            arguments.ready_file.unlink(missing_ok=True)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _announce(server: TritonServer, ready_file: Path | None) -> None:
    http = f", HTTP on {server.http_address}" if server.http_address else ""
    print(f"ready: gRPC on {server.grpc_address}{http}, log in {server.log_file}", flush=True)
    if ready_file is None:
        return
    record = {"grpc_address": server.grpc_address, "http_address": server.http_address}
    temporary = ready_file.with_name(f".{ready_file.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps({**record, "pid": os.getpid()}) + "\n")
    temporary.replace(ready_file)
