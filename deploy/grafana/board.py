"""What a dashboard is: rows of panels, each of which asks Prometheus something."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["timeseries", "stat", "bargauge", "table"]

GRID_WIDTH = 24
PANEL_HEIGHT = 8
STAT_HEIGHT = 4


@dataclass(frozen=True)
class Query:
    """One expression; `legend` names its series, with labels in double braces."""

    expression: str
    legend: str = ""


@dataclass(frozen=True)
class Step:
    """From `value` on a panel has `color`."""

    value: float
    color: Literal["green", "yellow", "red"]


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One question.

    description: what is seen and what is good, for whoever is called at night.
    unit: by Grafana's names. runbook: the anchor of a section of docs/runbook.md.
    width: of 24 columns. instant: only the newest value is asked for.
    """

    title: str
    description: str
    unit: str
    queries: tuple[Query, ...]
    runbook: str
    kind: Kind = "timeseries"
    width: int = 8
    stacked: bool = False
    minimum: float | None = None
    maximum: float | None = None
    steps: tuple[Step, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= self.width <= GRID_WIDTH:
            raise ValueError(f"panel {self.title!r} is {self.width} wide, allowed are 1 to 24")

    @property
    def instant(self) -> bool:
        """Whether only the newest value is shown."""
        return self.kind in ("bargauge", "table")

    @property
    def height(self) -> int:
        """In rows of the grid."""
        return STAT_HEIGHT if self.kind == "stat" else PANEL_HEIGHT


@dataclass(frozen=True)
class Row:
    """Panels that belong together; they flow from left to right."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Variable:
    """A choice at the top, of the values of a label of `metric`; all of them at first."""

    name: str
    label: str
    metric: str


@dataclass(frozen=True, kw_only=True)
class Board:
    """A dashboard; `uid` is its address and its file's name."""

    uid: str
    title: str
    description: str
    variables: tuple[Variable, ...]
    rows: tuple[Row, ...]

    @property
    def panels(self) -> tuple[Panel, ...]:
        """Those of all rows."""
        return tuple(panel for row in self.rows for panel in row.panels)
