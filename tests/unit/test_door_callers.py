"""Keys: made by the command, read by the door, compared, and read again."""

from __future__ import annotations

import argparse
import json
import stat
from pathlib import Path
from typing import Any

import pytest

from backtal.errors import InvalidArgument, InvalidFile, PermissionDenied, Unauthenticated
from backtal_serving.commands import keys
from backtal_serving.door.callers import KEYS_VARIABLE, KeyRing, sha256_of_key


def make_key(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    parser = argparse.ArgumentParser()
    keys.configure(parser)
    assert keys.run(parser.parse_args(words)) == 0
    return capsys.readouterr().out.strip()


def test_a_key_is_made_once_and_known(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "keys.yaml"
    first = make_key(capsys, str(path), "ann", "--model", "demo", "--at-once", "2")
    ring = KeyRing(path, {})
    second = make_key(capsys, str(path), "ops", "--operator")
    assert ring.reload_if_changed()
    assert not ring.reload_if_changed()
    ann, ops = (ring.caller(f"Bearer {key}") for key in (first, second))
    assert (ann.name, ann.models, ann.at_once, ann.role) == ("ann", ("demo",), 2, "user")
    assert (ops.name, ops.models, ops.role) == ("ops", None, "operator")
    with pytest.raises(PermissionDenied, match="'other' is not among those of this key: demo"):
        ann.check_model("other")
    assert first not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(InvalidArgument, match="'ann' already"):
        make_key(capsys, str(path), "ann")
    with pytest.raises(InvalidFile, match="requests_per_second"):
        make_key(capsys, str(path), "bob", "--requests-per-second", "-1")


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic a-key", "Bearer other"])
def test_what_is_no_key(header: str | None) -> None:
    text = json.dumps({"keys": [{"name": "ann", "sha256": sha256_of_key("a-key")}]})
    ring = KeyRing(None, {KEYS_VARIABLE: text})
    with pytest.raises(Unauthenticated):
        ring.caller(header)
    assert ring.caller("bearer a-key").name == "ann"


def test_without_keys_anybody_is_an_operator() -> None:
    ring = KeyRing(None, {})
    assert ring.is_open
    assert ring.caller(None).role == "operator"


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"keys": []}, "at least 1 item"),
        ({"keys": [{"name": "a", "sha256": "xyz"}]}, "sha256"),
        ({"keys": [{"name": "a", "sha256": "0" * 64, "rolle": "user"}]}, "keys.0.rolle: Extra"),
        ({"keys": [{"name": "a", "sha256": "0" * 64}] * 2}, "the same name"),
        ({"keys": [{"name": "a", "sha256": "0" * 64, "roots": ["videos"]}]}, "no absolute folder"),
        ({"keys": [{"name": "a", "sha256": "0" * 64, "roots": ["s3://b"]}]}, "is no prefix"),
        ({"keys": [{"name": "a", "sha256": "0" * 64, "roots": ["https://h/a"]}]}, "is no prefix"),
    ],
)
def test_a_file_that_is_wrong(tmp_path: Path, document: Any, says: str) -> None:
    path = tmp_path / "keys.json"
    path.write_text(json.dumps(document))
    with pytest.raises(InvalidFile, match=says) as caught:
        KeyRing(path, {})
    assert "0" * 64 not in caught.value.message


def test_a_broken_file_is_not_quoted(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text("keys: [secret-text")
    with pytest.raises(InvalidFile) as caught:
        KeyRing(path, {})
    assert "secret-text" not in caught.value.message
