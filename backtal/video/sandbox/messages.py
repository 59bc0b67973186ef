"""What the pipeline's side and a child say to each other."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from backtal.errors import (
    BacktalError,
    InvalidArgument,
    InvalidVideo,
    LimitExceeded,
    VideoProblem,
)
from backtal.manifest import ClipPlan
from backtal.settings import Settings
from backtal.video.declared_fields import MAX_TEXT, DeclaredFields, Text
from backtal.video.limits import VideoLimits
from backtal.video.window import DecodeReport

_ERRORS: dict[str, type[BacktalError]] = {
    kind.__name__: kind for kind in (InvalidVideo, LimitExceeded, InvalidArgument)
}


class Open(Settings):
    """To a child: open this video. Its descriptor comes along, or it is read through `Read`."""

    kind: Literal["open"] = "open"
    name: str
    num_bytes: int
    is_remote: bool
    limits: VideoLimits
    threads: int | None


class Decode(Settings):
    """To a child: decode by this plan into the memory that comes along, of `num_slots` windows."""

    kind: Literal["decode"] = "decode"
    plan: ClipPlan
    window_frames: int
    num_slots: int
    allow_partial: bool


class Next(Settings):
    """To a child: the next window, into this slot."""

    kind: Literal["next"] = "next"
    slot: int


Order = Annotated[Open | Decode | Next, Field(discriminator="kind")]
ORDERS: TypeAdapter[Open | Decode | Next] = TypeAdapter(Order)


class Ready(Settings):
    """Of a child: it is locked down, or `refused` says what the kernel did not offer."""

    kind: Literal["ready"] = "ready"
    landlock_version: int = 0
    refused: Text = ""


class Opened(DeclaredFields):
    """Of a child: what the file declares. Its size is known better here than there."""

    kind: Literal["opened"] = "opened"


class WindowReady(Settings):
    """Of a child: a window's pixels are in its slot. `cpu_seconds` it has taken so far, in all."""

    kind: Literal["window"] = "window"
    presentation_seconds: Annotated[tuple[float, ...], Field(min_length=1)]
    end_seconds: float
    cpu_seconds: float


class Finished(Settings):
    """Of a child: there are no more windows; see `DecodeReport`."""

    kind: Literal["finished"] = "finished"
    num_frames: Annotated[int, Field(ge=1)]
    duration_seconds: Annotated[float, Field(gt=0)]
    warnings: Annotated[tuple[Text, ...], Field(max_length=20)]

    @classmethod
    def of(cls, report: DecodeReport) -> Finished:
        """The message for a report."""
        warnings = tuple(warning[:MAX_TEXT] for warning in report.warnings[:20])
        return cls(
            num_frames=report.num_frames,
            duration_seconds=report.duration_seconds,
            warnings=warnings,
        )

    def report(self) -> DecodeReport:
        """The report in this message."""
        return DecodeReport(self.num_frames, self.duration_seconds, self.warnings)


class Failed(Settings):
    """Of a child: the video is refused, by the name of an error's class."""

    kind: Literal["failed"] = "failed"
    error: Literal["InvalidVideo", "LimitExceeded", "InvalidArgument"]
    message: Text
    problem: VideoProblem = "unreadable"

    @classmethod
    def of(cls, error: BacktalError) -> Failed:
        """The message for an error."""
        name = next(name for name, kind in _ERRORS.items() if isinstance(error, kind))
        problem = error.problem if isinstance(error, InvalidVideo) else "unreadable"
        return cls.model_validate(
            {"error": name, "message": error.message[:MAX_TEXT], "problem": problem}
        )

    def exception(self) -> BacktalError:
        """The error in this message."""
        kind = _ERRORS[self.error]
        if issubclass(kind, InvalidVideo):
            return kind(self.message, problem=self.problem)
        return kind(self.message)


class Crashed(Settings):
    """Of a child: its own code failed in a way that nobody foresaw."""

    kind: Literal["crashed"] = "crashed"
    reason: Text


class Read(Settings):
    """Of a child: it wants these bytes of a remote object."""

    kind: Literal["read"] = "read"
    offset: Annotated[int, Field(ge=0)]
    num_bytes: Annotated[int, Field(ge=1, le=1 << 20)]


Reply = Ready | Opened | WindowReady | Finished | Failed | Crashed | Read
REPLIES: TypeAdapter[Reply] = TypeAdapter(Annotated[Reply, Field(discriminator="kind")])


class Spawn(Settings):
    """To the zygote: fork a child for the socket that comes along."""

    kind: Literal["spawn"] = "spawn"
    settings_json: str


class Reap(Settings):
    """To the zygote: end this child if it lives after `patience_seconds`, and say how it ended."""

    kind: Literal["reap"] = "reap"
    process_id: int
    patience_seconds: float


ZYGOTE_ORDERS: TypeAdapter[Spawn | Reap] = TypeAdapter(
    Annotated[Spawn | Reap, Field(discriminator="kind")]
)


class Spawned(Settings):
    """Of the zygote: the child's process id, or why there is none."""

    process_id: int = 0
    problem: str = ""


class Reaped(Settings):
    """Of the zygote: how the child ended, the processor time it took, whether it had to be killed.

    exit_code: as of `subprocess`, the negative of a signal's number.
    """

    exit_code: int
    cpu_seconds: float
    was_killed: bool
