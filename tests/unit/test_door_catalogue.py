"""What the door says of a model that Triton does not offer at the moment."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tritonclient.grpc import service_pb2

from backtal.errors import NotFound, Unavailable
from backtal_serving.door.catalogue import Catalogue
from backtal_serving.version_report import VersionReport


class EmptyTriton:
    """Has no model ready; tests/integration/door has a real one."""

    async def call(self, method: str, request: Any, kind: Any, *_: Any) -> Any:
        assert method == "RepositoryIndex"
        return service_pb2.RepositoryIndexResponse()


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    report = tmp_path / "versions.json"
    VersionReport(served={"sports": {"1": "0" * 64}}).write(report)
    catalogue = Catalogue(EmptyTriton(), report)  # type: ignore[arg-type]
    asyncio.run(catalogue.refresh())
    return catalogue


@pytest.mark.parametrize("name", ["sports", "sports_stream"])
def test_a_model_that_is_loaded_again_is_worth_a_retry(catalogue: Catalogue, name: str) -> None:
    with pytest.raises(Unavailable, match="loaded again") as caught:
        catalogue.model(name)
    assert caught.value.retry_after_seconds == 1.0


def test_a_model_of_nobody_is_not_found(catalogue: Catalogue) -> None:
    with pytest.raises(NotFound, match="none at the moment"):
        catalogue.model("chess")
