"""`https:` URIs: an object read by byte ranges, at the address that was checked."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from contextlib import closing
from urllib.parse import urljoin

import urllib3
from urllib3.exceptions import HTTPError

from backtal.errors import (
    BacktalError,
    InvalidArgument,
    InvalidVideo,
    NotFound,
    PermissionDenied,
    Unavailable,
)
from backtal_serving.uris.access import HTTPS_PORT, Place, RemoteAccess, place_of
from backtal_serving.uris.addresses import public_addresses

REDIRECTS = (301, 302, 303, 307, 308)
ATTEMPTS = 3
RETRY_AFTER_SECONDS = 1.0
# A read that drips is given up after so many times the timeout of one byte.
PATIENCE = 3
CHUNK_BYTES = 64 * 1024
FIRST_BYTES = 256 * 1024
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


def open_https(uri: str, access: RemoteAccess) -> HttpsObject:
    """Open what `uri` names, redirects followed, each held against `access` as the URI itself.

    Raises PermissionDenied, NotFound, InvalidArgument where the server does not serve ranges,
    Unavailable where it does not answer.
    """
    name = uri.partition("?")[0]
    for _ in range(access.max_redirects + 1):
        place = place_of(uri)
        access.check_https(place)
        server = _Server(place, access)
        try:
            answer = server.get(0, FIRST_BYTES)
            if answer.status not in REDIRECTS:
                return HttpsObject(name, server, answer)
        except BaseException:
            server.close()
            raise
        server.close()
        uri = urljoin(uri, answer.headers.get("Location", ""))
    raise InvalidArgument(f"uri {name!r} redirects more than {access.max_redirects} times")


class HttpsObject:
    """A `RangeReader`: an object of a fixed size, and of one version."""

    def __init__(self, name: str, server: _Server, first: _Answer) -> None:
        self.name = name
        self._server = server
        if first.status == 416:
            raise InvalidVideo(f"{name} is empty: 0 bytes")
        _, self.num_bytes = first.range_of(name)
        self._seen = first.version
        self._first = first.body
        etag = first.headers.get("ETag")
        # A weak one may stay while bytes change.
        is_strong = etag is not None and not etag.startswith("W/")
        self.version = json.dumps([server.url, etag, self.num_bytes]) if is_strong else None

    def read_at(self, offset: int, num_bytes: int) -> bytes:
        """See `RangeReader`. Raises Unavailable where the object is not what it was."""
        if offset + num_bytes <= len(self._first):
            return self._first[offset : offset + num_bytes]
        answer = self._server.get(offset, num_bytes)
        if answer.range_of(self.name) != (offset, self.num_bytes):
            raise Unavailable(f"{self.name} changed while it was read")
        if answer.version != self._seen:
            raise Unavailable(f"{self.name} changed while it was read")
        return answer.body

    def close(self) -> None:
        """Close the connection."""
        self._server.close()


class _Answer:
    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def version(self) -> tuple[str | None, str | None]:
        return self.headers.get("ETag"), self.headers.get("Last-Modified")

    def range_of(self, name: str) -> tuple[int, int]:
        """Where the body begins, and how many bytes there are in all."""
        if self.status == 206:
            found = _CONTENT_RANGE.fullmatch(self.headers.get("Content-Range", ""))
            if found is None or int(found[2]) - int(found[1]) + 1 != len(self.body):
                raise Unavailable(f"{name}: the server sent another range than it said")
            return int(found[1]), int(found[3])
        raise _refusal(name, self.status)


def _refusal(name: str, status: int) -> BacktalError:
    if status == 200:
        return InvalidArgument(f"{name}: its server does not send byte ranges, which we need")
    if status in (404, 410):
        return NotFound(f"uri {name!r}: no such object")
    if status in (401, 403):
        return PermissionDenied(f"uri {name!r}: its server refuses it to us (status {status})")
    if status == 429 or status >= 500:
        return Unavailable(
            f"{name}: its server answers with status {status}",
            retry_after_seconds=RETRY_AFTER_SECONDS,
        )
    return InvalidArgument(f"{name}: its server answers with status {status}")


class _Server:
    """A connection to one place: by address, so that the name cannot mean another one later."""

    def __init__(self, place: Place, access: RemoteAccess) -> None:
        self._place = place
        self._timeout_seconds = access.timeout_seconds
        seconds = access.timeout_seconds
        # The certificate must be the name's, whatever the address. No proxy, no own redirects.
        self._pools = [
            urllib3.HTTPSConnectionPool(
                address,
                place.port,
                timeout=urllib3.Timeout(connect=seconds, read=seconds),
                retries=False,
                cert_reqs="CERT_REQUIRED",
                ca_certs=None if access.ca_file is None else str(access.ca_file),
                server_hostname=place.host,
                assert_hostname=place.host,
            )
            for address in public_addresses(place.host, place.port, access.private_networks)
        ]

    @property
    def url(self) -> str:
        """All of it; it may hold a signature and is for no message."""
        return f"https://{self._place.host}:{self._place.port}{self._place.target}"

    def close(self) -> None:
        for pool in self._pools:
            pool.close()

    def get(self, offset: int, num_bytes: int) -> _Answer:
        """`num_bytes` from `offset` on, tried again where the connection breaks."""
        problem = ""
        for attempt in range(ATTEMPTS):
            time.sleep(attempt * RETRY_AFTER_SECONDS / ATTEMPTS)
            answer = self._try(self._pools[0], offset, num_bytes)
            if isinstance(answer, _Answer):
                return answer
            # The next address of the name, if it has several.
            self._pools = [*self._pools[1:], self._pools[0]]
            problem = answer
        raise Unavailable(
            f"{self._place.name}: its server cannot be read: {problem}",
            retry_after_seconds=RETRY_AFTER_SECONDS,
        )

    def _try(self, pool: urllib3.HTTPSConnectionPool, offset: int, num_bytes: int) -> _Answer | str:
        """The answer, or in words why there is none."""
        host, port = self._place.host, self._place.port
        headers = {
            "Host": host if port == HTTPS_PORT else f"{host}:{port}",
            "Range": f"bytes={offset}-{offset + num_bytes - 1}",
            # Ranges of something compressed would be of no use.
            "Accept-Encoding": "identity",
            "User-Agent": "backtal",
        }
        try:
            with closing(
                pool.request(
                    "GET",
                    self._place.target,
                    headers=headers,
                    redirect=False,
                    preload_content=False,
                    decode_content=False,
                )
            ) as response:
                body = self._body(response, num_bytes) if response.status == 206 else b""
                return _Answer(response.status, response.headers, body)
        except HTTPError as error:
            return type(error).__name__
        except OSError as error:
            return str(error)

    def _body(self, response: urllib3.BaseHTTPResponse, num_bytes: int) -> bytes:
        deadline = time.monotonic() + PATIENCE * self._timeout_seconds
        parts: list[bytes] = []
        left = num_bytes
        while left:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{num_bytes} bytes take too long")
            part = response.read1(min(CHUNK_BYTES, left))
            if not part:
                break
            parts.append(part)
            left -= len(part)
        return b"".join(parts)
