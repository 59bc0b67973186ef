"""Serve a model repository: a front door for gRPC and HTTP, and Triton behind it.

Triton itself can be reached by no other machine and no other user. SIGTERM or Ctrl-C stops both:
requests in flight are answered first. The exit code is Triton's, 0 after a clean stop.
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
    from backtal_serving.door.process import DoorProcess
    from backtal_serving.door.settings import DoorSettings
    from backtal_serving.server import TritonServer

DEFAULT_GRPC_PORT = 8001
DEFAULT_HTTP_PORT = 8000
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
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="where to listen; beyond loopback it takes --keys (default: 127.0.0.1)",
    )
    parser.add_argument(
        "--grpc-port",
        type=int,
        default=DEFAULT_GRPC_PORT,
        metavar="PORT",
        help=f"0 takes a free one (default: {DEFAULT_GRPC_PORT})",
    )
    parser.add_argument(
        "--http-port",
        type=int,
        default=DEFAULT_HTTP_PORT,
        metavar="PORT",
        help=f"0 takes a free one (default: {DEFAULT_HTTP_PORT})",
    )
    parser.add_argument(
        "--keys",
        type=Path,
        metavar="FILE",
        help="who may call, as `backtal keys` writes it; without it everybody of this machine",
    )
    parser.add_argument(
        "--state",
        type=Path,
        metavar="DIR",
        help="where uploads and jobs are kept; without it jobs end with the service",
    )
    parser.add_argument(
        "--door-settings",
        type=Path,
        metavar="FILE",
        help="YAML with the front door's limits, jobs and tls (docs/wire.md)",
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
        help="written once requests are answered: JSON with grpc_address, http_address and pid; "
        "removed after",
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
    from backtal_serving.door.service import behind_door, door_of, private_folder
    from backtal_serving.server import ServerOptions
    from backtal_serving.settings import ServingSettings

    for root in arguments.allow_root:
        if not root.is_dir():
            raise InvalidArgument(f"--allow-root {root} is no folder")
    options = ServerOptions(
        repository=arguments.repository,
        settings=ServingSettings(allowed_roots=tuple(r.resolve() for r in arguments.allow_root)),
        log_file=arguments.log_file,
        exit_timeout_seconds=arguments.exit_timeout,
    )
    signal.signal(signal.SIGTERM, _interrupt)
    with private_folder() as folder:
        door_settings = _door_settings(arguments, folder)
        server = behind_door(options, folder, door_settings.spool_folder)
        try:
            server.start()
            with door_of(server, door_settings, arguments.log_file) as door:
                _announce(server, door, arguments.ready_file)
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


def _door_settings(arguments: argparse.Namespace, folder: Path) -> DoorSettings:
    """The file's settings, with the command's options on top of them."""
    from backtal.settings import parse, read_yaml
    from backtal_serving.door.settings import DoorSettings, SettingsFile

    given = SettingsFile()
    if arguments.door_settings is not None:
        given = read_yaml(SettingsFile, arguments.door_settings)
    options = {
        "host": arguments.host,
        "grpc_port": arguments.grpc_port,
        "http_port": arguments.http_port,
        "keys_file": arguments.keys,
        "folder": (arguments.state or folder / "state").absolute(),
        # Known once the server has started.
        "triton_address": "",
    }
    settings = parse(DoorSettings, {**given.model_dump(), **options}, source="backtal serve")
    if arguments.keys is None:
        print("no --keys: every program of this machine may call, no other one", file=sys.stderr)
    return settings


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _announce(server: TritonServer, door: DoorProcess, ready_file: Path | None) -> None:
    http = f", HTTP on {door.http_address}" if door.http_address else ""
    print(f"ready: gRPC on {door.grpc_address}{http}, log in {server.log_file}", flush=True)
    if ready_file is None:
        return
    record = {"grpc_address": door.grpc_address, "http_address": door.http_address}
    temporary = ready_file.with_name(f".{ready_file.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps({**record, "pid": os.getpid()}) + "\n")
    temporary.replace(ready_file)
