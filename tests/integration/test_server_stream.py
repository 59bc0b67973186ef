"""Progress by stream, and requests that their callers give up."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from backtal.errors import from_wire
from tests.integration.conftest import (
    ALL_OUTPUTS,
    PATIENCE_SECONDS,
    Served,
    outputs,
    tensor,
    wait_until_in_flight,
)
from tests.integration.tiny_repository import BUNDLE, FEATURE_DIM
from tests.integration.videos import moving_colours

pytestmark = pytest.mark.slow

GIVEN_UP = "given up by its caller"


@pytest.fixture(scope="module")
def long_video() -> bytes:
    """Long enough to give up in the middle."""
    return moving_colours(120.0)


class Stream:
    """A stream of tritonclient: what arrives, in order."""

    def __init__(self, client: Any) -> None:
        self.arrived: queue.Queue[tuple[Any, Any]] = queue.Queue()
        self._client = client
        client.start_stream(callback=lambda result, error: self.arrived.put((result, error)))

    def send(self, inputs: list[Any], names: tuple[str, ...], **parameters: Any) -> None:
        self._client.async_stream_infer(
            f"{BUNDLE}_stream",
            inputs,
            outputs=outputs(*names),
            parameters=parameters,
            enable_empty_final_response=True,
        )

    def next(self) -> Any:
        """The next response; an error is raised."""
        result, error = self.arrived.get(timeout=PATIENCE_SECONDS)
        if error is not None:
            raise error
        return result

    def until_answer(self) -> tuple[list[tuple[float, float]], Any]:
        """Progress messages, then the answer."""
        progress = []
        while True:
            result = self.next()
            told = result.as_numpy("progress")
            if told is None or told.size == 0:
                return progress, result
            progress.append((float(told[0]), float(told[1])))


@pytest.fixture
def stream(client: Any) -> Iterator[Stream]:
    opened = Stream(client)
    yield opened
    client.stop_stream(cancel_requests=True)


def test_progress_comes_before_the_answer(stream: Stream, client: Any, video: bytes) -> None:
    stream.send([tensor("video", video)], ("progress", *ALL_OUTPUTS))
    progress, result = stream.until_answer()
    done = [seconds for seconds, _ in progress]
    assert len(done) >= 2
    assert done == sorted(done)
    assert done[-1] > 6.0
    assert {total for _, total in progress} == {12.0}
    alone = client.infer(BUNDLE, [tensor("video", video)], outputs=outputs(*ALL_OUTPUTS))
    for name in ALL_OUTPUTS:
        if name != "provenance":
            np.testing.assert_array_equal(result.as_numpy(name), alone.as_numpy(name), name)


def test_what_is_final_comes_with_progress(stream: Stream, video: bytes) -> None:
    """And only where both are asked for: who wants progress alone gets that alone."""
    long_video = moving_colours(60.0)
    names = ("progress", "segments", "scores", "labels")
    # Of more, the answer would be the surest.
    stream.send([tensor("video", long_video)], names, max_segments=1000)
    early: set[tuple[Any, ...]] = set()
    while (result := stream.next()).as_numpy("progress") is not None:
        if (spans := result.as_numpy("segments")) is not None:
            new = rows_of(result)
            assert len(new) == len(spans) > 0
            assert not early & new
            early |= new
    assert early
    assert early <= rows_of(result)
    stream.send([tensor("video", video)], ("progress",))
    while (response := stream.next().get_response()).outputs:
        assert [output.name for output in response.outputs] == ["progress"]


def rows_of(result: Any) -> set[tuple[Any, ...]]:
    names = ("segments", "scores", "labels")
    spans, scores, labels = (result.as_numpy(name).tolist() for name in names)
    return {(*span, *rest) for span, *rest in zip(spans, scores, labels, strict=True)}


def test_the_answer_is_the_last_response(stream: Stream, video: bytes) -> None:
    stream.send([tensor("video", video)], ("progress", "segments"))
    _, result = stream.until_answer()
    assert result.as_numpy("segments") is not None
    last = result
    while not last.get_response().parameters["triton_final_response"].bool_param:
        last = stream.next()
        assert not last.get_response().outputs


def test_progress_is_only_sent_where_it_is_asked_for(stream: Stream, video: bytes) -> None:
    stream.send([tensor("video", video)], ("segments",))
    assert stream.next().as_numpy("segments") is not None


def test_an_error_of_a_stream_has_its_code(stream: Stream) -> None:
    from tritonclient.utils import InferenceServerException

    stream.send([tensor("video", b"no video")], ("progress", "segments"))
    with pytest.raises(InferenceServerException) as caught:
        stream.until_answer()
    error = from_wire(caught.value.message())
    assert error is not None
    assert error.grpc_code == "INVALID_ARGUMENT"


def test_an_unknown_parameter_of_a_stream_is_refused(stream: Stream, video: bytes) -> None:
    from tritonclient.utils import InferenceServerException

    stream.send([tensor("video", video)], ("segments",), scores=1)
    with pytest.raises(InferenceServerException, match="unknown parameter 'scores'"):
        stream.next()


def test_a_stopped_stream_stops_the_work(served: Served, client: Any, long_video: bytes) -> None:
    before = _times_given_up(served)
    stream = Stream(client)
    stream.send([tensor("video", long_video)], ("progress", "segments"))
    assert stream.next().as_numpy("progress") is not None
    client.stop_stream(cancel_requests=True)
    _wait_until_given_up(served, before)
    _assert_answers(client)


def test_a_cancelled_request_stops_the_work(served: Served, client: Any, long_video: bytes) -> None:
    from tritonclient.utils import InferenceServerException

    before = _times_given_up(served)
    ended = threading.Event()
    errors: list[InferenceServerException] = []

    def finish(result: Any, error: InferenceServerException) -> None:
        errors.append(error)
        ended.set()

    call = client.async_infer(BUNDLE, [tensor("video", long_video)], callback=finish)
    wait_until_in_flight(served.process_id)
    assert not ended.is_set()
    call.cancel()
    assert ended.wait(PATIENCE_SECONDS)
    assert errors[0].status() == "StatusCode.CANCELLED"
    _wait_until_given_up(served, before)
    _assert_answers(client)


def test_a_deadline_stops_the_work(served: Served, client: Any, long_video: bytes) -> None:
    from tritonclient.utils import InferenceServerException

    before = _times_given_up(served)
    with pytest.raises(InferenceServerException) as caught:
        client.infer(BUNDLE, [tensor("video", long_video)], client_timeout=0.5)
    assert caught.value.status() == "StatusCode.DEADLINE_EXCEEDED"
    _wait_until_given_up(served, before)
    _assert_answers(client)


def _times_given_up(served: Served) -> int:
    return served.log_file.read_text(errors="replace").count(GIVEN_UP)


def _wait_until_given_up(served: Served, before: int) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while _times_given_up(served) == before:
        assert time.monotonic() < deadline, "the pipeline went on after its caller had left"
        time.sleep(0.05)


def _assert_answers(client: Any) -> None:
    inputs = [
        tensor("features", np.zeros((FEATURE_DIM, 4), np.float32)),
        tensor("duration", np.array([2.0], np.float32)),
    ]
    assert client.infer(BUNDLE, inputs).as_numpy("duration").tolist() == [2.0]
