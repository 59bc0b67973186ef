"""The process tree of a server, as Linux shows it in /proc."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from backtal_serving.launcher import STUB_NAME

PR_SET_CHILD_SUBREAPER = 36
# The kernel cuts a process's name to this length.
NAME_LENGTH = 15
_PROC = Path("/proc")
# A killed process is gone by then, unless the kernel holds it.
GONE_SECONDS = 5.0
POLL_SECONDS = 0.02


class Stub(NamedTuple):
    """Whose process it is: an instance of this version of this model."""

    model: str
    version: int


def stubs_of(process_id: int) -> dict[int, Stub]:
    """The models' processes of a tritonserver that are alive, by their process ids."""
    found = {}
    for entry in _PROC.iterdir():
        if not entry.name.isdecimal():
            continue
        # Gone between the listing and the look.
        with suppress(OSError):
            name, state, parent = _look(entry)
            if parent == process_id and name == STUB_NAME[:NAME_LENGTH] and state not in "ZX":
                found[int(entry.name)] = _stub_of(entry)
    return found


def adopt_orphans() -> None:
    """Become the parent of what our descendants leave behind, as PID 1 of a container is."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def bury_orphans(own_child: int | None) -> None:
    """Reap ended processes that we adopted; `own_child` is waited for elsewhere."""
    with suppress(ChildProcessError):
        while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            if ended.si_pid == own_child:
                return
            os.waitpid(ended.si_pid, 0)


def kill_group(process: subprocess.Popen[bytes]) -> int:
    """Kill what is left of a server, and wait until it is gone; the exit code."""
    # The group outlives its leader where a model's stub was busy, and ignores SIGTERM.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    code = process.wait()
    _wait_for_group(process.pid)
    return code


def _look(entry: Path) -> tuple[str, str, int]:
    """Name, state and parent of a process. The name may hold anything, brackets too."""
    before, _, after = (entry / "stat").read_text().rpartition(")")
    fields = after.split()
    return before.partition("(")[2], fields[0], int(fields[1])


def _stub_of(entry: Path) -> Stub:
    """A stub's first argument is its model's file: REPOSITORY/MODEL/VERSION/FILE."""
    arguments = (entry / "cmdline").read_bytes().split(b"\0")
    folder = Path(os.fsdecode(arguments[1])).parent if len(arguments) > 1 else Path()
    version = int(folder.name) if folder.name.isdecimal() else 0
    return Stub(folder.parent.name, version)


def _wait_for_group(leader: int) -> None:
    """Wait until a killed group is gone; its orphans are ours to bury where we adopt them."""
    deadline = time.monotonic() + GONE_SECONDS
    with suppress(ProcessLookupError):
        while time.monotonic() < deadline:
            with suppress(ChildProcessError):
                while os.waitpid(-leader, os.WNOHANG)[0]:
                    pass
            os.killpg(leader, 0)
            time.sleep(POLL_SECONDS)
