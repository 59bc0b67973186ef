"""Run as a module: a process that has loaded PyAV and forks a child for each video.

``python -m backtal.video.sandbox.zygote DESCRIPTOR``, where DESCRIPTOR is a socket to the pool.
It has one thread, decodes nothing that is not its own, and ends with its children when the other
side of the socket is gone, however that came about.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path

from backtal.video.sandbox.channel import Closed, receive, send
from backtal.video.sandbox.child import run_child, warm_up
from backtal.video.sandbox.lockdown import die_with_parent
from backtal.video.sandbox.messages import ZYGOTE_ORDERS, Reap, Reaped, Spawn, Spawned
from backtal.video.sandbox.settings import DecodeSettings

REAP_POLL_SECONDS = 0.001


def main() -> None:
    """Serve the socket of argv until it ends."""
    control = socket.socket(fileno=int(sys.argv[1]))
    control.set_inheritable(False)
    # Ctrl-C in a terminal reaches the whole group; the pool decides when we end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warm_up()
    gc.freeze()
    # Where memory runs out, a decoding child is to go first, not the server.
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    children: set[int] = set()
    try:
        while True:
            parcel = receive(control, with_descriptors=True)
            order = ZYGOTE_ORDERS.validate_json(parcel.text)
            answer: Spawned | Reaped
            if isinstance(order, Spawn):
                answer = _spawn(order, parcel.descriptors[0], control)
                children |= {answer.process_id} - {0}
            else:
                answer = _reap(order)
                children.discard(order.process_id)
            send(control, answer.model_dump_json().encode())
    except Closed:
        for child in children:
            os.kill(child, signal.SIGKILL)
        # The pool waits for our end; taking Python apart would only keep it waiting.
        os._exit(0)


def _spawn(order: Spawn, descriptor: int, control: socket.socket) -> Spawned:
    zygote = os.getpid()
    try:
        process_id = os.fork()
    except OSError as error:
        os.close(descriptor)
        return Spawned(problem=f"no process can be forked: {error.strerror}")
    if process_id == 0:
        exit_code = 1
        try:
            die_with_parent(zygote, signal.SIGKILL)
            control.close()
            settings = DecodeSettings.model_validate_json(order.settings_json)
            with socket.socket(fileno=descriptor) as connection:
                run_child(connection, settings)
            exit_code = 0
        finally:
            # Nothing of the zygote's is to be cleaned up twice.
            os._exit(exit_code)
    os.close(descriptor)
    return Spawned(process_id=process_id)


def _reap(order: Reap) -> Reaped:
    deadline = time.monotonic() + order.patience_seconds
    ended, status, usage = os.wait4(order.process_id, os.WNOHANG)
    while not ended and time.monotonic() < deadline:
        time.sleep(REAP_POLL_SECONDS)
        ended, status, usage = os.wait4(order.process_id, os.WNOHANG)
    was_killed = not ended
    if was_killed:
        os.kill(order.process_id, signal.SIGKILL)
        _, status, usage = os.wait4(order.process_id, 0)
    return Reaped(
        exit_code=os.waitstatus_to_exitcode(status),
        cpu_seconds=usage.ru_utime + usage.ru_stime,
        was_killed=was_killed,
    )


if __name__ == "__main__":
    main()
