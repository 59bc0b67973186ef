from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtal import errors
from backtal.errors import (
    BacktalError,
    InvalidArgument,
    InvalidVideo,
    ServiceBusy,
    Unavailable,
    error_of,
    from_triton,
    from_wire,
    to_wire,
)

KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, BacktalError) and kind is not BacktalError
]


@pytest.mark.parametrize("kind", KINDS)
@given(text=st.text())
def test_an_error_survives_the_wire(kind: type[BacktalError], text: str) -> None:
    back = from_wire(to_wire(kind(text)))
    assert back is not None
    assert back.message == str(back) == text
    assert (back.grpc_code, back.http_status) == (kind.grpc_code, kind.http_status)
    assert type(back) is kind
    assert back.retry_after_seconds is None


@given(st.floats(0, 1e4).map(lambda seconds: round(seconds, 2)))
def test_when_to_retry_survives_the_wire(seconds: float) -> None:
    back = from_wire(to_wire(Unavailable("full", retry_after_seconds=seconds)))
    assert isinstance(back, Unavailable)
    assert back.retry_after_seconds == pytest.approx(seconds, rel=1e-5)


def test_the_kind_is_in_a_code_and_a_reason() -> None:
    busy = error_of("UNAVAILABLE", "SERVICE_BUSY", "full", 1.5)
    assert type(busy) is ServiceBusy
    assert (busy.reason, busy.retry_after_seconds) == ("SERVICE_BUSY", 1.5)
    assert type(error_of("UNAVAILABLE", "A_NEWER_ONE", "x")) is Unavailable
    assert type(error_of("UNAVAILABLE", "INVALID_VIDEO", "x")) is Unavailable
    assert type(error_of("UNAVAILABLE", None, "x")) is Unavailable
    assert error_of("WHATEVER", "SERVICE_BUSY", "x") is None


@given(st.text(alphabet="[];=ABC_reasont. 1", max_size=40))
def test_a_message_that_looks_like_a_prefix_stays_a_message(text: str) -> None:
    back = from_wire(to_wire(ServiceBusy(text, retry_after_seconds=2.0)))
    assert type(back) is ServiceBusy
    assert back.message == text


def test_an_error_is_found_behind_what_triton_puts_before_it() -> None:
    text = "in ensemble 'x', Failed to process: " + to_wire(InvalidVideo("no video\nat all"))
    back = from_wire(text)
    assert back is not None
    assert back.message == "no video\nat all"
    assert back.grpc_code == "INVALID_ARGUMENT"


@pytest.mark.parametrize("text", ["", "boom", "[WHATEVER] x", "[INVALID_ARGUMENT]x", "[] x"])
def test_what_is_no_error_of_ours(text: str) -> None:
    assert from_wire(text) is None


@given(st.text(alphabet="[]INTERAL;=retry. 0123456789", max_size=40))
def test_any_text_can_be_looked_at(text: str) -> None:
    try:
        from_wire(text)
    except ValueError as error:
        pytest.fail(f"{text!r}: {error}")


def test_each_http_status_has_one_code() -> None:
    pairs = {(kind.grpc_code, kind.http_status) for kind in KINDS}
    assert len({code for code, _ in pairs}) == len({status for _, status in pairs}) == len(pairs)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("Exceeds maximum queue size", "full"),
        ("Server is stopping, scheduler for model has stopped", "stopping"),
        ("Request for unknown model: 'tiny' has no available versions", "started"),
        ("x: Stub process 'x_0_0' is not healthy.", "started"),
        ("Failed to increase the shared memory pool size for key 'k' to 1 bytes.", "uri"),
    ],
)
def test_what_triton_says_in_its_own_words_is_unavailable(text: str, says: str) -> None:
    error = from_triton(text)
    assert isinstance(error, Unavailable)
    assert says in error.message


def test_our_own_error_inside_triton_is_ours_and_other_text_is_nobodys() -> None:
    error = from_triton("tiny: [INVALID_ARGUMENT] Server is stopping is no video")
    assert isinstance(error, InvalidArgument)
    assert from_triton("division by zero") is None
