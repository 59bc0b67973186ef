"""The public models: a bundle and its stream, and what their tensors are; no inner model."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tritonclient.grpc import model_config_pb2, service_pb2

from backtal.client import STREAM_SUFFIX
from backtal.errors import BacktalError, NotFound, ServiceBusy
from backtal.settings import read_json
from backtal_serving.door.triton import Triton
from backtal_serving.version_report import VersionReport

REFRESH_SECONDS = 1.0
_TYPE_PREFIX = "TYPE_"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TensorSpec:
    """A tensor of a model: its datatype as KServe names it, and its shape, -1 for any length."""

    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class ModelSpec:
    """A public model: the versions that are ready, its tensors by name, its configuration.

    versions: rising; the last one answers who names none. hashes: of their bundles, as far as the
    supervisor has told. refused: why others of the repository are not served.
    """

    name: str
    versions: tuple[str, ...]
    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]
    config: Any
    hashes: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)

    @property
    def bundle(self) -> str:
        """The bundle whose model, or stream, this is."""
        return self.name.removesuffix(STREAM_SUFFIX)


class Catalogue:
    """What Triton has to offer, asked for again and again."""

    def __init__(self, triton: Triton, report_file: Path | None = None) -> None:
        self._triton = triton
        self._report_file = report_file
        self.models: dict[str, ModelSpec] = {}
        self.is_ready = False
        # Of these bundles, as the supervisor says; one that is loaded again is not in `models`.
        self._served: frozenset[str] = frozenset()

    def model(self, name: str, version: str = "") -> ModelSpec:
        """The public model of that name.

        Raises NotFound, for inner models too; ServiceBusy while it is loaded again.
        """
        spec = self.models.get(name)
        if spec is None and name.removesuffix(STREAM_SUFFIX) in self._served:
            raise ServiceBusy(
                f"model {name!r} is being loaded again", retry_after_seconds=REFRESH_SECONDS
            )
        if spec is None:
            known = ", ".join(self.bundles()) or "none at the moment"
            raise NotFound(f"no model {name[:80]!r}, there are {known}")
        if version and version not in spec.versions:
            raise NotFound(
                f"model {name!r} has no version {version[:20]!r}, "
                f"there are {', '.join(spec.versions)}"
            )
        return spec

    def bundles(self) -> tuple[str, ...]:
        """The names of the bundles."""
        return tuple(sorted({spec.bundle for spec in self.models.values()}))

    async def watch(self) -> None:
        """Refresh for ever."""
        while True:
            await self.refresh()
            await asyncio.sleep(REFRESH_SECONDS)

    async def refresh(self) -> None:
        """Ask Triton; where it does not answer, what it had is kept and is not ready."""
        try:
            versions = await self._ready_versions()
            report = self._report()
            self._served = frozenset(report.served)
            self.models = {
                name: await self._spec(name, versions[name], report) for name in versions
            }
        except BacktalError as error:
            if self.is_ready:
                _log.warning("Triton does not answer: %s", error.message)
            self.is_ready = False
            return
        self.is_ready = bool(self.models)

    async def _ready_versions(self) -> dict[str, tuple[str, ...]]:
        """The public models that are ready, with their versions."""
        index = await self._triton.call(
            "RepositoryIndex",
            service_pb2.RepositoryIndexRequest(ready=True),
            service_pb2.RepositoryIndexResponse,
        )
        versions: dict[str, tuple[str, ...]] = {}
        for model in index.models:
            versions[model.name] = (*versions.get(model.name, ()), model.version)
        bundles = [name for name in versions if name + STREAM_SUFFIX in versions]
        return {
            name: tuple(sorted(versions[name], key=int))
            for bundle in bundles
            for name in (bundle, bundle + STREAM_SUFFIX)
        }

    def _report(self) -> VersionReport:
        """What the supervisor has told, nothing where there is none."""
        if self._report_file is None or not self._report_file.exists():
            return VersionReport()
        return read_json(VersionReport, self._report_file)

    async def _spec(self, name: str, versions: tuple[str, ...], report: VersionReport) -> ModelSpec:
        answer = await self._triton.call(
            "ModelConfig",
            service_pb2.ModelConfigRequest(name=name),
            service_pb2.ModelConfigResponse,
        )
        config = answer.config
        bundle = name.removesuffix(STREAM_SUFFIX)
        hashes = report.served.get(bundle, {})
        return ModelSpec(
            name=name,
            versions=versions,
            inputs={tensor.name: _tensor(tensor) for tensor in config.input},
            outputs={tensor.name: _tensor(tensor) for tensor in config.output},
            config=config,
            hashes={version: hashes[version] for version in versions if version in hashes},
            refused={
                str(refused.number): refused.problem
                for refused in report.refused
                if refused.bundle == bundle
            },
        )


def _tensor(tensor: Any) -> TensorSpec:
    name = model_config_pb2.DataType.Name(tensor.data_type).removeprefix(_TYPE_PREFIX)
    return TensorSpec("BYTES" if name == "STRING" else name, tuple(tensor.dims))
