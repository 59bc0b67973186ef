"""When a client tries again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtal.errors import DeadlineExceeded, InvalidArgument, ResourceExhausted, Unavailable
from backtal.patience import LEAST_SECONDS, NO_RETRIES, Patience, RetryPolicy


def test_only_unavailable_is_retried() -> None:
    for error in (InvalidArgument("x"), ResourceExhausted("x"), DeadlineExceeded("x")):
        assert RetryPolicy().delay_seconds(error, 1, None) is None
    assert RetryPolicy().delay_seconds(Unavailable("x"), 1, None) is not None
    assert NO_RETRIES.delay_seconds(Unavailable("x"), 1, None) is None


@given(hint=st.floats(0.01, 20.0), num_tried=st.integers(1, 4))
def test_the_hint_is_the_least_and_a_little_more(hint: float, num_tried: int) -> None:
    error = Unavailable("full", retry_after_seconds=hint)
    delay = RetryPolicy(attempts=5).delay_seconds(error, num_tried, None)
    assert delay is not None
    assert hint <= delay <= 1.5 * hint


@given(num_tried=st.integers(1, 9))
def test_without_a_hint_the_wait_doubles(num_tried: int) -> None:
    policy = RetryPolicy(attempts=10, first_seconds=0.1, max_seconds=5.0)
    delay = policy.delay_seconds(Unavailable("x"), num_tried, None)
    expected = min(0.1 * 2 ** (num_tried - 1), 5.0)
    assert delay is not None
    assert expected <= delay <= 1.5 * expected


def test_a_wait_beyond_the_deadline_is_not_begun() -> None:
    error = Unavailable("full", retry_after_seconds=3.0)
    assert RetryPolicy().delay_seconds(error, 1, 2.9) is None
    assert RetryPolicy().delay_seconds(error, 1, 10.0) is not None


def test_patience_raises_what_it_gives_up_on() -> None:
    refused, wrong = Unavailable("full", retry_after_seconds=0.5), InvalidArgument("x")
    patience = Patience(RetryPolicy(attempts=2), None)
    assert patience.left_seconds is None
    assert 0.5 <= patience.delay_after(refused) <= 0.75
    with pytest.raises(Unavailable, match="full"):
        patience.delay_after(refused)
    with pytest.raises(InvalidArgument, match="x"):
        Patience(RetryPolicy(attempts=9), None).delay_after(wrong)


def test_patience_ends_with_its_timeout() -> None:
    patience = Patience(RetryPolicy(attempts=9), 0.3)
    left_seconds = patience.left_seconds
    assert left_seconds is not None
    assert 0.2 < left_seconds <= 0.3
    with pytest.raises(Unavailable):
        patience.delay_after(Unavailable("full", retry_after_seconds=0.5))
    assert Patience(RetryPolicy(), -1.0).left_seconds == LEAST_SECONDS
