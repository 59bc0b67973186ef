from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("tritonclient.grpc")

from backtal.errors import InvalidFile
from backtal_serving.limits import RequestLimits
from backtal_serving.repository_view import write_view

CONFIG = """
name: "tiny"  # as exported
backend: "python"
max_batch_size: 0
input [ { name: "video" data_type: TYPE_STRING dims: [ 1 ] optional: true } ]
instance_group [ { count: 2 kind: KIND_CPU } ]
model_transaction_policy { decoupled: True }
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    for name, file in (("tiny", "manifest.json"), ("cas-1", "model.onnx")):
        (folder / name / "1").mkdir(parents=True)
        (folder / name / "1" / file).write_text("{}")
        (folder / name / "config.pbtxt").write_text(CONFIG)
    (folder / "tiny" / "configs").mkdir()
    (folder / "tiny" / "configs" / "gpu.pbtxt").write_text(CONFIG)
    return folder


def test_a_bundle_gets_the_limits_and_nothing_else_changes(
    repository: Path, tmp_path: Path
) -> None:
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    view = write_view(repository, tmp_path / "view", RequestLimits(at_once=3, queued=7))
    for name in ("config.pbtxt", "configs/gpu.pbtxt"):
        parsed = text_format.Parse(
            (view / "tiny" / name).read_text(), model_config_pb2.ModelConfig()
        )
        expected = text_format.Parse(CONFIG, model_config_pb2.ModelConfig())
        expected.instance_group[0].count = 3
        expected.dynamic_batching.default_queue_policy.max_queue_size = 7
        assert parsed == expected
    assert (view / "tiny" / "1" / "manifest.json").samefile(
        repository / "tiny" / "1" / "manifest.json"
    )
    assert (view / "cas-1").samefile(repository / "cas-1")


def test_a_configuration_that_cannot_be_read_is_named(repository: Path, tmp_path: Path) -> None:
    (repository / "tiny" / "config.pbtxt").write_text("nmae: 3")
    with pytest.raises(InvalidFile, match=r"tiny/config\.pbtxt .*nmae"):
        write_view(repository, tmp_path / "view", RequestLimits())
