"""Take from this process all that decoding does not need, for ever: no way back.

Limits on memory, files and core dumps; `no_new_privs`; Landlock without a single path where the
kernel has it; then the wall, an allow-list of system calls by seccomp. What is not on the list
fails with EPERM: opening, sockets, exec, fork, signals, ptrace. From ctypes alone, Linux only.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import struct
import sys
from dataclasses import dataclass
from pathlib import Path

from backtal.video.sandbox.filters import AUDIT_ARCHITECTURES, seccomp_program

PR_SET_PDEATHSIG = 1
PR_SET_NO_NEW_PRIVS = 38
PR_SET_SECCOMP = 22
SECCOMP_MODE_FILTER = 2
# The numbers of these calls are the same on all architectures.
NR_LANDLOCK_CREATE_RULESET = 444
NR_LANDLOCK_RESTRICT_SELF = 446
LANDLOCK_CREATE_RULESET_VERSION = 1
# How many rights on files each version of Landlock knows.
LANDLOCK_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}
LANDLOCK_FILE_RIGHTS_SINCE_5 = 16
LANDLOCK_NETWORK_RIGHTS = 0b11
LANDLOCK_SCOPES = 0b11
MAX_DESCRIPTORS = 64


class LockdownRefused(Exception):
    """The kernel, or this kind of machine, does not offer the lockdown."""


@dataclass(frozen=True)
class Lockdown:
    """What is in force: `landlock_version` is 0 where the kernel has none."""

    landlock_version: int


def lock_down(max_memory_bytes: int) -> Lockdown:
    """Lock this process down, all of its threads-to-be included.

    `max_memory_bytes` is what may be mapped beyond what is mapped now. Raises LockdownRefused.
    """
    limit_resources(max_memory_bytes)
    _no_new_privileges()
    landlock_version = _landlock()
    _seccomp()
    return Lockdown(landlock_version)


def limit_resources(max_memory_bytes: int) -> None:
    """Bound memory and descriptors; no file may grow, no core is dumped."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    mapped = pages * resource.getpagesize() + max_memory_bytes
    for limit, value in (
        (resource.RLIMIT_AS, mapped),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, MAX_DESCRIPTORS),
    ):
        resource.setrlimit(limit, (value, value))


def die_with_parent(parent: int, signal_number: int) -> None:
    """Have the kernel send `signal_number` when the parent ends; exit where it has ended."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal_number, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def _no_new_privileges() -> None:
    if _libc().prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise _refused("no_new_privs")


def _landlock() -> int:
    libc = _libc()
    version = libc.syscall(NR_LANDLOCK_CREATE_RULESET, None, 0, LANDLOCK_CREATE_RULESET_VERSION)
    if version < 1:
        return 0
    num_rights = LANDLOCK_FILE_RIGHTS.get(version, LANDLOCK_FILE_RIGHTS_SINCE_5)
    words = [(1 << num_rights) - 1]
    if version >= 4:
        words.append(LANDLOCK_NETWORK_RIGHTS)
    if version >= 6:
        words.append(LANDLOCK_SCOPES)
    attributes = struct.pack(f"={len(words)}Q", *words)
    ruleset = libc.syscall(NR_LANDLOCK_CREATE_RULESET, attributes, len(attributes), 0)
    if ruleset < 0 or libc.syscall(NR_LANDLOCK_RESTRICT_SELF, ruleset, 0) != 0:
        raise _refused("Landlock")
    os.close(ruleset)
    return int(version)


class _Program(ctypes.Structure):
    """`struct sock_fprog`: a filter of `length` instructions of eight bytes."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def _seccomp() -> None:
    machine = platform.machine()
    if sys.platform != "linux" or machine not in AUDIT_ARCHITECTURES:
        raise LockdownRefused(f"no list of system calls for {sys.platform} on {machine}")
    instructions = seccomp_program(machine)
    program = _Program(len(instructions) // 8, instructions)
    if _libc().prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0) != 0:
        raise _refused("seccomp")


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _refused(what: str) -> LockdownRefused:
    number = ctypes.get_errno()
    return LockdownRefused(f"{what}: {os.strerror(number)} (errno {number})")
