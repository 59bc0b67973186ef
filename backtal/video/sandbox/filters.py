"""The seccomp filter of a decoding child, as instructions of the kernel's packet filter."""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass

AUDIT_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

_KILL_PROCESS = 0x80000000
_ALLOW = 0x7FFF0000
_ERRNO = 0x00050000

# Offsets in `struct seccomp_data`; arguments are of 8 bytes, little-endian.
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16

_LOAD, _AND, _RETURN = 0x20, 0x54, 0x06
_JUMP_EQUAL, _JUMP_AT_LEAST = 0x15, 0x35

_X32_BIT = 0x40000000
_CLONE_THREAD = 0x00010000
_PROT_EXEC = 0x4
_AT_EMPTY_PATH = 0x1000
_F_DUPFD, _F_GETFD, _F_SETFD, _F_GETFL, _F_DUPFD_CLOEXEC = 0, 1, 2, 3, 1030
_STDERR = 2


@dataclass(frozen=True)
class _Call:
    """A system call's number on each machine, None where it has no such call."""

    x86_64: int | None
    aarch64: int | None


# What a child that reads, decodes and answers calls; each is without power over anything else.
_ALLOWED = {
    "read": _Call(0, 63),
    "readv": _Call(19, 65),
    "pread64": _Call(17, 67),
    "close": _Call(3, 57),
    "dup": _Call(32, 23),
    "fstat": _Call(5, 80),
    "lseek": _Call(8, 62),
    "munmap": _Call(11, 215),
    "mremap": _Call(25, 216),
    "madvise": _Call(28, 233),
    "brk": _Call(12, 214),
    "rt_sigaction": _Call(13, 134),
    "rt_sigprocmask": _Call(14, 135),
    "rt_sigreturn": _Call(15, 139),
    "sigaltstack": _Call(131, 132),
    "sched_yield": _Call(24, 124),
    "sched_getaffinity": _Call(204, 123),
    "nanosleep": _Call(35, 101),
    "clock_nanosleep": _Call(230, 115),
    "clock_gettime": _Call(228, 113),
    "gettimeofday": _Call(96, 169),
    "getrusage": _Call(98, 165),
    "getpid": _Call(39, 172),
    "gettid": _Call(186, 178),
    "sendto": _Call(44, 206),
    "sendmsg": _Call(46, 211),
    "recvfrom": _Call(45, 207),
    "recvmsg": _Call(47, 212),
    "futex": _Call(202, 98),
    "set_robust_list": _Call(273, 99),
    "rseq": _Call(334, 293),
    "getrandom": _Call(318, 278),
    "restart_syscall": _Call(219, 128),
    "exit": _Call(60, 93),
    "exit_group": _Call(231, 94),
}
_MMAP = _Call(9, 222)
_MPROTECT = _Call(10, 226)
_CLONE = _Call(56, 220)
_CLONE3 = _Call(435, 435)
_NEWFSTATAT = _Call(262, 79)
_FCNTL = _Call(72, 25)
_WRITE = _Call(1, 64)


def seccomp_program(machine: str) -> bytes:
    """The filter for `machine`, a key of AUDIT_ARCHITECTURES."""

    def number(call: _Call) -> int | None:
        return call.x86_64 if machine == "x86_64" else call.aarch64

    program = [
        _instruction(_LOAD, _ARCHITECTURE),
        _instruction(_JUMP_EQUAL, AUDIT_ARCHITECTURES[machine], 1, 0),
        _instruction(_RETURN, _KILL_PROCESS),
        _instruction(_LOAD, _NUMBER),
    ]
    if machine == "x86_64":
        program += [
            _instruction(_JUMP_AT_LEAST, _X32_BIT, 0, 1),
            _instruction(_RETURN, _KILL_PROCESS),
        ]
    for call in _ALLOWED.values():
        program += _on(number(call), [_instruction(_RETURN, _ALLOW)])
    # Memory that can be run is what an exploit wants; decoding makes none.
    program += _on(number(_MMAP), _without_bit(2, _PROT_EXEC))
    program += _on(number(_MPROTECT), _without_bit(2, _PROT_EXEC))
    # Threads, no processes. The flags of clone3 are out of a filter's sight: glibc takes clone.
    program += _on(number(_CLONE), _with_bit(0, _CLONE_THREAD))
    program += _on(number(_CLONE3), [_instruction(_RETURN, _ERRNO | errno.ENOSYS)])
    # glibc's fstat.
    program += _on(number(_NEWFSTATAT), _one_of(3, _AT_EMPTY_PATH))
    commands = (_F_DUPFD, _F_GETFD, _F_SETFD, _F_GETFL, _F_DUPFD_CLOEXEC)
    program += _on(number(_FCNTL), _one_of(1, *commands))
    # A last word to the log.
    program += _on(number(_WRITE), _one_of(0, _STDERR))
    program.append(_instruction(_RETURN, _ERRNO | errno.EPERM))
    return b"".join(program)


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def _on(number: int | None, body: list[bytes]) -> list[bytes]:
    """`body`, which must end by returning, for the call of that number only."""
    if number is None:
        return []
    return [_instruction(_JUMP_EQUAL, number, 0, len(body)), *body]


def _argument(index: int) -> bytes:
    return _instruction(_LOAD, _ARGUMENTS + 8 * index)


def _with_bit(argument: int, bit: int) -> list[bytes]:
    return [
        _argument(argument),
        _instruction(_AND, bit),
        _instruction(_JUMP_EQUAL, bit, 0, 1),
        _instruction(_RETURN, _ALLOW),
        _instruction(_RETURN, _ERRNO | errno.EPERM),
    ]


def _without_bit(argument: int, bit: int) -> list[bytes]:
    return [
        _argument(argument),
        _instruction(_AND, bit),
        _instruction(_JUMP_EQUAL, 0, 0, 1),
        _instruction(_RETURN, _ALLOW),
        _instruction(_RETURN, _ERRNO | errno.EPERM),
    ]


def _one_of(argument: int, *values: int) -> list[bytes]:
    body = [_argument(argument)]
    for value in values:
        body += [_instruction(_JUMP_EQUAL, value, 0, 1), _instruction(_RETURN, _ALLOW)]
    return [*body, _instruction(_RETURN, _ERRNO | errno.EPERM)]
