"""`file:` URIs: links and ``..`` resolved, then held against the allowed folders."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

from backtal.errors import InvalidArgument, NotFound, PermissionDenied


def resolve_file(uri: str, allowed_roots: Sequence[Path]) -> Path:
    """The file that `uri` names, links and ``..`` resolved.

    Raises InvalidArgument for an ill-formed URI, PermissionDenied for a file outside
    `allowed_roots` (whether it exists or not), NotFound for one inside that is not there,
    InvalidArgument for a folder or a device.
    """
    # Not Path.resolve, which raises for a loop of links.
    path = Path(os.path.realpath(_absolute_path(uri)))
    roots = [Path(os.path.realpath(root)) for root in allowed_roots]
    if not any(path.is_relative_to(root) for root in roots):
        allowed = ", ".join(map(str, roots)) or "none: the server was started without any"
        raise PermissionDenied(f"uri {uri!r} is outside the allowed roots ({allowed})")
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"uri {uri!r}: no such file") from None
    except OSError as error:
        raise InvalidArgument(f"uri {uri!r} cannot be looked up: {error.strerror}") from None
    if not stat.S_ISREG(mode):
        raise InvalidArgument(f"uri {uri!r} is no regular file")
    return path


def _absolute_path(uri: str) -> Path:
    parts = urlsplit(uri)
    if parts.netloc not in ("", "localhost"):
        raise InvalidArgument(f"uri {uri!r} names the host {parts.netloc!r}, allowed is none")
    if parts.query or parts.fragment:
        raise InvalidArgument(f"uri {uri!r} has a query or a fragment; write ? as %3F, # as %23")
    raw = unquote_to_bytes(parts.path)
    if not raw.startswith(b"/") or b"\0" in raw:
        raise InvalidArgument(f"uri {uri!r} has no absolute path, expected file:///FOLDER/FILE")
    try:
        return Path(raw.decode())
    except UnicodeDecodeError:
        raise InvalidArgument(f"uri {uri!r} does not decode as UTF-8") from None
