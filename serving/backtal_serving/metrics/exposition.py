"""Several expositions in Prometheus's text format, made one."""

from __future__ import annotations

from collections.abc import Iterable

PREFIXES = ("backtal_", "nv_")


def merged(expositions: Iterable[str]) -> str:
    """Each family once, with the series of all; the first one's words for what it is.

    Only families of ours and of Triton's are passed on.
    """
    heads: dict[str, list[str]] = {}
    series: dict[str, list[str]] = {}
    for text in expositions:
        for name, head, lines in _families(text):
            if name.startswith(PREFIXES):
                heads.setdefault(name, head)
                series.setdefault(name, []).extend(lines)
    lines = [line for name in heads for line in (*heads[name], *series[name])]
    return "".join(f"{line}\n" for line in lines)


def _families(text: str) -> list[tuple[str, list[str], list[str]]]:
    """Name, comments and series of each family."""
    found: list[tuple[str, list[str], list[str]]] = []
    for line in text.splitlines():
        if line.startswith("# "):
            _, kind, name, *_ = [*line.split(" ", 3), "", ""]
            if kind in ("HELP", "TYPE"):
                if not found or found[-1][0] != name:
                    found.append((name, [], []))
                found[-1][1].append(line)
        elif line and found:
            found[-1][2].append(line)
    return found
