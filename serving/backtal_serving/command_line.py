"""The command line of a tritonserver."""

from __future__ import annotations

import math
from pathlib import Path

from backtal.runtime import num_cores
from backtal_serving.ports import LOOPBACK
from backtal_serving.server_options import SOCKET_NAME, SOCKET_PORT, ServerOptions


def arguments(
    options: ServerOptions,
    *,
    repository: Path,
    backends: Path,
    grpc_port: int,
    shared_memory_prefix: str,
    ends_on_error: bool,
) -> list[str]:
    """What follows the binary's name.

    repository, backends: folders laid out for this server. ends_on_error: whether a model that
    does not load ends it at start.
    """
    stub_timeout = max(30, math.ceil(options.startup_timeout_seconds))
    words = [
        f"--model-repository={repository}",
        f"--backend-directory={backends}",
        f"--backend-config=python,shm-region-prefix-name={shared_memory_prefix}",
        # Triton's 30 s for a model's process to start are not enough on a busy machine.
        f"--backend-config=python,stub-timeout-seconds={stub_timeout}",
        # Not more at once than cores: the processes that load slow each other down.
        f"--model-load-thread-count={num_cores()}",
        # Our configurations are complete; completing them starts each model's stub twice.
        "--disable-auto-complete-config",
        *_grpc_arguments(options, grpc_port),
        # Else a large request's memory is kept for the next one.
        "--grpc-infer-allocation-pool-size=0",
        *_http_arguments(options),
        *_metrics_arguments(options),
        f"--exit-timeout-secs={options.exit_timeout_seconds}",
    ]
    if options.model_control:
        words += ["--model-control-mode=explicit", "--load-model=*"]
    if not ends_on_error:
        words.append("--exit-on-error=false")
    if options.model_config_name is not None:
        words.append(f"--model-config-name={options.model_config_name}")
    return words


def _grpc_arguments(options: ServerOptions, port: int) -> list[str]:
    address = LOOPBACK
    if options.socket_folder is not None:
        address, port = f"unix:{options.socket_folder / SOCKET_NAME}", SOCKET_PORT
    return ["--allow-grpc=true", f"--grpc-address={address}", f"--grpc-port={port}"]


def _http_arguments(options: ServerOptions) -> list[str]:
    if options.http_port is None:
        return ["--allow-http=false"]
    return ["--allow-http=true", f"--http-address={LOOPBACK}", f"--http-port={options.http_port}"]


def _metrics_arguments(options: ServerOptions) -> list[str]:
    if options.metrics_socket is None:
        return ["--allow-metrics=false"]
    # Its HTTP can be crashed from outside: a socket that nobody else reaches, and no port.
    address = f"--metrics-address=unix:{options.metrics_socket}"
    return ["--allow-metrics=true", address, "--metrics-port=1"]
