"""What a locked-down process can no longer do, tried in a real one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.requirements import PROJECT_ROOT, require

PRELUDE = """
import ctypes, mmap, os, signal, socket, subprocess, sys, threading
import numpy
from backtal.video.sandbox.lockdown import LockdownRefused, lock_down
listener = socket.socket(socket.AF_UNIX)
try:
    lock_down(256 << 20)
except LockdownRefused as error:
    print("refused", error)
    os._exit(0)
try:
    {attempt}
except (OSError, RuntimeError, MemoryError) as error:
    sys.stderr.write(f"denied {{type(error).__name__}} {{getattr(error, 'errno', None)}}")
else:
    sys.stderr.write("done")
os._exit(0)
"""


def attempt(statement: str) -> str:
    """What came of `statement` in a locked-down interpreter."""
    if sys.platform != "linux":
        require("seccomp", f"the lockdown is for Linux, this is {sys.platform}")
    answer = subprocess.run(
        [sys.executable, "-c", PRELUDE.format(attempt=statement)],
        capture_output=True,
        text=True,
        cwd=PROJECT_ROOT,
        timeout=60,
        check=False,
    )
    if answer.stdout.startswith("refused"):
        require("seccomp", answer.stdout)
    return answer.stderr or f"ended with {answer.returncode}"


@pytest.mark.parametrize(
    "statement",
    [
        "open('/etc/passwd')",
        "os.open('/proc/self/environ', os.O_RDONLY)",
        "os.open('/tmp/written', os.O_WRONLY | os.O_CREAT)",
        "os.stat('/etc/passwd')",
        "os.listdir('/')",
        "os.unlink('/tmp/nothing')",
        "socket.socket(socket.AF_INET, socket.SOCK_STREAM)",
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
        "socket.socket(socket.AF_UNIX)",
        "listener.connect('/run/dbus/system_bus_socket')",
        "listener.bind('/tmp/socket')",
        "os.fork()",
        "os.execv('/bin/true', ['true'])",
        "subprocess.run(['/bin/true'])",
        "os.kill(os.getppid(), signal.SIGKILL)",
        "os.kill(os.getpid(), signal.SIGTERM)",
        "os.memfd_create('more')",
        "mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)",
        "os.setuid(0)",
        "os.pipe()",
    ],
)
def test_what_decoding_does_not_need_is_denied(statement: str) -> None:
    assert attempt(statement) == "denied PermissionError 1"


@pytest.mark.parametrize("number", [101, 310, 311, 425, 321, 165, 272, 59, 57, 58, 435, 42, 49])
def test_a_raw_system_call_is_denied(number: int) -> None:
    """ptrace, process_vm_*, io_uring_setup, bpf, mount, unshare, execve, fork, clone3, connect."""
    import platform

    if platform.machine() != "x86_64":
        require("x86_64", "the numbers are of x86-64")
    code = (
        f"number = {number}; libc = ctypes.CDLL(None, use_errno=True); "
        "answer = libc.syscall(number, 0, 0, 0, 0, 0, 0); "
        "answer == -1 and os.write(2, os.strerror(ctypes.get_errno()).encode()); os._exit(0)"
    )
    expected = "Function not implemented" if number == 435 else "Operation not permitted"
    assert attempt(code) == expected


def test_memory_is_bounded() -> None:
    assert attempt("bytearray(1 << 30)") == "denied MemoryError None"
    assert attempt("bytearray(64 << 20)") == "done"


def test_what_decoding_needs_is_left() -> None:
    assert attempt("thread = threading.Thread(target=sum, args=([1],)); thread.start()") == "done"
    assert attempt("os.fstat(0); numpy.dot(numpy.ones((64, 64)), numpy.ones(64))") == "done"


def test_another_architecture_is_refused_and_not_ignored() -> None:
    from backtal.video.sandbox.filters import AUDIT_ARCHITECTURES, seccomp_program

    for machine in AUDIT_ARCHITECTURES:
        assert len(seccomp_program(machine)) % 8 == 0
    with pytest.raises(KeyError):
        seccomp_program("sparc")


def test_a_temporary_file_was_not_written() -> None:
    assert not Path("/tmp/written").exists()
