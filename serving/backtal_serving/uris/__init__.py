"""From a URI of a request to what it names, where the server's operator allows that.

access.py      what the operator allows beyond folders of this machine
files.py       file:  a path, links resolved
https.py       https: an object read by ranges, at the address that was checked
addresses.py   which addresses a name may have
s3.py          s3:    an object read by ranges
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from backtal.errors import InvalidArgument
from backtal.video import RangeReader
from backtal_serving.uris.access import RemoteAccess
from backtal_serving.uris.files import resolve_file

__all__ = ["RemoteAccess", "resolve"]

ALLOWED_SCHEMES = ("file", "https", "s3")
MAX_CHARACTERS = 4096


def resolve(
    uri: str, allowed_roots: Sequence[Path], remote: RemoteAccess | None = None
) -> Path | RangeReader:
    """The file, or the opened remote object, that `uri` names.

    Raises InvalidArgument for another scheme, an ill-formed URI, or what is no file;
    PermissionDenied for what the operator does not allow, whether it exists or not; NotFound;
    Unavailable where the other side does not answer.
    """
    if len(uri) > MAX_CHARACTERS:
        raise InvalidArgument(f"uri has {len(uri)} characters, allowed are {MAX_CHARACTERS}")
    try:
        scheme = urlsplit(uri).scheme
    except ValueError as error:
        raise InvalidArgument(f"uri {uri!r} is ill-formed: {error}") from None
    if scheme == "file":
        return resolve_file(uri, allowed_roots)
    remote = remote or RemoteAccess()
    if scheme == "https":
        from backtal_serving.uris.https import open_https

        return open_https(uri, remote)
    if scheme == "s3":
        from backtal_serving.uris.s3 import open_s3

        return open_s3(uri, remote)
    allowed = ", ".join(f"{name}:" for name in ALLOWED_SCHEMES)
    raise InvalidArgument(f"uri {uri!r} has scheme {scheme!r}, allowed are {allowed}")
