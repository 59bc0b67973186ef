"""The dashboards are what their code says, lie in order, and are of Grafana's own types."""

from __future__ import annotations

import copy
import json
import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.grafana.board import GRID_WIDTH, Board, Panel, Query, Row
from deploy.grafana.json_form import dashboard
from deploy.write import BOARDS, made_files
from tests.deploy.tools import DEPLOY
from tests.deploy.typescript import type_errors

# Units of Grafana that the boards use: a misspelt one is shown as text behind the number.
UNITS = {
    "none",
    "s",
    "reqps",
    "percentunit",
    "percent",
    "bytes",
    "Bps",
    "watt",
    "celsius",
    "rotmhz",
}
ROWS = st.lists(st.lists(st.integers(1, GRID_WIDTH), max_size=9), max_size=4)


@pytest.mark.parametrize("path", made_files(), ids=lambda path: path.name)
def test_a_made_file_is_as_committed(path: Path) -> None:
    assert path.read_text() == made_files()[path], "run: python -m deploy.write"


def test_no_file_is_left_of_a_board_that_is_gone() -> None:
    committed = set((DEPLOY / "grafana" / "dashboards").glob("*.json"))
    assert committed == {path for path in made_files() if path.suffix == ".json"}


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_every_panel_says_what_it_shows(board: Board) -> None:
    for panel in board.panels:
        assert panel.unit in UNITS, panel.title
        assert panel.description.endswith("."), panel.title
        assert panel.queries, panel.title
    titles = [(row.title, panel.title) for row in board.rows for panel in row.panels]
    assert len(set(titles)) == len(titles)


def test_there_are_the_four_boards() -> None:
    assert [board.title for board in BOARDS] == [
        "backtal / Service",
        "backtal / Models",
        "backtal / Index runs",
        "backtal / Machine and GPU",
    ]
    for board in BOARDS:
        assert "cluster" in {variable.name for variable in board.variables}


def test_every_query_is_narrowed_by_the_variables_of_its_board() -> None:
    for board in BOARDS:
        names = {variable.name for variable in board.variables}
        for panel in board.panels:
            for query in panel.queries:
                used = set(string.Template(query.expression).get_identifiers())
                assert "cluster" in used, query.expression
                assert used <= names | {"__rate_interval", "__range"}, query.expression


def placed(rows: list[list[int]]) -> list[dict[str, int]]:
    board = Board(
        uid="b",
        title="b",
        description="b",
        variables=(),
        rows=tuple(
            Row(str(number), tuple(a_panel(width) for width in widths))
            for number, widths in enumerate(rows)
        ),
    )
    return [panel["gridPos"] for panel in dashboard(board)["panels"]]


def a_panel(width: int) -> Panel:
    return Panel(
        title="t",
        description="d.",
        unit="s",
        queries=(Query("up"),),
        runbook="gpu",
        width=width,
        kind="stat" if width < 5 else "timeseries",
    )


@given(ROWS)
def test_panels_do_not_overlap_and_stay_on_the_grid(rows: list[list[int]]) -> None:
    taken: set[tuple[int, int]] = set()
    for position in placed(rows):
        cells = {
            (x, y)
            for x in range(position["x"], position["x"] + position["w"])
            for y in range(position["y"], position["y"] + position["h"])
        }
        assert not cells & taken
        assert max(x for x, _ in cells) < GRID_WIDTH
        taken |= cells


def test_a_panel_that_is_too_wide_is_refused() -> None:
    with pytest.raises(ValueError, match="25 wide, allowed are 1 to 24"):
        a_panel(25)


def documents() -> list[tuple[str, Any]]:
    files = sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))
    return [("BoardFile", json.loads(path.read_text())) for path in files]


def test_the_boards_are_of_grafanas_types(tmp_path: Path) -> None:
    assert type_errors(documents(), tmp_path) == ""


def misspelt_kind(board: dict[str, Any]) -> None:
    board["panels"][1]["type"] = "stats"


def misspelt_key(board: dict[str, Any]) -> None:
    board["panels"][1]["fieldConfig"]["defaults"]["units"] = "s"


def misspelt_option(board: dict[str, Any]) -> None:
    board["panels"][1]["options"]["colourMode"] = "value"


def wrong_value(board: dict[str, Any]) -> None:
    board["panels"][1]["fieldConfig"]["defaults"]["thresholds"]["mode"] = "absolut"


def missing_title(board: dict[str, Any]) -> None:
    del board["title"]


MISTAKES = (misspelt_kind, misspelt_key, misspelt_option, wrong_value, missing_title)


def test_the_types_find_mistakes(tmp_path: Path) -> None:
    (kind, good), *_ = documents()
    planted = []
    for mistake in MISTAKES:
        bad = copy.deepcopy(good)
        mistake(bad)
        planted.append((kind, bad))
    said = type_errors(planted, tmp_path)
    assert said.count("error TS") >= len(MISTAKES), said
