"""What the front door hands the pipeline with a request: parameters that no client can set.

The door refuses these names from its callers, and Triton listens to nobody but the door. Where a
server has no door, it has no spool folder either, and the names are unknown parameters; only the
supervisor's mark of its own requests is known there as well.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backtal.errors import Internal
from backtal_serving.settings import ServingSettings
from backtal_serving.tracing.context import TraceContext
from backtal_serving.uris.access import RemoteAccess

SPOOLED_PARAMETER = "backtal_spooled"
ROOTS_PARAMETER = "backtal_roots"
CANARY_PARAMETER = "backtal_canary"
TRACE_PARAMETER = "backtal_traceparent"
_SPOOL_NAME = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class HandedOver:
    """A `video` as a file of the spool, and the roots of the caller's key in place of the
    server's: folders and remote prefixes. None where the door said nothing of it.

    is_canary: the request is the supervisor's own, and nobody's. trace: the span it is part of."""

    spooled: Path | None = None
    roots: tuple[str, ...] | None = None
    is_canary: bool = False
    trace: TraceContext | None = None

    def reach(self, settings: ServingSettings) -> tuple[tuple[Path, ...], RemoteAccess]:
        """The folders and remote places that the request's `uri` may name.

        A key with roots of its own has those and nothing else: what the server allows beyond them
        is no longer its.
        """
        if self.roots is None:
            return settings.allowed_roots, settings.remote
        folders = tuple(Path(root) for root in self.roots if is_folder(root))
        prefixes = tuple(root for root in self.roots if not is_folder(root))
        return folders, settings.remote.model_copy(update={"prefixes": prefixes})


def take(
    parameters: Mapping[str, Any], spool_folder: Path | None
) -> tuple[HandedOver, dict[str, Any]]:
    """What was handed over, and the caller's own parameters. Raises Internal for another form."""
    rest = dict(parameters)
    is_canary = rest.pop(CANARY_PARAMETER, False) is True
    if spool_folder is None:
        return HandedOver(is_canary=is_canary), rest
    name, roots = rest.pop(SPOOLED_PARAMETER, None), rest.pop(ROOTS_PARAMETER, None)
    trace = TraceContext.parse(rest.pop(TRACE_PARAMETER, None))
    if name is not None and not _SPOOL_NAME.fullmatch(str(name)):
        raise Internal(f"{SPOOLED_PARAMETER} is {name!r}, no name of the spool")
    return HandedOver(
        spooled=None if name is None else spool_folder / str(name),
        roots=None if roots is None else tuple(json.loads(roots)),
        is_canary=is_canary,
        trace=trace,
    ), rest


def roots_parameter(roots: Sequence[str]) -> str:
    """The value of ROOTS_PARAMETER for these folders and prefixes."""
    return json.dumps(list(roots))


def is_folder(root: str) -> bool:
    """Whether a root is a folder of this machine; else it is a prefix of `RemoteAccess`."""
    return root.startswith("/")
