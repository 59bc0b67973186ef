"""What an index holds, and the drift between two bundles, held against plain loops."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from backtal import cli
from backtal.errors import InvalidArgument
from backtal_indexing.drift import drift
from backtal_indexing.layout import Index
from backtal_indexing.reading import open_tables
from backtal_indexing.score_distance import score_distance, wasserstein
from backtal_indexing.stats import segments_by_class, videos_by_status
from tests.made_index import append, new_index, row, segment

NEW = {"bundle_sha256": "f" * 64}


@pytest.fixture
def index(tmp_path: Path) -> Index:
    made = new_index(tmp_path / "index")
    append(
        made,
        [
            row("a", segment(0, 10, "run", 0.05), segment(20, 24, "run", 0.95)),
            row("b", segment(0, 2, "run", 1.0), segment(5, 6, "jump", 0.5), duration_seconds=7140),
            row("c", status="failed", duration_seconds=None),
        ],
    )
    return made


def test_hours_by_status_and_segments_by_class(index: Index) -> None:
    with open_tables(index) as tables:
        videos = videos_by_status(tables).to_pylist()
        run, jump = segments_by_class(tables).to_pylist()
        assert segments_by_class(tables, "none").num_rows == 0
    assert videos == [
        {"bundle": "tiny", "status": "done", "num_videos": 2, "hours": 2.0},
        {"bundle": "tiny", "status": "failed", "num_videos": 1, "hours": 0.0},
    ]
    assert (run["label"], run["num_segments"], run["num_videos"]) == ("run", 3, 2)
    assert (run["total_seconds"], run["median_seconds"]) == (16.0, 4.0)
    assert run["score_p50"] == pytest.approx(0.95)
    assert run["score_tenths"] == [1, *[0] * 8, 2]
    assert jump["score_tenths"][5] == 1


SCORES = arrays(float, st.integers(1, 30), elements=st.floats(0, 1, width=32))


UNIT = st.floats(0, 1)
EQUAL_SIZES = st.integers(1, 30).flatmap(
    lambda size: st.tuples(*[arrays(float, size, elements=UNIT)] * 2)
)


@given(EQUAL_SIZES)
def test_the_distance_of_equal_samples_is_the_mean_of_the_sorted_differences(pair) -> None:
    first, second = pair
    expected = np.abs(np.sort(first) - np.sort(second)).mean()
    assert wasserstein(first, second) == pytest.approx(expected, abs=1e-9)


@given(SCORES, SCORES)
def test_no_distance_is_negative_and_none_is_from_itself(first, second) -> None:
    there, back = score_distance(first, second), score_distance(second, first)
    assert there.wasserstein == pytest.approx(back.wasserstein, abs=1e-9)
    assert there.wasserstein >= abs(there.mean_shift) - 1e-9
    assert there.psi >= 0
    itself = score_distance(first, first)
    assert (itself.wasserstein, itself.psi, itself.mean_shift) == (0, 0, 0)


def test_chance_alone_gives_about_the_index_that_is_told() -> None:
    random = np.random.default_rng(0)
    pairs = [score_distance(random.random(200), random.random(300)) for _ in range(100)]
    measured = np.mean([one.psi for one in pairs])
    assert measured == pytest.approx(pairs[0].psi_by_chance, rel=0.15)
    moved = score_distance(random.random(200), random.random(300) ** 2)
    assert moved.psi > 3 * moved.psi_by_chance


def test_drift_is_of_the_videos_that_both_answered(index: Index) -> None:
    append(
        index,
        [
            row("a", segment(1, 10, "run", 0.15), segment(40, 44, "run", 0.5), bundle="other"),
            row("b", segment(5, 6, "swim", 0.5), bundle="other"),
            # Another content, and a video that only one has seen.
            row("d", segment(0, 1, "run"), bundle="other"),
        ],
    )
    append(index, [row("d", segment(0, 1, "run"), identity="2")])
    with open_tables(index) as tables:
        found = drift(tables, "tiny", "other")
        strict = drift(tables, "tiny", "other", tiou=0.95)
    run, jump, swim = found.classes
    assert found.num_videos == 2
    assert (run.num_reference, run.num_other, run.num_agreed) == (3, 2, 1)
    assert run.agreement == pytest.approx(2 / 5)
    assert run.mean_tiou == pytest.approx(0.9)
    assert run.scores is not None
    assert run.scores.mean_shift == pytest.approx((0.15 + 0.5) / 2 - 2 / 3)
    assert (jump.label, jump.num_other, jump.scores) == ("jump", 0, None)
    assert (swim.label, swim.num_reference, swim.agreement) == ("swim", 0, 0)
    assert strict.classes[0].num_agreed == 0


def test_two_versions_of_a_bundle_are_compared_by_their_hash(index: Index) -> None:
    append(index, [row("a", segment(0, 10, "run", 0.3), **NEW)])
    with open_tables(index) as tables:
        found = drift(tables, "tiny@000", "tiny@fff")
        assert (found.num_videos, found.classes[0].num_reference) == (1, 2)
        # Without a hash it is what counts now.
        assert drift(tables, "tiny", "tiny@fff").classes[0].num_reference == 1
        with pytest.raises(
            InvalidArgument, match="bundle 'tiny@abc'; known are 'tiny@000000000000', 'tiny@f{12}'"
        ):
            drift(tables, "tiny@abc", "tiny")
        with pytest.raises(InvalidArgument, match=r"a tIoU of 0; it must be in \(0, 1\]"):
            drift(tables, "tiny", "tiny", tiou=0)


BOUNDS = st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), min_size=1, max_size=5)


def agreed(first: list[tuple[int, int]], second: list[tuple[int, int]]) -> int:
    """Pairs that are each other's best; ties go to the earlier in the list."""

    def overlap(one: tuple[int, int], other: tuple[int, int]) -> float:
        shared = min(sum(one), sum(other)) - max(one[0], other[0])
        return max(0, shared) / (one[1] + other[1] - max(0, shared))

    table = [[overlap(one, other) for other in second] for one in first]
    pairs = 0
    for number, line in enumerate(table):
        best = line.index(max(line))
        column = [one[best] for one in table]
        pairs += line[best] >= 0.5 and column.index(max(column)) == number
    return pairs


@settings(max_examples=15)
@given(BOUNDS, BOUNDS)
def test_agreement_is_that_of_a_plain_loop(
    tmp_path_factory: pytest.TempPathFactory, first, second
) -> None:
    index = new_index(tmp_path_factory.mktemp("index"))
    append(index, [row("a", *(segment(at, at + length) for at, length in first))])
    other = (segment(at, at + length) for at, length in second)
    append(index, [row("a", *other, bundle="other")])
    with open_tables(index) as tables:
        (found,) = drift(tables, "tiny", "other").classes
    assert found.num_agreed == agreed(first, second)


def test_the_command_prints_tables_and_json(
    index: Index, capsys: pytest.CaptureFixture[str]
) -> None:
    append(index, [row("a", segment(0, 10, "run", 0.3), bundle="other")])
    words = ["index", "stats", index.url]
    assert cli.main(words) == 0
    shown = capsys.readouterr().out
    assert "2.0" in shown
    assert "jump" in shown
    assert cli.main([*words, "--bundle", "tiny", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [one["label"] for one in document["classes"]] == ["run", "jump"]
    assert cli.main([*words, "--drift", "tiny", "other"]) == 0
    assert "2 to 1" in capsys.readouterr().out
    assert cli.main([*words, "--drift", "tiny", "other", "--json"]) == 0
    (run,) = json.loads(capsys.readouterr().out)["classes"]
    assert run["agreement"] == pytest.approx(2 / 3)
    assert run["scores"]["psi_by_chance"] > 0
    assert cli.main([*words, "--drift", "tiny", "othr"]) == cli.EXIT_MENDABLE
    assert "did you mean 'other'" in capsys.readouterr().err
