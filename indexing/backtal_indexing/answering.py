"""Who answers a video: the seam between a shard and the service, and the service behind it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, Literal, Protocol
from urllib.parse import urlsplit

from backtal.client import Client, DetectionOptions
from backtal.client_wire import KEY_VARIABLE
from backtal.detection import DetectionAnswer
from backtal.errors import (
    BacktalError,
    LimitExceeded,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    ServiceBusy,
)
from backtal.http_client import HttpClient
from backtal.patience import NO_RETRIES
from backtal_indexing.store import S3_PREFIX
from backtal_indexing.uris import path_of, s3_object

SendAs = Literal["auto", "uri", "bytes"]
# A message of the front door has 64 MB at most.
MAX_MESSAGE_BYTES = 60_000_000
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


class Answerer(Protocol):
    """Answers videos by one bundle. A worker has its own."""

    def answer(self, uri: str, timeout_seconds: float) -> DetectionAnswer:
        """The answer to a video. Raises the kinds of `backtal.errors`."""
        ...

    def is_ready(self) -> bool:
        """Whether it could answer now: tells its own trouble from a video's."""
        ...


class Answering(Protocol):
    """How a worker comes by its answerer: it is pickled and sent to each."""

    def connect(self) -> Answerer:
        """A new one."""
        ...


@dataclass(frozen=True)
class Service:
    """A running service.

    address: of its gRPC. http_url: of its HTTP, where a video that it cannot read by itself is
    streamed to; without it such a video goes by gRPC, up to 60 MB. The key is in the environment
    of whoever connects, as BACKTAL_KEY. send: whether a video goes by its URI, as its bytes, or
    by its URI where the service may read it. root_certificates: a file of those to trust, where
    the service is reached by TLS.
    """

    address: str
    bundle: str
    http_url: str | None = None
    send: SendAs = "auto"
    options: DetectionOptions = field(default_factory=DetectionOptions)
    root_certificates: str | None = None

    def connect(self) -> ServiceAnswerer:
        """See `Answering`."""
        return ServiceAnswerer(self)

    def client(self) -> Client:
        """A client with the environment's key. Who asks knows best when to ask again."""
        return Client(
            self.address,
            key=os.environ.get(KEY_VARIABLE),
            retries=NO_RETRIES,
            ssl=self.root_certificates is not None,
            root_certificates=self.root_certificates,
        )

    def with_bundle(self, bundle: str) -> Service:
        """The same for another bundle."""
        return replace(self, bundle=bundle)

    @property
    def shares_files(self) -> bool:
        """Whether a `file:` URI may mean the same there: on this machine, or where it is said."""
        return self.send == "uri" or self.address.rpartition(":")[0] in LOOPBACK


class ServiceAnswerer:
    """A connection to a service."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._client = service.client()
        # What it may not read: `file:`, or scheme and host of others.
        self._closed_places: set[str] = set()

    def answer(self, uri: str, timeout_seconds: float) -> DetectionAnswer:
        """See `Answerer`."""
        place = _place(uri)
        if self._goes_by_uri(uri, place):
            try:
                return self._detect({"uri": uri}, timeout_seconds)
            except (PermissionDenied, NotFound):
                if self._service.send == "uri" or not _is_readable_here(uri):
                    raise
                self._closed_places.add(place)
        with _local_copy(uri) as path:
            return self._send_bytes(path, timeout_seconds)

    def is_ready(self) -> bool:
        """See `Answerer`."""
        return self._client.is_ready()

    def _goes_by_uri(self, uri: str, place: str) -> bool:
        if self._service.send == "bytes" or place in self._closed_places:
            return not _is_readable_here(uri)
        return self._service.shares_files or not uri.startswith("file:")

    def _send_bytes(self, path: Path, timeout_seconds: float) -> DetectionAnswer:
        if self._service.http_url is not None:
            with HttpClient(
                self._service.http_url,
                key=os.environ.get(KEY_VARIABLE),
                timeout_seconds=timeout_seconds,
                retries=NO_RETRIES,
                root_certificates=self._service.root_certificates,
            ) as client:
                return client.detect(
                    path, bundle=self._service.bundle, options=self._service.options
                )
        num_bytes = path.stat().st_size
        if num_bytes > MAX_MESSAGE_BYTES:
            raise LimitExceeded(
                f"the video has {num_bytes} bytes, by gRPC {MAX_MESSAGE_BYTES} can be sent: name "
                "the service's HTTP with --http, or let it read the video (--allow-root)"
            )
        return self._detect({"video": path.read_bytes()}, timeout_seconds)

    def _detect(self, video: dict[str, Any], timeout_seconds: float) -> DetectionAnswer:
        service = self._service
        return self._client.detect(
            **video,
            bundle=service.bundle,
            options=service.options,
            timeout_seconds=timeout_seconds,
        )


def has_no_turn(error: BacktalError) -> bool:
    """Whether the service speaks of itself: it is full or starting, or the caller's quota is used.

    It says UNAVAILABLE, and when to come back, of a video that ends its decoders, too.
    """
    return isinstance(error, (ServiceBusy, ResourceExhausted))


def _place(uri: str) -> str:
    parts = urlsplit(uri)
    return f"{parts.scheme}://{parts.netloc}"


def _is_readable_here(uri: str) -> bool:
    path = path_of(uri)
    return uri.startswith(S3_PREFIX) if path is None else Path(path).is_file()


@contextmanager
def _local_copy(uri: str) -> Iterator[Path]:
    """The file of a `file:` URI, or a copy of an object that goes with the block."""
    path = path_of(uri)
    if path is not None:
        yield Path(path)
        return
    store, name = s3_object(uri)
    with NamedTemporaryFile(prefix="backtal-index-") as file:
        for piece in store.pieces(name):
            file.write(piece)
        file.flush()
        yield Path(file.name)
