"""Run as a script: become the given command, and be told to stop when the starter dies.

``python -I -S tether.py PARENT_PID COMMAND [ARGUMENT ...]``. Without this a `backtal detect` that
is killed would leave a Triton behind. The kernel sends SIGTERM when the thread that started us
ends, so the server is to be started from a thread that lives as long as the server should.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Ask the kernel for SIGTERM at the parent's death, then exec the command."""
    parent = int(sys.argv[1])
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the process that started this server is gone")
    os.execv(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    main()
