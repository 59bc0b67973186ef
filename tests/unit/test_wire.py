from __future__ import annotations

import json
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtal.errors import InvalidArgument
from backtal.features import FeatureProvenance, FeatureSequence
from backtal.localization.settings import LocalizationSettings
from backtal.manifest import (
    Backbone,
    BundleDescription,
    CasKind,
    ClipPlan,
    Grid,
    Manifest,
    Network,
)
from backtal.pipeline import Answer, Progress, Request
from backtal.segments import Segment
from backtal.video import VideoDescription
from backtal_serving import wire

SHA256 = "ab" * 32
DURATION = np.array([8.0], np.float32)
VALUES = np.arange(12, dtype=np.float32).reshape(3, 4)

MANIFEST = Manifest(
    description=BundleDescription(
        name="sports",
        classes=("jump", "run"),
        clip_plan=ClipPlan(),
        backbones=(Backbone(name="i3d-rgb", stream="rgb", sha256=SHA256, feature_dim=3),),
        grid=Grid(position_seconds=0.64, window_positions=100),
        cas=CasKind(kind="logits", background=True, magnitude=True),
        localization=LocalizationSettings(),
    ),
    backbones={"rgb": Network(model="i3d-rgb-abababab", sha256=SHA256)},
    cas=Network(model="cas-cdcdcdcd", sha256="cd" * 32),
)


def decode(tensors: dict[str, Any], **parameters: Any) -> Request:
    return wire.decode(tensors, parameters, MANIFEST, [])


def a_video(**parameters: Any) -> Request:
    return decode({"video": np.array([b"bytes"], np.object_)}, **parameters)


DECLARED = VideoDescription(
    name="video",
    num_bytes=2000,
    container="mov,mp4",
    codec="h264",
    width=640,
    height=360,
    sample_aspect_ratio=Fraction(1),
    duration_seconds=4.0,
    num_frames=120,
    frames_per_second=30000 / 1001,
)


def answer(segments: tuple[Segment, ...] = ()) -> Answer:
    features = FeatureSequence(
        values=VALUES,
        clip_start_seconds=np.arange(4, dtype=np.float32),
        clip_end_seconds=np.arange(1, 5, dtype=np.float32),
        duration_seconds=4.0,
        num_frames_decoded=100,
        streams=("rgb",),
        provenance=FeatureProvenance(decoder="pyav", backbone_sha256=(SHA256,)),
    )
    return Answer(
        segments=segments,
        duration_seconds=4.0,
        cas=np.ones((3, 6), np.float32),
        position_seconds_middle=np.arange(6) + 0.5,
        features=features,
        streams=features.streams,
        feature_provenance=features.provenance,
        warnings=("it ends early",),
        num_frames_decoded=100,
        video=DECLARED,
        stage_seconds={"decode": 0.5},
        bundle_name="sports",
        bundle_sha256=MANIFEST.sha256,
    )


def test_a_request_without_parameters_leaves_all_to_the_bundle() -> None:
    request = a_video()
    assert request.video == b"bytes"
    assert request.path is None
    assert request.features is None
    assert (request.score_threshold, request.max_segments, request.nms) == (None, None, None)
    assert request.classes is None
    assert request.allow_partial is False


def test_parameters_are_read_as_numbers_or_text() -> None:
    for request in (
        a_video(
            score_threshold=0.25,
            max_segments=3,
            nms=1,
            allow_partial=True,
            classes='["run", "jump"]',
        ),
        a_video(
            score_threshold="0.25",
            max_segments="3",
            nms="1.0",
            allow_partial="true",
            classes='["run", "jump"]',
        ),
    ):
        assert request.score_threshold == 0.25
        assert request.max_segments == 3
        assert request.nms == 1.0
        assert request.allow_partial is True
        assert request.classes == ("run", "jump")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("score_threshold", value) for value in ("x", "nan", "", True, [])),
        *(("nms", value) for value in ("inf", False, "1,0")),
        *(("max_segments", value) for value in (1.5, "1e3", "²", True, "", "9" * 5000)),
        *(("allow_partial", value) for value in (1, "yes", "", 0.0)),
        *(("classes", value) for value in ("jump", '"jump"', '["jump", 1]', 3, True)),
    ],
)
def test_a_bad_value_is_refused_with_its_name_and_itself(name: str, value: Any) -> None:
    with pytest.raises(InvalidArgument) as caught:
        a_video(**{name: value})
    assert caught.value.message.startswith(f"{name} is {value!r}")


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_finite_threshold_is_taken_as_it_is(value: float) -> None:
    assert a_video(score_threshold=value).score_threshold == value
    assert a_video(score_threshold=repr(value)).score_threshold == value


@given(st.text(max_size=30))
def test_no_parameter_name_crashes_or_passes_unknown(name: str) -> None:
    if name in wire.PARAMETERS or name.startswith(wire.RESERVED_PREFIX):
        return
    with pytest.raises(InvalidArgument, match="unknown parameter"):
        wire.check_parameter_names({name: 1})


def test_an_unknown_parameter_is_told_the_nearest() -> None:
    with pytest.raises(InvalidArgument, match="did you mean 'max_segments'"):
        a_video(max_segment=3)
    with pytest.raises(InvalidArgument, match="there are 6: 'score_threshold'"):
        a_video(zzz=3)


def test_what_triton_adds_is_passed_over() -> None:
    assert a_video(triton_enable_empty_final_response=True).video == b"bytes"


@pytest.mark.parametrize(
    "names", [(), ("video", "uri"), ("video", "features"), ("video", "uri", "features")]
)
def test_exactly_one_source(names: tuple[str, ...]) -> None:
    tensors = {
        "video": np.array([b"a"], np.object_),
        "uri": np.array([b"file:///a"], np.object_),
        "features": VALUES,
    }
    found = " and ".join(names) or "none of them"
    with pytest.raises(InvalidArgument, match=re.escape(f"the request has {found}")):
        decode({name: tensors[name] for name in names})


@pytest.mark.parametrize("stray", wire.WITH_FEATURES)
def test_what_belongs_to_features_is_refused_without(stray: str) -> None:
    tensors = {"video": np.array([b"a"], np.object_), stray: DURATION}
    with pytest.raises(InvalidArgument, match=f"{stray} goes with features"):
        decode(tensors)
    with pytest.raises(InvalidArgument, match="backbone goes with features"):
        a_video(backbone=SHA256)


def test_a_uri_is_held_under_the_roots(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"video")
    uri = (tmp_path / "a.mp4").as_uri().encode()
    request = wire.decode({"uri": np.array([uri], np.object_)}, {}, MANIFEST, [tmp_path])
    assert request.path == tmp_path / "a.mp4"
    assert request.video is None


def test_a_uri_that_is_no_text_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="not UTF-8"):
        decode({"uri": np.array([b"file:///\xff"], np.object_)})


def test_features_without_times_are_equal_parts() -> None:
    sequence = decode({"features": VALUES, "duration": DURATION}).features
    assert sequence is not None
    assert sequence.clip_start_seconds.tolist() == [0.0, 2.0, 4.0, 6.0]
    assert sequence.clip_end_seconds.tolist() == [2.0, 4.0, 6.0, 8.0]
    assert sequence.duration_seconds == 8.0
    assert sequence.streams == ("rgb",)
    assert sequence.provenance.backbone_sha256 == ()


def test_features_keep_the_times_they_came_with() -> None:
    starts = np.array([0, 1, 2, 3], np.float32)
    tensors = {
        "features": VALUES,
        "duration": DURATION,
        "clip_start_seconds": starts,
        "clip_end_seconds": starts + 4,
    }
    sequence = decode(tensors, backbone=SHA256).features
    assert sequence is not None
    np.testing.assert_array_equal(sequence.clip_end_seconds, starts + 4)
    assert sequence.provenance.backbone_sha256 == (SHA256,)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"duration": None}, "needs duration"),
        ({"duration": np.array([1.0, 2.0], np.float32)}, "duration has shape [2]"),
        ({"duration": np.array([0.0], np.float32)}, "duration is 0.0"),
        ({"duration": np.array([np.inf], np.float32)}, "duration is inf"),
        ({"features": VALUES[:2]}, "features has shape [2, 4], sports takes [3, N]"),
        ({"features": VALUES[:, :0]}, "features has shape [3, 0]"),
        ({"features": VALUES[0]}, "features is float32 [4], expected float32 [D, N]"),
        ({"features": VALUES.astype(np.float64)}, "features is float64"),
        ({"features": np.full_like(VALUES, np.nan)}, "features: values"),
        ({"clip_end_seconds": np.ones(4, np.float32)}, "both or neither"),
    ],
)
def test_features_that_do_not_fit_are_refused(changes: dict[str, Any], says: str) -> None:
    tensors = {"features": VALUES, "duration": DURATION, **changes}
    given_tensors = {name: value for name, value in tensors.items() if value is not None}
    with pytest.raises(InvalidArgument, match=re.escape(says)):
        decode(given_tensors)


def test_features_of_another_backbone_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="another backbone") as caught:
        decode({"features": VALUES, "duration": DURATION}, backbone="00" * 32)
    assert SHA256 in caught.value.message


def test_an_answer_becomes_the_tensors_of_the_wire() -> None:
    segments = (Segment(1.0, 2.5, "jump", 0.75), Segment(0.0, 0.5, "run", 0.25))
    tensors = wire.encode(answer(segments), MANIFEST, ("segments", "scores", "labels", "duration"))
    assert tensors["segments"].tolist() == [[1.0, 2.5], [0.0, 0.5]]
    assert tensors["scores"].tolist() == [0.75, 0.25]
    assert tensors["labels"].tolist() == [b"jump", b"run"]
    assert tensors["duration"].tolist() == [4.0]
    kinds = {name: values.dtype for name, values in tensors.items()}
    assert kinds == {
        "segments": np.float32,
        "scores": np.float32,
        "labels": np.object_,
        "duration": np.float32,
    }


def test_no_segment_keeps_its_shapes() -> None:
    tensors = wire.encode(answer(), MANIFEST, ("segments", "scores", "labels"))
    assert [tensors[name].shape for name in ("segments", "scores", "labels")] == [
        (0, 2),
        (0,),
        (0,),
    ]
    assert tensors["labels"].dtype == np.object_


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("cas", (3, 6)),
        ("position_seconds", (6,)),
        ("features", (3, 4)),
        ("clip_start_seconds", (4,)),
        ("clip_end_seconds", (4,)),
    ],
)
def test_the_large_outputs_come_alone_and_only_on_request(
    name: str, shape: tuple[int, ...]
) -> None:
    tensors = wire.encode(answer(), MANIFEST, (name,))
    assert set(tensors) == {name}
    assert tensors[name].shape == shape
    assert tensors[name].dtype == np.float32
    assert tensors[name].flags.c_contiguous


def test_provenance_is_json() -> None:
    tensors = wire.encode(answer(), MANIFEST, ("provenance",))
    told = json.loads(tensors["provenance"][0])
    assert told["bundle"] == "sports"
    assert told["bundle_sha256"] == MANIFEST.sha256
    assert told["classes"] == ["jump", "run", "background"]
    assert (told["num_frames_decoded"], told["num_frames_declared"]) == (100, 120)
    assert told["video"] == {
        "container": "mov,mp4",
        "codec": "h264",
        "width": 640,
        "height": 360,
        "num_bytes": 2000,
        "frames_per_second": 30000 / 1001,
    }
    assert told["warnings"] == ["it ends early"]
    assert told["stage_seconds"] == {"decode": 0.5}
    assert told["features"]["decoder"] == "pyav"


def test_progress_is_two_numbers_and_the_segments_that_are_final() -> None:
    everything = ("progress", "segments", "scores", "labels", "duration")
    tensors = wire.encode_progress(Progress(done_seconds=1.5, total_seconds=4.0), everything)
    assert set(tensors) == {"progress"}
    assert tensors["progress"].dtype == np.float32
    assert tensors["progress"].tolist() == [1.5, 4.0]
    told = Progress(1.5, 4.0, (Segment(0.25, 0.5, "jump", 0.75),))
    tensors = wire.encode_progress(told, everything)
    assert tensors["segments"].tolist() == [[0.25, 0.5]]
    assert tensors["scores"].tolist() == [0.75]
    assert tensors["labels"].tolist() == [b"jump"]
    assert set(wire.encode_progress(told, ("progress", "labels"))) == {"progress", "labels"}
