"""A detection as HTTP tells it: JSON, CSV or WebVTT."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal

import numpy as np
from fastapi import Response
from numpy.typing import NDArray
from pydantic import BaseModel, Field
from tritonclient.utils import deserialize_bytes_tensor

from backtal.errors import InvalidArgument
from backtal.segments import Segment

JSON_TYPE, CSV_TYPE, VTT_TYPE = "application/json", "text/csv", "text/vtt"
TYPES = (JSON_TYPE, CSV_TYPE, VTT_TYPE)

ALWAYS = ("segments", "scores", "labels", "duration", "provenance")
Include = Literal["cas", "features"]
INCLUDED: Mapping[str, tuple[str, ...]] = {
    "cas": ("cas", "position_seconds"),
    "features": ("features", "clip_start_seconds", "clip_end_seconds"),
}


class DetectedSegment(BaseModel):
    """A detected action."""

    start_seconds: float = Field(examples=[12.8])
    end_seconds: float = Field(examples=[17.3])
    label: str = Field(examples=["jump"])
    score: float = Field(examples=[0.91])


class Detection(BaseModel):
    """The actions of one video by falling score; none where there is no action."""

    segments: list[DetectedSegment]
    duration_seconds: float = Field(examples=[60.0])
    provenance: dict[str, Any] = Field(
        description="bundle, its hash, frames decoded and declared, warnings, seconds by stage"
    )
    cas: list[list[float]] | None = Field(
        None, description="[C, L]: the raw class activation sequence; with include=cas"
    )
    position_seconds: list[float] | None = Field(None, description="[L]: each position's middle")
    features: list[list[float]] | None = Field(None, description="[D, N]; with include=features")
    clip_start_seconds: list[float] | None = Field(None, description="[N]")
    clip_end_seconds: list[float] | None = Field(None, description="[N]")


def tensors_of(response: Any) -> dict[str, NDArray[Any]]:
    """The tensors of a ModelInferResponse, by name."""
    tensors = {}
    for output, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        values = (
            deserialize_bytes_tensor(raw)
            if output.datatype == "BYTES"
            else np.frombuffer(raw, np.float32)
        )
        tensors[output.name] = values.reshape(tuple(output.shape))
    return tensors


def segments_of(tensors: Mapping[str, NDArray[Any]]) -> tuple[Segment, ...]:
    """The segments that these tensors are."""
    return tuple(
        Segment(start_seconds=start, end_seconds=end, label=label.decode(), score=score)
        for (start, end), label, score in zip(
            tensors["segments"].tolist(),
            tensors["labels"].tolist(),
            tensors["scores"].tolist(),
            strict=True,
        )
    )


def detection_of(tensors: Mapping[str, NDArray[Any]]) -> Detection:
    """The detection that these tensors are."""
    return Detection(
        segments=[DetectedSegment(**asdict(segment)) for segment in segments_of(tensors)],
        duration_seconds=float(tensors["duration"][0]),
        provenance=json.loads(tensors["provenance"].reshape(-1)[0]),
        **{
            name: tensors[name].tolist()
            for names in INCLUDED.values()
            for name in names
            if name in tensors
        },
    )


def choose_type(accept: str) -> str:
    """The type of TYPES that an Accept header likes best. Raises InvalidArgument for none."""
    wishes = []
    for part in accept.split(",")[:32]:
        name, _, options = part.strip().lower().partition(";")
        quality = 1.0
        for option in options.split(";"):
            key, _, value = option.strip().partition("=")
            if key == "q":
                quality = _quality(value)
        wishes.append((quality, name.strip()))
    for quality, name in sorted(wishes, key=lambda wish: -wish[0]):
        for known in TYPES:
            if quality > 0 and name in (known, f"{known.partition('/')[0]}/*", "*/*", ""):
                return known
    raise InvalidArgument(f"accept is {accept[:80]!r}, there are {', '.join(TYPES)}")


def _quality(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def detection_response(detection: Detection, kind: str) -> Response:
    """`detection` as one of TYPES."""
    if kind == JSON_TYPE:
        text = detection.model_dump_json(exclude_none=True)
    elif kind == CSV_TYPE:
        text = _csv(detection.segments)
    else:
        text = _vtt(detection.segments)
    return Response(text, media_type=kind)


def _csv(segments: Sequence[DetectedSegment]) -> str:
    output = io.StringIO()
    writer = csv.writer(output)
    writer.writerow(("start_seconds", "end_seconds", "label", "score"))
    for segment in segments:
        times = (f"{segment.start_seconds:.3f}", f"{segment.end_seconds:.3f}")
        writer.writerow((*times, segment.label, f"{segment.score:.6g}"))
    return output.getvalue()


def _vtt(segments: Sequence[DetectedSegment]) -> str:
    cues = [
        f"{_vtt_clock(segment.start_seconds)} --> {_vtt_clock(segment.end_seconds)}\n"
        f"{_vtt_text(segment.label)} ({segment.score:.3f})\n"
        for segment in sorted(segments, key=lambda segment: segment.start_seconds)
    ]
    return "\n".join(["WEBVTT\n", *cues])


def _vtt_clock(seconds: float) -> str:
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest // 1000:02d}.{rest % 1000:03d}"


def _vtt_text(label: str) -> str:
    escaped = label.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return " ".join(escaped.split())
