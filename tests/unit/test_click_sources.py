from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtal.annotations import GroundTruth, Instance, VideoTruth
from backtal.clicks import Click, Clicks
from backtal.errors import InvalidArgument
from backtal_training.click_sources import (
    ClickSettings,
    agreement,
    background,
    fraction_inside,
    load_clicks,
    plant_inside,
    simulate,
    union,
)
from tests.requirements import shared_folder

ACTIONS = (Instance(10, 20, "jump"), Instance(15, 22, "jump"), Instance(60, 70, "run"))
TRUTH = GroundTruth({"a": VideoTruth("training", 100, None, ACTIONS)}, ("jump", "run"))


def clicks(*moments: float) -> Clicks:
    return Clicks({"a": tuple(Click.at(moment) for moment in moments)})


def moments(of: Clicks) -> list[float]:
    return [click.start_seconds for click in of.of("a")]


def test_union_and_agreement_of_annotators() -> None:
    three = [clicks(1, 30, 90), clicks(1.5, 50), clicks(2.4, 30.5)]
    assert moments(union(three)) == [1, 1.5, 2.4, 30, 30.5, 50, 90]
    assert moments(agreement(three, 2, 1.0)) == [1, 1.5, 2.4, 30, 30.5]
    assert moments(agreement(three, 3, 1.0)) == [1.5]


def test_background_is_what_no_action_covers() -> None:
    assert background(ACTIONS, 100) == [(0, 10), (22, 60), (70, 100)]
    assert background((), 5) == [(0, 5)]
    assert background((Instance(0, 5, "x"),), 5) == []


@given(seed=st.integers(0, 1000), interval=st.floats(1, 50))
def test_simulated_clicks_are_in_the_background_everywhere(seed: int, interval: float) -> None:
    simulated = simulate(TRUTH, interval, seed)
    assert simulated == simulate(TRUTH, interval, seed)
    assert fraction_inside(simulated, TRUTH) == 0
    for start, end in background(ACTIONS, 100):
        inside = [moment for moment in moments(simulated) if start <= moment <= end]
        assert len(inside) == max(1, int((end - start) / interval))


def test_planted_errors_are_inside_and_as_many_as_asked() -> None:
    before = clicks(*range(0, 10), *range(30, 40))
    after = plant_inside(before, TRUTH, 0.25, seed=1)
    assert after.num_clicks == before.num_clicks
    assert fraction_inside(after, TRUTH) == 0.25


def test_a_click_after_the_end_is_refused() -> None:
    settings = ClickSettings(source="published")
    from pathlib import Path

    with pytest.raises(InvalidArgument, match=r"a is clicked at 101\.0 s, but lasts 100"):
        load_clicks(settings, Path(), TRUTH, clicks(101.0))


def test_people_click_inside_actions_as_often_as_was_counted() -> None:
    folder = shared_folder() / "thumos14"
    truth = GroundTruth.load(folder / "gt_thumos14.json").subset("val")
    parts = []
    for name in ("A1", "A2", "A3"):
        path = folder / f"THUMOS14_Background-Click-Annotation_{name}.txt"
        settings = ClickSettings(source="files", files=(path,))
        parts.append(fraction_inside(load_clicks(settings, folder, truth, Clicks({})), truth))
    assert parts == pytest.approx([0.077, 0.022, 0.075], abs=0.001)
