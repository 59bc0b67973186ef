"""Where features are kept, and how many of them."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import Field, field_validator, model_validator

from backtal.settings import Settings

# Looking through all entries takes time. It is done after so much was written, and makes so much
# room that several processes stay within the limit until they look again.
LOOK_AFTER = 0.02
FILL_TO = 0.9
_PREFIX = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/([^/]+/)*")


class FeatureStoreSettings(Settings):
    """Where features are kept and how many bytes they may take, all together.

    One of `folder`, which the processes of one machine may share, and `prefix`,
    ``s3://BUCKET/FOLDER/``, which any may share. s3_endpoint: of a store that is not Amazon's; its
    keys come from the environment, as in AWS_ACCESS_KEY_ID. timeout_seconds: how long a request
    waits for the object store, once to look a video up and once to keep it.
    """

    folder: Path | None = None
    prefix: str | None = None
    max_bytes: int = Field(default=10 * 1024**3, ge=1)
    s3_endpoint: str | None = None
    s3_region: str | None = None
    timeout_seconds: float = Field(default=5.0, gt=0)

    @field_validator("folder")
    @classmethod
    def _absolute(cls, folder: Path | None) -> Path | None:
        # What is written here may be read by a process that runs elsewhere.
        return None if folder is None else folder.absolute()

    @field_validator("prefix")
    @classmethod
    def _check_prefix(cls, prefix: str | None) -> str | None:
        if prefix is not None and not _PREFIX.fullmatch(prefix):
            raise ValueError(f"{prefix!r} is no prefix, expected s3://BUCKET/FOLDER/")
        return prefix

    @model_validator(mode="after")
    def _check_one_place(self) -> FeatureStoreSettings:
        if (self.folder is None) == (self.prefix is None):
            raise ValueError("a feature store has either a folder or a prefix s3://BUCKET/FOLDER/")
        return self
