"""A server for the length of a `with` block: `backtal detect` and tests use it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from backtal.feature_store import FeatureStoreSettings
from backtal_serving.server import TritonServer
from backtal_serving.server_options import ServerOptions
from backtal_serving.settings import ServingSettings


class EmbeddedServer(TritonServer):
    """A Triton on a free port of loopback that serves `repository`; see `TritonServer`.

    `feature_folder` is one to keep features in, so that a video is decoded once for all bundles.

    with EmbeddedServer(repository, [folder]) as server:
        Client(server.grpc_address)
    """

    def __init__(
        self,
        repository: Path,
        allowed_roots: Iterable[Path] = (),
        *,
        log_file: Path | None = None,
        feature_folder: Path | None = None,
    ) -> None:
        store = None if feature_folder is None else FeatureStoreSettings(folder=feature_folder)
        settings = ServingSettings(allowed_roots=tuple(allowed_roots), feature_store=store)
        super().__init__(ServerOptions(repository=repository, settings=settings, log_file=log_file))
