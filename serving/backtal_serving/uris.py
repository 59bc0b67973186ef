"""From a URI of a request to a file that the server's operator allows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

from backtal.errors import InvalidArgument, NotFound, PermissionDenied

ALLOWED_SCHEMES = ("file",)


def resolve(uri: str, allowed_roots: Sequence[Path]) -> Path:
    """The file that `uri` names, links and ``..`` resolved.

    Raises InvalidArgument for another scheme or an ill-formed URI, PermissionDenied for a file
    outside `allowed_roots` (whether it exists or not), NotFound for one inside that is not there,
    InvalidArgument for a folder or a device.
    """
    path = _absolute_path(uri).resolve()
    roots = [root.resolve() for root in allowed_roots]
    if not any(path.is_relative_to(root) for root in roots):
        allowed = ", ".join(map(str, roots)) or "none: the server was started without any"
        raise PermissionDenied(f"uri {uri!r} is outside the allowed roots ({allowed})")
    if not path.exists():
        raise NotFound(f"uri {uri!r}: no such file")
    if not path.is_file():
        raise InvalidArgument(f"uri {uri!r} is no regular file")
    return path


def _absolute_path(uri: str) -> Path:
    try:
        parts = urlsplit(uri)
    except ValueError as error:
        raise InvalidArgument(f"uri {uri!r} is ill-formed: {error}") from None
    if parts.scheme not in ALLOWED_SCHEMES:
        allowed = ", ".join(f"{scheme}:" for scheme in ALLOWED_SCHEMES)
        raise InvalidArgument(f"uri {uri!r} has scheme {parts.scheme!r}, allowed are {allowed}")
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
