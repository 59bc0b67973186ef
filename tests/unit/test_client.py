"""When a client tries again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from backtal.client import NO_RETRIES, RetryPolicy
from backtal.errors import DeadlineExceeded, InvalidArgument, ResourceExhausted, Unavailable


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
