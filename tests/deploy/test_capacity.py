"""docs/scaling.md says what benchmarks/capacity.py computes."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.requirements import PROJECT_ROOT

capacity: Any = importlib.import_module("benchmarks.capacity")
PAGE = (PROJECT_ROOT / "docs" / "scaling.md").read_text()


def test_the_page_has_the_tables() -> None:
    assert capacity.nodes_table() in PAGE
    assert capacity.inputs_table() in PAGE


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("cores_to_fill_an_h200_360", "{:.0f}"),
        ("cores_to_fill_an_h200_1080", "{:.0f}"),
        ("millions_of_videos", "{:.0f} million"),
        ("petabytes_1080", "{:.2f} PB"),
        ("billions_of_range_requests_360", "{:.1f} thousand million"),
        ("terabytes_of_features", "{:.0f} TB"),
        ("core_hours_of_a_second_head", "{:.0f} core-hours"),
        ("requests_a_second_within_a_week", "{:.1f} requests/s"),
        ("store_x_real_time_a_prefix_360", "{:,.0f} times real time"),
        ("clip_gigabytes_a_second_to_a_full_h200", "{:.0f} GB/s"),
    ],
)
def test_the_text_has_the_totals(name: str, form: str) -> None:
    assert form.format(capacity.totals()[name]) in PAGE


def test_every_figure_says_where_it_is_from() -> None:
    for figure in capacity.INPUTS:
        assert figure.where or figure.source in ("assumed", "by definition"), figure.what
        assert figure.value > 0


@given(st.floats(1e-4, 1.0), st.floats(1e-4, 1.0), st.booleans())
def test_stages_that_share_add_up_and_others_wait_for_the_slowest(
    decode: float, rgb: float, overlapped: bool
) -> None:
    node = capacity.Node("n", {"decode": decode, "rgb": rgb}, overlapped, 1.0)
    seconds = capacity.SERVED.value / node.real_time_factor
    assert seconds == pytest.approx(max(decode, rgb) if overlapped else decode + rgb)
    assert node.hours_for_a_million == pytest.approx(1e6 / node.real_time_factor)
    assert node.stage_seconds[node.limit] == max(decode, rgb)
