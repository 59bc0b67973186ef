"""What the launcher tells the models inside Triton: one JSON in their environment."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from backtal.errors import InvalidFile
from backtal.feature_store import FeatureStoreSettings
from backtal.settings import Settings, parse
from backtal_serving.limits import Limits
from backtal_serving.tracing.tracer import TracingSettings
from backtal_serving.uris.access import RemoteAccess

SETTINGS_VARIABLE = "BACKTAL_SETTINGS"


class ServingSettings(Settings):
    """How the models of one server behave.

    `allowed_roots` are folders whose files a `uri` may name; `remote` what else it may name,
    `limits` all that is bounded. `metrics`: whether the models count. `tracing`: where spans go,
    None for none. `state_folder` is the supervisor's, by which it waits for requests in flight.
    `spool_folder` is the front door's, for videos that it hands over by name; None where there is
    no door. `feature_store` is None for none.
    """

    allowed_roots: tuple[Path, ...] = ()
    remote: RemoteAccess = RemoteAccess()
    limits: Limits = Limits()
    metrics: bool = True
    tracing: TracingSettings | None = None
    state_folder: Path | None = None
    spool_folder: Path | None = None
    feature_store: FeatureStoreSettings | None = None

    def to_environment(self) -> dict[str, str]:
        """The variable from which `from_environment` reads these settings again."""
        return {SETTINGS_VARIABLE: self.model_dump_json()}

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> ServingSettings:
        """The settings that the launcher set, or the defaults. InvalidFile by key and value."""
        text = environment.get(SETTINGS_VARIABLE, "{}")
        try:
            return parse(cls, json.loads(text), source=SETTINGS_VARIABLE)
        except json.JSONDecodeError as error:
            raise InvalidFile(f"{SETTINGS_VARIABLE} is no JSON: {error}") from None
