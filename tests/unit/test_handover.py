from __future__ import annotations

import json
from pathlib import Path

import pytest

from backtal.errors import Internal, PermissionDenied
from backtal_serving.handover import ROOTS_PARAMETER, SPOOLED_PARAMETER, roots_parameter, take
from backtal_serving.settings import ServingSettings
from backtal_serving.uris import resolve

OPEN = ServingSettings.model_validate(
    {
        "allowed_roots": ["/videos"],
        "remote": {"prefixes": ["https://media.example.org/videos/", "s3://bucket/videos/"]},
    }
)


def test_without_roots_of_its_own_a_caller_reaches_what_the_server_allows() -> None:
    handed, rest = take({"nms": 0.5}, Path("/spool"))
    assert rest == {"nms": 0.5}
    assert handed.reach(OPEN) == (OPEN.allowed_roots, OPEN.remote)


@pytest.mark.parametrize(
    "uri", ["https://media.example.org/videos/a.mp4", "s3://bucket/videos/a.mp4"]
)
def test_a_key_with_folders_alone_reaches_no_remote_place(uri: str) -> None:
    handed, _ = take({ROOTS_PARAMETER: roots_parameter(["/videos/ann"])}, Path("/spool"))
    folders, remote = handed.reach(OPEN)
    assert folders == (Path("/videos/ann"),)
    with pytest.raises(PermissionDenied, match="outside the allowed prefixes"):
        resolve(uri, folders, remote)


def test_a_key_has_its_own_prefixes_in_place_of_the_servers() -> None:
    own = ["/videos/ann", "s3://ann/", "https://ann.example.org/v/"]
    handed, _ = take({ROOTS_PARAMETER: roots_parameter(own)}, Path("/spool"))
    folders, remote = handed.reach(OPEN)
    assert folders == (Path("/videos/ann"),)
    assert remote == OPEN.remote.model_copy(update={"prefixes": tuple(own[1:])})
    with pytest.raises(PermissionDenied, match="outside the allowed prefixes"):
        resolve("s3://bucket/videos/a.mp4", folders, remote)


def test_a_key_without_any_root_reaches_nothing() -> None:
    handed, _ = take({ROOTS_PARAMETER: json.dumps([])}, Path("/spool"))
    assert handed.reach(OPEN)[0] == ()


def test_a_name_that_is_none_of_the_spool_is_a_bug() -> None:
    with pytest.raises(Internal, match="no name of the spool"):
        take({SPOOLED_PARAMETER: "../etc/passwd"}, Path("/spool"))


def test_without_a_door_nothing_is_handed_over() -> None:
    parameters = {ROOTS_PARAMETER: "[]", SPOOLED_PARAMETER: "x"}
    handed, rest = take(parameters, None)
    assert rest == parameters
    assert handed.reach(OPEN) == (OPEN.allowed_roots, OPEN.remote)
