from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest
import yaml

from backtal.errors import InvalidArgument, InvalidFile
from backtal.feature_store import FeatureStoreSettings
from backtal.settings import parse
from backtal_serving.commands import serve
from backtal_serving.settings import ServingSettings
from tests.requirements import PROJECT_ROOT


def settings(*words: str) -> ServingSettings:
    parser = argparse.ArgumentParser()
    serve.configure(parser)
    return serve._settings(parser.parse_args(["--repository", "x", *words]))


def test_the_limits_in_the_docs_are_the_defaults() -> None:
    text = (PROJECT_ROOT / "docs" / "serving.md").read_text()
    blocks = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 2
    raw, with_store = map(yaml.safe_load, blocks)
    assert parse(ServingSettings, raw, source="docs") == ServingSettings()
    # And none is left out.
    everything = ServingSettings().model_dump(mode="json", exclude={"state_folder", "spool_folder"})
    assert raw == everything
    store = parse(ServingSettings, with_store, source="docs").feature_store
    assert store is not None
    assert store.max_bytes == FeatureStoreSettings(folder=store.folder).max_bytes


def test_a_folder_in_the_file_is_meant_from_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("settings.yaml").write_text("feature_store: {folder: features}")
    store = settings("--settings", "settings.yaml").feature_store
    assert store is not None
    assert store.folder == tmp_path / "features"


def test_options_come_on_top_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(
        f"allowed_roots: [{tmp_path}]\n"
        "remote: {prefixes: ['s3://bucket/a/'], timeout_seconds: 3}\n"
        "limits: {requests: {at_once: 3}}\n"
    )
    folder = tmp_path / "videos"
    folder.mkdir()
    found = settings(
        *("--settings", str(file), "--allow-root", str(folder)),
        *("--allow-root", "https://media.test/videos/", "--allow-unconfined-decoding"),
    )
    assert found.allowed_roots == (tmp_path, folder)
    assert found.remote.prefixes == ("s3://bucket/a/", "https://media.test/videos/")
    assert found.remote.timeout_seconds == 3
    assert found.limits.requests.at_once == 3
    assert found.limits.decode.allow_unconfined
    assert not settings().limits.decode.allow_unconfined


def test_what_is_no_root_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="is no folder"):
        settings("--allow-root", str(tmp_path / "nothing"))
    with pytest.raises(InvalidFile, match="is no prefix"):
        settings("--allow-root", "http://media.test/videos/")
    file = tmp_path / "settings.yaml"
    file.write_text("limits: {video: {max_byte: 3}}")
    with pytest.raises(InvalidFile, match="did you mean max_bytes"):
        settings("--settings", str(file))
