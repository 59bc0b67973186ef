"""What the operator allows a `uri` to name beyond the folders of this machine."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from pydantic import Field, field_validator

from backtal.errors import InvalidArgument, PermissionDenied
from backtal.settings import Settings

HTTPS_PORT = 443
_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?|[0-9a-f:.]+")
# After one decoding: control characters, a backslash, and what would be decoded again.
_SUSPECT = re.compile(r"[\x00-\x1f\x7f\\]|%(2e|2f|5c|25|00)", re.IGNORECASE)


class RemoteAccess(Settings):
    """Prefixes such as ``https://media.example.org/videos/`` and ``s3://bucket/videos/``.

    A prefix ends with a slash. Nothing is allowed unless it is listed, redirects included.
    private_networks: addresses that are not public and that `https` may reach all the same.
    ca_file: certificates to trust instead of the system's. s3_endpoint: of a store that is not
    Amazon's; keys come from the environment, as in AWS_ACCESS_KEY_ID.
    """

    prefixes: tuple[str, ...] = ()
    private_networks: tuple[IPv4Network | IPv6Network, ...] = ()
    ca_file: Path | None = None
    timeout_seconds: float = Field(default=10.0, gt=0, description="without a byte")
    max_redirects: int = Field(default=3, ge=0)
    s3_endpoint: str | None = None
    s3_region: str | None = None

    @field_validator("prefixes")
    @classmethod
    def _check_prefixes(cls, prefixes: tuple[str, ...]) -> tuple[str, ...]:
        for prefix in prefixes:
            check_prefix(prefix)
        return prefixes

    def check_https(self, place: Place) -> None:
        """Raise PermissionDenied for a place under none of the prefixes."""
        for prefix in self.prefixes:
            if prefix.startswith("https:") and place.is_under(place_of(prefix)):
                return
        raise PermissionDenied(f"uri {place.name!r} is outside {self._allowed('https')}")

    def check_s3(self, name: str) -> None:
        """Raise PermissionDenied for an object under none of the prefixes."""
        if not any(name.startswith(prefix) for prefix in self.prefixes):
            raise PermissionDenied(f"uri {name!r} is outside {self._allowed('s3')}")

    def _allowed(self, scheme: str) -> str:
        listed = [prefix for prefix in self.prefixes if prefix.startswith(f"{scheme}:")]
        none = f"none: the server was started without any of {scheme}:"
        return f"the allowed prefixes ({', '.join(listed) or none})"


def check_prefix(prefix: str) -> None:
    """Raise ValueError for what is no prefix of `RemoteAccess`."""
    scheme, _, rest = prefix.partition("://")
    if scheme not in ("https", "s3") or "/" not in rest or not prefix.endswith("/"):
        raise ValueError(
            f"{prefix!r} is no prefix, expected https://HOST/FOLDER/ or s3://BUCKET/FOLDER/"
        )
    try:
        if scheme == "https":
            place_of(prefix)
    except InvalidArgument as error:
        raise ValueError(error.message) from None


@dataclass(frozen=True)
class Place:
    """Where an https URI leads: `path` is decoded, `target` what is sent, `name` for messages.

    The name has no query: that may be a signature.
    """

    name: str
    host: str
    port: int
    path: str
    target: str

    def is_under(self, prefix: Place) -> bool:
        """Whether this place is `prefix`'s server and below its folder."""
        is_there = (self.host, self.port) == (prefix.host, prefix.port)
        return is_there and self.path.startswith(prefix.path)


def place_of(uri: str) -> Place:
    """Take an https URI apart, as strictly as its meaning needs. Raises InvalidArgument."""
    name = uri.partition("?")[0]
    try:
        parts = urlsplit(uri)
        port = parts.port or HTTPS_PORT
    except ValueError as error:
        raise InvalidArgument(f"uri {name!r} is ill-formed: {error}") from None
    host = parts.hostname or ""
    if parts.scheme != "https":
        raise InvalidArgument(f"uri {name!r} has scheme {parts.scheme!r}, expected https")
    if "@" in parts.netloc or parts.fragment or not _HOST.fullmatch(host):
        raise InvalidArgument(f"uri {name!r} is ill-formed, expected https://HOST/PATH")
    path = unquote(parts.path) or "/"
    if _SUSPECT.search(path) or _SUSPECT.search(unquote(parts.query)):
        raise InvalidArgument(f"uri {name!r} holds characters that mean something else elsewhere")
    if any(segment in (".", "..") for segment in path.split("/")) or _hides_a_slash(parts):
        raise InvalidArgument(f"uri {name!r} steps through folders: write the path without . or ..")
    target = parts.path or "/"
    return Place(name, host, port, path, f"{target}?{parts.query}" if parts.query else target)


def _hides_a_slash(parts: SplitResult) -> bool:
    return unquote(parts.path).count("/") != parts.path.count("/")
