"""Rows of VIDEOS: of a video that is done, of one that is not, of one that is gone."""

from __future__ import annotations

from typing import Any

from backtal.detection import DetectionAnswer
from backtal.errors import (
    BacktalError,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
)
from backtal_indexing.identity import UNKNOWN, Seen
from backtal_indexing.planning import PlannedVideo, Verdict

Row = dict[str, Any]

DECLARED = ("codec", "width", "height", "frames_per_second")
# The next run may find it otherwise. INTERNAL and DEADLINE_EXCEEDED come back with the same video.
NOT_THE_VIDEOS_FAULT = (NotFound, PermissionDenied, ResourceExhausted, Unavailable)


def row_of_done(
    video: PlannedVideo, seen: Seen, bundle_sha256: str, answer: DetectionAnswer
) -> Row:
    """A video that was answered."""
    provenance = answer.provenance
    declared = provenance.get("video") or {}
    return {
        **_row(video, seen.identity, seen.kept_stamp, bundle_sha256),
        "status": "done",
        "duration_seconds": answer.duration_seconds,
        "num_frames_decoded": provenance.get("num_frames_decoded"),
        "warnings": list(answer.warnings),
        "segments": [vars(segment) for segment in answer.segments],
        **{name: declared.get(name) for name in DECLARED},
    }


def row_of_failure(
    video: PlannedVideo, seen: Seen | None, bundle_sha256: str, error: BacktalError
) -> Row:
    """A video that was not: in quarantine, unless what is around it is to blame."""
    is_its_own = not isinstance(error, NOT_THE_VIDEOS_FAULT)
    verdict = Verdict(error.grpc_code, error.message)
    row = row_of_verdict(video, seen, bundle_sha256, verdict)
    return row if is_its_own else {**row, "status": "failed"}


def row_of_verdict(
    video: PlannedVideo, seen: Seen | None, bundle_sha256: str, verdict: Verdict
) -> Row:
    """A video in quarantine."""
    identity = UNKNOWN if seen is None else seen.identity
    stamp = None if seen is None else seen.kept_stamp
    return {
        **_row(video, identity, stamp, bundle_sha256),
        "status": "quarantined",
        "error_code": verdict.error_code,
        "error": verdict.error,
    }


def row_of_deleted(video: PlannedVideo) -> Row:
    """A video that is gone, as it was last known."""
    identity, sha256 = video.known_identity, video.known_sha256
    return {**_row(video, identity, None, sha256), "status": "deleted", "attempts": 0}


def _row(video: PlannedVideo, identity: str | None, stamp: str | None, sha256: str | None) -> Row:
    return {
        "uri": video.uri,
        "bundle": video.bundle,
        "identity": identity,
        "stamp": stamp,
        "bundle_sha256": sha256,
        "warnings": [],
        "segments": [],
    }
