from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from backtal.errors import Unavailable
from backtal_serving.drain import drain, request_in_flight


def test_requests_go_side_by_side_and_an_idle_server_stops_at_once(tmp_path: Path) -> None:
    with request_in_flight(tmp_path), request_in_flight(tmp_path):
        pass
    assert drain(tmp_path, timeout_seconds=0.0)


def test_a_stop_waits_for_the_request_in_flight(tmp_path: Path) -> None:
    entered, leave = threading.Event(), threading.Event()

    def work() -> None:
        with request_in_flight(tmp_path):
            entered.set()
            leave.wait(10.0)

    worker = threading.Thread(target=work)
    worker.start()
    assert entered.wait(10.0)
    assert not drain(tmp_path, timeout_seconds=0.1)
    threading.Timer(0.2, leave.set).start()
    started = time.monotonic()
    assert drain(tmp_path, timeout_seconds=10.0)
    assert time.monotonic() - started > 0.1
    worker.join()


def test_a_request_after_a_stop_is_refused(tmp_path: Path) -> None:
    drain(tmp_path, timeout_seconds=0.0)
    with pytest.raises(Unavailable, match="stopping"), request_in_flight(tmp_path):
        pytest.fail("it was let in")


def test_a_folder_that_is_gone_is_a_stopped_server(tmp_path: Path) -> None:
    with (
        pytest.raises(Unavailable, match="stopping"),
        request_in_flight(tmp_path / "gone"),
    ):
        pytest.fail("it was let in")


def test_without_a_supervisor_nothing_is_held_back() -> None:
    with request_in_flight(None):
        pass
