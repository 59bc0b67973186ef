"""A repository that was changed is refused by name; a bundle that fails its gate stays out."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from backtal import cli
from backtal.errors import GateFailed, InvalidFile, NotFound
from backtal.precision import processor_has_bfloat16
from backtal.repository import bundle_versions, load_bundle
from backtal_export.gates import GateThresholds
from backtal_export.model_folders import write_exported
from backtal_export.publishing import publish
from backtal_export.runtimes import Runtime
from backtal_export.verification import verify
from tests.unit.small_bundle import cas_file, small_export, write_golden_set

OPENVINO = Runtime("float32", "openvino")
BFLOAT16 = Runtime("bfloat16", "openvino")


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("golden")
    write_golden_set(folder)
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    write_exported(folder, small_export(OPENVINO))
    return folder


@pytest.fixture
def repository(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "repository"))


def test_a_whole_repository_is_whole(repository: Path) -> None:
    write_exported(repository, small_export(OPENVINO, cas=cas_file(0.01)))
    first, second = verify(repository)
    assert (first.bundle, first.version, second.version) == ("small", 1, 2)
    assert first.measured is None
    assert second.measured is not None
    assert second.measured.cas.cas_error == pytest.approx(0, abs=1e-5)


def network_of(repository: Path) -> Path:
    return repository / load_bundle(repository, "small").cas.model


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def _change(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "damage", "kind", "message"),
    [
        ("network/1/model.onnx", _cut, InvalidFile, r"model\.onnx has the SHA-256 .*manifest of"),
        ("network/1/model.onnx", _change, InvalidFile, r"model\.onnx has the SHA-256"),
        ("network/1/model.onnx", Path.unlink, NotFound, r"no such file: .*model\.onnx"),
        ("network/config.pbtxt", _cut, InvalidFile, r"config\.pbtxt is not what was written"),
        ("network/config.pbtxt", Path.unlink, NotFound, r"no such file: .*config\.pbtxt"),
        ("small/config.pbtxt", _cut, InvalidFile, r"small/config\.pbtxt is not what was written"),
        ("small/1/manifest.json", _cut, InvalidFile, r"small/1/manifest\.json is no JSON"),
        ("small/1/model.py", Path.unlink, NotFound, r"no such file: .*small/1/model\.py"),
        (
            "small_stream/1/manifest.json",
            _cut,
            InvalidFile,
            r"stream/1/manifest\.json differs",
        ),
        ("small_stream/1/manifest.json", Path.unlink, NotFound, r"stream/1/manifest\.json"),
    ],
)
def test_what_was_changed_is_refused_by_name(repository, name, damage, kind, message) -> None:
    path = repository / name
    if name.startswith("network/"):
        path = network_of(repository) / name.removeprefix("network/")
    damage(path)
    with pytest.raises(kind, match=message):
        list(verify(repository, measured=False))


def test_a_folder_without_bundles_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="holds no bundle"):
        list(verify(tmp_path))


@pytest.mark.skipif(not processor_has_bfloat16(), reason="this processor has no bfloat16")
def test_verify_measures_the_gates_anew(tmp_path: Path) -> None:
    write_exported(tmp_path, small_export(BFLOAT16))
    list(verify(tmp_path))
    with pytest.raises(GateFailed, match="small-.*feature cosine"):
        list(verify(tmp_path, GateThresholds(minimum_feature_cosine=1.0)))


def test_a_bundle_is_published_and_served_from_then_on(whole, golden, tmp_path) -> None:
    served = tmp_path / "served"
    said: list[str] = []
    done = publish(whole, "small", served, golden, say=said.append)
    assert (done.version, done.replaced_map) == (1, None)
    assert done.golden_map == pytest.approx(1.0)
    assert load_bundle(served, "small") == load_bundle(whole, "small")
    assert [checked.version for checked in verify(served)] == [1]
    again = publish(whole, "small", served, golden, say=said.append)
    assert (again.version, again.replaced_map) == (1, done.golden_map)


def test_a_worse_bundle_does_not_replace_a_better_one(whole, golden, tmp_path) -> None:
    served, staged = tmp_path / "served", tmp_path / "staged"
    publish(whole, "small", served, golden, say=lambda _: None)
    before = sorted(served.rglob("*"))
    write_exported(staged, small_export(OPENVINO, cas=cas_file(damage=3.0)))
    with pytest.raises(GateFailed, match=r"the mAP on the golden set is 0\.\d+, that of the bundl"):
        publish(staged, "small", served, golden, say=lambda _: None)
    assert sorted(served.rglob("*")) == before
    assert bundle_versions(served, "small") == [1]


def test_a_better_bundle_becomes_the_next_version(whole, golden, tmp_path) -> None:
    served, staged = tmp_path / "served", tmp_path / "staged"
    write_exported(staged, small_export(OPENVINO, cas=cas_file(damage=3.0)))
    publish(staged, "small", served, golden, say=lambda _: None)
    assert publish(whole, "small", served, golden, say=lambda _: None).version == 2
    assert load_bundle(served, "small") == load_bundle(whole, "small")


def test_a_damaged_bundle_is_not_published(repository, golden, tmp_path) -> None:
    _change(network_of(repository) / "1/model.onnx")
    with pytest.raises(InvalidFile, match="SHA-256"):
        publish(repository, "small", tmp_path / "served", golden, say=lambda _: None)
    assert not (tmp_path / "served").exists()


def test_no_such_bundle_and_no_golden_set_are_told(whole, golden, tmp_path) -> None:
    with pytest.raises(NotFound, match="no bundle 'other'.*it has: small"):
        publish(whole, "other", tmp_path / "served", golden)
    with pytest.raises(NotFound, match=r"no such file: .*ground_truth\.json"):
        publish(whole, "small", tmp_path / "served", tmp_path)


def test_the_commands_do_it(whole, golden, tmp_path, capsys) -> None:
    served = str(tmp_path / "served")
    words = ["publish", str(whole / "small"), "--to", served, "--golden", str(golden)]
    assert cli.main(words) == 0
    assert "published small as version 1" in capsys.readouterr().out
    assert cli.main(["repository", "verify", served]) == 0
    assert "small version 1: whole, feature cosine 1.000000" in capsys.readouterr().out
    assert cli.main(["repository", "verify", served, "--files-only"]) == 0
    assert cli.main(["repository", "verify", str(tmp_path)]) != 0
    assert "holds no bundle" in capsys.readouterr().err
