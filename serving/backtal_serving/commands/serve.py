"""Serve a model repository: a front door for gRPC and HTTP, and Triton behind it.

Triton itself can be reached by no other machine and no other user. Both are watched, and started
again where they do not answer; what happens is told in lines of JSON on standard error. SIGTERM or
Ctrl-C stops both: requests in flight are answered first. The exit code is Triton's, 0 after a clean
stop; 1 where it cannot be kept up.
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
    from backtal_serving.settings import ServingSettings

DEFAULT_GRPC_PORT = 8001
DEFAULT_HTTP_PORT = 8000


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
        action="append",
        default=[],
        metavar="DIR|URI",
        help="a folder, https://HOST/FOLDER/ or s3://BUCKET/FOLDER/ whose files a request's uri "
        "may name; can be given several times",
    )
    parser.add_argument(
        "--settings",
        type=Path,
        metavar="FILE",
        help="YAML with the limits and with what a uri may reach (docs/serving.md)",
    )
    parser.add_argument(
        "--versions",
        type=int,
        metavar="N",
        help="of each bundle the newest N are served, for callers that name one (default: 1)",
    )
    parser.add_argument(
        "--allow-unconfined-decoding",
        action="store_true",
        help="serve even where the kernel refuses to lock the decoders of videos down",
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
    from backtal_serving.door.service import (
        behind_door,
        door_of,
        private_folder,
        supervision_file,
    )
    from backtal_serving.logs import log_event
    from backtal_serving.metrics.supervision import SupervisionMetrics
    from backtal_serving.processes import adopt_orphans
    from backtal_serving.server_options import ServerOptions
    from backtal_serving.supervisor import Supervisor

    options = ServerOptions(
        repository=arguments.repository,
        settings=_settings(arguments),
        log_file=arguments.log_file,
        exit_timeout_seconds=arguments.exit_timeout,
        # Nobody but the door and this process reaches Triton's socket.
        model_control=True,
    )
    signal.signal(signal.SIGTERM, _interrupt)
    adopt_orphans()
    with private_folder() as folder:
        door_settings = _door_settings(arguments, folder)
        server = behind_door(options, folder, door_settings.spool_folder)
        supervision = SupervisionMetrics(supervision_file(server))
        supervisor = Supervisor(server, metrics=supervision)
        try:
            supervisor.start()
            with door_of(server, door_settings, arguments.log_file, supervision) as door:
                _announce(server, door, arguments.ready_file)
                return supervisor.watch()
        except KeyboardInterrupt:
            # A second signal must not leave the server half stopped.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            log_event("stopping", exit_timeout_seconds=arguments.exit_timeout)
            code = server.stop()
            log_event("stopped", exit_code=code)
            return code
        finally:
            _withdraw(arguments.ready_file)


def _settings(arguments: argparse.Namespace) -> ServingSettings:
    """The file's settings, with the command's options on top of them."""
    from backtal.settings import parse, read_yaml
    from backtal_serving.settings import ServingSettings

    given = ServingSettings()
    if arguments.settings is not None:
        given = read_yaml(ServingSettings, arguments.settings)
    # As plain data: what is put in is to be checked like what was read.
    raw = given.model_dump(mode="json")
    for root in arguments.allow_root:
        if "://" in root:
            raw["remote"]["prefixes"].append(root)
        elif Path(root).is_dir():
            raw["allowed_roots"].append(str(Path(root).resolve()))
        else:
            raise InvalidArgument(f"--allow-root {root} is no folder")
    if arguments.allow_unconfined_decoding:
        raw["limits"]["decode"]["allow_unconfined"] = True
    if arguments.versions is not None:
        raw["limits"]["versions"] = arguments.versions
    return parse(ServingSettings, raw, source="backtal serve")


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


def _withdraw(ready_file: Path | None) -> None:
    if ready_file is not None:
        ready_file.unlink(missing_ok=True)
