"""How a front door is set up: where it listens, what it bounds, what it may read and write."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from backtal.settings import Settings
from backtal.video.limits import VideoLimits
from backtal_serving.limits import RequestLimits
from backtal_serving.tracing.tracer import TracingSettings

MEBIBYTE = 1 << 20
GIBIBYTE = 1 << 30

Port = Annotated[int, Field(ge=0, le=65535)]


class Tls(Settings):
    """PEM files. With `client_ca`, callers must show a certificate of it (mutual TLS)."""

    certificate: Path
    private_key: Path
    client_ca: Path | None = None


class DoorLimits(Settings):
    """What the door takes on. A caller's own quotas are its key's."""

    max_message_bytes: int = Field(
        default=64 * MEBIBYTE, ge=MEBIBYTE, description="one gRPC or KServe message"
    )
    max_json_bytes: int = Field(default=8 * MEBIBYTE, ge=1024, description="JSON of a request")
    spool_bytes: int = Field(default=32 * GIBIBYTE, ge=1, description="all uploads together")
    waiting_bytes: int = Field(
        default=512 * MEBIBYTE, ge=MEBIBYTE, description="of messages that wait"
    )
    uploads_at_once: int = Field(default=16, ge=1, description="messages that are being read")
    header_seconds: float = Field(default=10.0, gt=0, description="for a request's header")
    body_idle_seconds: float = Field(default=30.0, gt=0, description="without a byte of the body")
    answer_idle_seconds: float = Field(
        default=30.0, gt=0, description="without a byte taken of the answer, by HTTP"
    )
    min_body_bytes_per_second: int = Field(
        default=16 * 1024, ge=0, description="of an upload, on average after its first 30 s"
    )
    connections: int = Field(default=1000, ge=1)


class JobSettings(Settings):
    """Jobs: how many run beside requests, and how long their results are kept."""

    at_once: int = Field(default=1, ge=1)
    kept_seconds: float = Field(default=24 * 3600.0, gt=0, description="after the job's end")
    max_queued: int = Field(default=1000, ge=1, description="jobs of one key")
    max_bytes: int = Field(default=32 * GIBIBYTE, ge=1, description="of all jobs' videos")


class SettingsFile(Settings):
    """What an operator may put into the door's file of settings."""

    tls: Tls | None = None
    limits: DoorLimits = DoorLimits()
    jobs: JobSettings = JobSettings()


class DoorSettings(SettingsFile):
    """One front door.

    grpc_port, http_port: 0 is a free one; None for HTTP is none. triton_address: the private
    gRPC. folder: the spool and the jobs; its owner's alone. repository: for the bundles' classes.
    report_file: where the supervisor tells of the bundles' versions.
    requests, video: the server's limits, which the door keeps before Triton has to.
    keys_file: who may come in; without one the door listens on loopback only, to everybody there.
    triton_metrics, supervisor_metrics: the socket and the file that /metrics is gathered from;
    None where there is none. tracing: as the models have it.
    exit_timeout_seconds: how long requests in flight may take after a stop.
    """

    host: str = "127.0.0.1"
    grpc_port: Port = 8001
    http_port: Port | None = 8000
    triton_address: str
    folder: Path
    repository: Path | None = None
    report_file: Path | None = None
    keys_file: Path | None = None
    requests: RequestLimits = RequestLimits()
    video: VideoLimits = VideoLimits()
    triton_metrics: Path | None = None
    supervisor_metrics: Path | None = None
    tracing: TracingSettings | None = None
    exit_timeout_seconds: float = Field(default=30.0, ge=0)

    @field_validator("host")
    @classmethod
    def _check_host(cls, host: str) -> str:
        return str(ipaddress.ip_address(host))

    @model_validator(mode="after")
    def _check_strangers(self) -> DoorSettings:
        if self.keys_file is None and not self.is_loopback:
            raise ValueError(
                f"host is {self.host}: without a file of keys the door listens on loopback only"
            )
        return self

    @property
    def is_loopback(self) -> bool:
        """Whether only programs of this machine can connect."""
        return ipaddress.ip_address(self.host).is_loopback

    @property
    def spool_folder(self) -> Path:
        """Where videos lie while their requests last."""
        return self.folder / "spool"

    @property
    def jobs_folder(self) -> Path:
        """The jobs' database and their videos, kept over restarts."""
        return self.folder / "jobs"
