"""What a process and all below it hold: memory, files, threads, shared memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path

from backtal_serving.server import SHARED_MEMORY


@dataclass(frozen=True)
class Held:
    """By a process tree at one moment. Memory shared by several processes counts once.

    resident_bytes: without mapped files, whose share depends on who else has them open.
    """

    resident_bytes: int = 0
    shared_memory_bytes: int = 0
    num_files: int = 0
    num_threads: int = 0
    num_processes: int = 0

    def __add__(self, other: Held) -> Held:
        pairs = zip(astuple(self), astuple(other), strict=True)
        return Held(*(mine + theirs for mine, theirs in pairs))


def held_by(process_id: int) -> Held:
    """By the service of this process, the regions of its Triton's included."""
    held = sum((_of_one(member) for member in tree(process_id)), Held())
    regions = SHARED_MEMORY.glob(f"backtal-{process_id}-*")
    blocks = 0
    for region in regions:
        with suppress(FileNotFoundError):
            blocks += region.stat().st_blocks
    return held + Held(shared_memory_bytes=512 * blocks)


def tree(process_id: int) -> Iterator[int]:
    """The process and its descendants, those that other threads than the first started too."""
    yield process_id
    for listed in Path(f"/proc/{process_id}/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):
            for child in listed.read_text().split():
                yield from tree(int(child))


def _of_one(process_id: int) -> Held:
    folder = Path(f"/proc/{process_id}")
    try:
        memory = _fields(folder / "smaps_rollup")
        return Held(
            resident_bytes=1024 * (memory["Pss"] - memory["Pss_File"]),
            num_files=len(list((folder / "fd").iterdir())),
            num_threads=_fields(folder / "status")["Threads"],
            num_processes=1,
        )
    # It has ended.
    except (FileNotFoundError, ProcessLookupError, KeyError):
        return Held()


def _fields(path: Path) -> dict[str, int]:
    """The whole numbers of lines such as ``Pss:  123 kB``."""
    found = {}
    for line in path.read_text().splitlines():
        name, _, rest = line.partition(":")
        value = rest.split()
        if value and value[0].isdecimal():
            found[name] = int(value[0])
    return found
