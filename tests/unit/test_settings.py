from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from backtal.errors import InvalidFile, NotFound
from backtal.localization import LocalizationSettings
from backtal.manifest import ClipPlan
from backtal.settings import Settings, parse, read_json, read_yaml


class Outer(Settings):
    plan: ClipPlan = ClipPlan()
    name: str = "x"


def test_an_unknown_key_is_refused_with_the_nearest() -> None:
    with pytest.raises(InvalidFile, match="file: unknown key gama; did you mean gamma"):
        parse(LocalizationSettings, {"gama": 1}, source="file")
    with pytest.raises(InvalidFile, match=r"unknown key plan\.strid_frames; did you mean stride_f"):
        parse(Outer, {"plan": {"strid_frames": 1}}, source="file")
    with pytest.raises(InvalidFile, match="unknown key zzz$"):
        parse(Outer, {"zzz": 1}, source="file")


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"top_k_ratio": 0}, "top_k_ratio: .*greater than 0, got 0"),
        ({"top_k_ratio": 1.5}, "top_k_ratio: .*less than or equal to 1, got 1.5"),
        ({"nms_tiou": 0}, "nms_tiou: "),
        ({"cas_thresholds": []}, "cas_thresholds: "),
        ({"cas_thresholds": [1.0]}, r"cas_thresholds\.0: "),
        ({"gamma": float("nan")}, "gamma: .*finite"),
        ({"preset": "best"}, "preset: .*'calibrated' or 'released', got 'best'"),
        ({"max_segments": 0}, "max_segments: "),
        ([], r"LocalizationSettings: .*got \[\]"),
    ],
)
def test_a_value_out_of_its_range(raw: Any, message: str) -> None:
    with pytest.raises(InvalidFile, match=message):
        parse(LocalizationSettings, raw, source="file")


def test_every_problem_is_named() -> None:
    with pytest.raises(InvalidFile, match=r"gamma: .*; unknown key y"):
        parse(LocalizationSettings, {"gamma": -1, "y": 0}, source="file")


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        LocalizationSettings().gamma = 1  # type: ignore[misc]


def test_files(tmp_path: Path) -> None:
    json_file, yaml_file = tmp_path / "a.json", tmp_path / "a.yaml"
    json_file.write_text('{"gamma": 0.5}')
    yaml_file.write_text("gamma: 0.5\n")
    assert read_json(LocalizationSettings, json_file) == LocalizationSettings(gamma=0.5)
    assert read_yaml(LocalizationSettings, yaml_file) == LocalizationSettings(gamma=0.5)
    for read in (read_json, read_yaml):
        with pytest.raises(NotFound, match="no such file"):
            read(LocalizationSettings, tmp_path / "none")
        with pytest.raises(InvalidFile, match="is no text"):
            read(LocalizationSettings, tmp_path)


@given(st.binary(max_size=60))
def test_any_bytes_are_settings_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(content)
    for read in (read_json, read_yaml):
        try:
            read(LocalizationSettings, path)
        except InvalidFile:
            pass
