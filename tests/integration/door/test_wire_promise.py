"""The wire is a promise: what the service describes of itself is what is committed.

After a change that docs/wire.md allows, run this with BACKTAL_WRITE_WIRE=1 and commit the files.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.door.conftest import Fronted
from tests.integration.tiny_repository import BUNDLE
from tests.requirements import PROJECT_ROOT

pytestmark = pytest.mark.slow

FOLDER = PROJECT_ROOT / "docs" / "wire"
WRITE_VARIABLE = "BACKTAL_WRITE_WIRE"


def fetch(service: Fronted, path: str) -> Any:
    return httpx.get(service.http + path, trust_env=False).raise_for_status().json()


def assert_committed(name: str, document: Any) -> None:
    path: Path = FOLDER / name
    if os.environ.get(WRITE_VARIABLE):
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
    assert document == json.loads(path.read_text()), f"the wire is not docs/wire/{name} any more"


def test_the_openapi_document(fronted: Fronted) -> None:
    document = fetch(fronted, "/openapi.json")
    # The package's version is no part of the promise.
    document["info"]["version"] = "0"
    assert_committed("openapi.json", document)


@pytest.mark.parametrize("model", [BUNDLE, f"{BUNDLE}_stream"])
def test_the_models_tensors(fronted: Fronted, model: str) -> None:
    assert_committed(f"{model}.json", fetch(fronted, f"/v2/models/{model}"))
