"""TCP ports of loopback."""

from __future__ import annotations

import socket

from backtal.errors import Unavailable

LOOPBACK = "127.0.0.1"


def free_port() -> int:
    """A TCP port of loopback that was free just now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def check_free(port: int) -> None:
    """Raise Unavailable where somebody has the port."""
    # Triton binds only when its models are loaded: till then the other server would answer for it.
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            raise Unavailable(
                f"port {port} of {LOOPBACK} cannot be had: {error.strerror}"
            ) from None


def accepts(port: int) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((LOOPBACK, port)) == 0
