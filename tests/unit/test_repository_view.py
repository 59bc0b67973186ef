from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tritonclient.grpc")

from backtal.errors import InvalidFile
from backtal.manifest import BundleDescription
from backtal.settings import parse
from backtal_export.model_folders import write_exported
from backtal_serving.limits import RequestLimits
from backtal_serving.repository_view import RepositoryView, write_view
from tests.unit.small_bundle import cas_file, small_export

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


def test_a_view_shows_the_versions_that_are_served_and_no_others(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    first = write_exported(repository, small_export())
    second = write_exported(repository, small_export(cas=cas_file(0.01)))
    view = RepositoryView(repository, tmp_path / "view", RequestLimits())
    shown = view.folder / "small"
    config = shown / "config.pbtxt"

    view.show_bundle("small", [(1, first)])
    assert {entry.name for entry in shown.iterdir()} == {"1", "config.pbtxt"}
    assert {entry.name for entry in view.folder.iterdir()} == {"small", "small_stream"}
    written = config.stat().st_mtime_ns
    view.show_bundle("small", [(1, first), (2, second)])
    assert {entry.name for entry in shown.iterdir()} == {"1", "2", "config.pbtxt"}
    # Triton would load the first version anew.
    assert config.stat().st_mtime_ns == written
    view.show_bundle("small", [(2, second)])
    assert {entry.name for entry in shown.iterdir()} == {"2", "config.pbtxt"}
    view.show_network(second.cas.model)
    assert (view.folder / second.cas.model).samefile(repository / second.cas.model)
    for model in ("small", second.cas.model, "nothing"):
        view.remove(model)
    assert [entry.name for entry in view.folder.iterdir()] == ["small_stream"]


def test_a_trial_has_one_instance_and_a_name_that_no_bundle_can_have(tmp_path: Path) -> None:
    manifest = write_exported(tmp_path / "repository", small_export())
    view = RepositoryView(tmp_path / "repository", tmp_path / "view", RequestLimits(at_once=3))
    trial = view.show_trial("small", (1, manifest))
    config = parsed(view.folder / trial / "config.pbtxt")
    assert config.name == trial
    assert config.instance_group[0].count == 1
    with pytest.raises(InvalidFile):
        parse(BundleDescription, {**manifest.description.model_dump(), "name": trial}, source="x")


def test_versions_of_different_sizes_share_a_configuration(tmp_path: Path) -> None:
    manifest = write_exported(tmp_path / "repository", small_export())
    more = manifest.description.model_copy(update={"classes": ("jump", "run", "throw")})
    larger = manifest.model_copy(update={"description": more})
    view = RepositoryView(tmp_path / "repository", tmp_path / "view", RequestLimits())
    dims = {}
    for name, versions in (("one", [larger]), ("both", [manifest, larger])):
        view.show_bundle("small", list(enumerate(versions, start=1)))
        config = parsed(view.folder / "small" / "config.pbtxt")
        dims[name] = {tensor.name: tensor.dims[0] for tensor in (*config.input, *config.output)}
        assert config.version_policy.HasField("all")
    assert (dims["one"]["cas"], dims["both"]["cas"]) == (3, -1)
    assert dims["both"]["features"] == manifest.description.feature_dim


def parsed(path: Path) -> Any:
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    return text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())
