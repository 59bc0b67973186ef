"""Serve a model repository by Triton, for programs on this machine.

Triton listens on 127.0.0.1 only. It is watched, and started again where it does not answer; what
happens is told in lines of JSON on standard error. SIGTERM or Ctrl-C stops it: requests in flight
are answered first. The exit code is Triton's, 0 after a clean stop; 1 where it cannot be kept up.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from backtal.errors import InvalidArgument

if TYPE_CHECKING:
    from backtal_serving.server import TritonServer
    from backtal_serving.settings import ServingSettings

DEFAULT_GRPC_PORT = 8001


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
        "--allow-unconfined-decoding",
        action="store_true",
        help="serve even where the kernel refuses to lock the decoders of videos down",
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
    from backtal_serving.logs import log_event
    from backtal_serving.processes import adopt_orphans
    from backtal_serving.server import ServerOptions, TritonServer
    from backtal_serving.supervisor import Supervisor

    server = TritonServer(
        ServerOptions(
            repository=arguments.repository,
            settings=_settings(arguments),
            grpc_port=arguments.grpc_port or None,
            http_port=arguments.http_port,
            log_file=arguments.log_file,
            exit_timeout_seconds=arguments.exit_timeout,
        )
    )
    supervisor = Supervisor(
        server,
        on_ready=lambda: _announce(server, arguments.ready_file),
        on_down=lambda: _withdraw(arguments.ready_file),
    )
    signal.signal(signal.SIGTERM, _interrupt)
    adopt_orphans()
    try:
        supervisor.start()
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
    return parse(ServingSettings, raw, source="--allow-root")


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


def _withdraw(ready_file: Path | None) -> None:
    if ready_file is not None:
        ready_file.unlink(missing_ok=True)
