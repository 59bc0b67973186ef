from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from backtal.errors import InvalidFile, NotFound
from backtal.manifest import BundleDescription, Manifest, Network
from backtal.settings import parse
from tests.unit.bundles import describe


def _manifest() -> Manifest:
    network = Network(model="i3d-rgb-01234567", sha256="a" * 64)
    return Manifest(
        description=describe(3, background=True),
        backbones={"rgb": network},
        cas=Network(model="cas-01234567", sha256="b" * 64),
        training={"seed": 3},
    )


def _changed(**changes: Any) -> dict[str, Any]:
    return {**json.loads(describe(2).model_dump_json()), **changes}


def test_a_manifest_is_read_back(tmp_path: Path) -> None:
    manifest = _manifest()
    manifest.save(tmp_path / "manifest.json")
    again = Manifest.load(tmp_path / "manifest.json")
    assert again == manifest
    assert again.sha256 == manifest.sha256


def test_the_hash_is_of_everything() -> None:
    manifest = _manifest()
    other = manifest.model_copy(update={"training": {"seed": 4}})
    assert other.sha256 != manifest.sha256


def test_derived_numbers() -> None:
    assert describe(3, background=True).cas_channels == 4
    assert describe(3).cas_channels == 3
    assert describe(3).feature_dim == 4
    assert describe().clip_plan.stride_seconds == pytest.approx(0.64)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": ["a", "a"]}, "classes holds a name twice"),
        ({"classes": []}, "classes: "),
        ({"name": "No Spaces"}, "name: "),
        ({"backbones": _changed()["backbones"] * 2}, "backbones name a stream twice"),
        ({"clip_plan": {"crop_pixels": 300}}, "crop_pixels 300 is larger than short_side_pixels"),
        ({"grid": {"position_seconds": 0, "window_positions": 9}}, "grid.position_seconds: "),
        ({"grid": {"position_seconds": 1, "window_positions": 1}}, "grid.window_positions: "),
        ({"backbones": [{**_changed()["backbones"][0], "sha256": "ab"}]}, "sha256: "),
        ({"localisation": {}}, "unknown key localisation; did you mean localization"),
    ],
)
def test_what_does_not_fit_together(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidFile, match=message):
        parse(BundleDescription, _changed(**changes), source="file")


def test_every_stream_has_its_network(tmp_path: Path) -> None:
    raw = json.loads(_manifest().model_dump_json())
    raw["backbones"]["flow"] = raw["backbones"].pop("rgb")
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(raw))
    with pytest.raises(InvalidFile, match=r"networks for \['flow'\], streams \['rgb'\]"):
        Manifest.load(path)


def test_a_manifest_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no such file"):
        Manifest.load(tmp_path / "manifest.json")
