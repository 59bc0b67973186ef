"""What Triton says behind the front door, and what a caller is told of it."""

from __future__ import annotations

import pytest

from backtal.errors import InvalidVideo, ServiceBusy
from backtal_serving.door.refusals import from_triton_text


@pytest.mark.parametrize(
    "text",
    [
        "[request id: 1] Exceeds maximum queue size",
        "Stub process 'tiny_0_0' is not healthy.",
        "Server is stopping, scheduler for model has stopped accepting new inference requests",
        # The catalogue offered it: its process died, and it is loaded again.
        "Request for unknown model: 'tiny' has no available versions",
        "Request for unknown model: 'tiny' is not found",
    ],
)
def test_trouble_of_the_service_is_not_the_callers(text: str) -> None:
    error = from_triton_text(text)
    assert type(error) is ServiceBusy
    assert error.retry_after_seconds is not None


def test_the_pipelines_own_error_comes_as_its_kind() -> None:
    text = "Failed to process the request(s): [INVALID_ARGUMENT;reason=INVALID_VIDEO] video is not"
    assert type(from_triton_text(text)) is InvalidVideo
