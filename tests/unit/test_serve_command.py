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


def settings_of_the_docs(page: str) -> list[object]:
    text = (PROJECT_ROOT / "docs" / page).read_text()
    return [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]


def test_the_limits_in_the_docs_are_the_defaults() -> None:
    (raw,) = settings_of_the_docs("serving.md")
    assert parse(ServingSettings, raw, source="docs") == ServingSettings()
    # And none is left out.
    everything = ServingSettings().model_dump(mode="json", exclude={"state_folder", "spool_folder"})
    assert raw == everything


def test_the_feature_stores_in_the_docs_have_the_defaults() -> None:
    folder, bucket = (
        parse(ServingSettings, raw, source="docs").feature_store
        for raw in settings_of_the_docs("feature-store.md")
    )
    assert folder is not None
    assert folder == FeatureStoreSettings(folder=folder.folder)
    assert bucket is not None
    assert bucket == FeatureStoreSettings(prefix=bucket.prefix)
    # And none is left out.
    assert bucket.model_fields_set == FeatureStoreSettings.model_fields.keys() - {"folder"}


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
