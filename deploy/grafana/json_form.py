"""A board as Grafana's JSON (its classic schema, which every version since 10 reads)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from deploy.grafana.board import GRID_WIDTH, Board, Panel, Query, Row, Variable
from deploy.runbook import section_url

SCHEMA_VERSION = 41
TAG = "backtal"
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
ALL = {"text": ["All"], "value": ["$__all"]}


def dashboard(board: Board) -> dict[str, Any]:
    """The whole document, ready to be provisioned or imported."""
    return {
        "uid": board.uid,
        "title": board.title,
        "description": board.description,
        "tags": [TAG],
        "schemaVersion": SCHEMA_VERSION,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "timezone": "browser",
        "links": [_other_boards()],
        "annotations": {"list": [_restarts()]},
        "templating": {"list": [_datasource(), *map(_variable, board.variables)]},
        "panels": list(_placed(board.rows)),
    }


def _placed(rows: tuple[Row, ...]) -> Iterator[dict[str, Any]]:
    """Rows and their panels, from left to right and top to bottom."""
    top, number = 0, 0
    for row in rows:
        number += 1
        yield _row(row.title, number, top)
        top += 1
        left, height = 0, 0
        for panel in row.panels:
            if left + panel.width > GRID_WIDTH:
                top, left, height = top + height, 0, 0
            number += 1
            position = {"x": left, "y": top, "w": panel.width, "h": panel.height}
            yield _panel(panel, number, position)
            left, height = left + panel.width, max(height, panel.height)
        top += height


def _row(title: str, number: int, top: int) -> dict[str, Any]:
    position = {"x": 0, "y": top, "w": GRID_WIDTH, "h": 1}
    return {
        "id": number,
        "type": "row",
        "title": title,
        "collapsed": False,
        "gridPos": position,
        "panels": [],
    }


def _panel(panel: Panel, number: int, position: dict[str, int]) -> dict[str, Any]:
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": DATASOURCE,
        "gridPos": position,
        "links": [_link("Runbook", section_url(panel.runbook))],
        "targets": [_target(panel, query, place) for place, query in enumerate(panel.queries)],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": _options(panel),
        **({"transformations": [_without_time()]} if panel.kind == "table" else {}),
    }


def _target(panel: Panel, query: Query, place: int) -> dict[str, Any]:
    return {
        "refId": chr(ord("A") + place),
        "datasource": DATASOURCE,
        "editorMode": "code",
        "expr": query.expression,
        "legendFormat": query.legend or "__auto",
        "instant": panel.instant,
        "range": not panel.instant,
        "format": "table" if panel.kind == "table" else "time_series",
    }


def _defaults(panel: Panel) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    steps += [{"color": step.color, "value": step.value} for step in panel.steps]
    defaults: dict[str, Any] = {
        "unit": panel.unit,
        "color": {"mode": "thresholds" if panel.steps else "palette-classic"},
        "thresholds": {"mode": "absolute", "steps": steps},
    }
    if panel.minimum is not None:
        defaults["min"] = panel.minimum
    if panel.maximum is not None:
        defaults["max"] = panel.maximum
    if panel.kind == "timeseries":
        defaults["color"] = {"mode": "palette-classic"}
        defaults["custom"] = {
            "drawStyle": "line",
            "lineWidth": 1,
            "fillOpacity": 30 if panel.stacked else 5,
            "showPoints": "never",
            "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
            "thresholdsStyle": {"mode": "line" if panel.steps else "off"},
        }
    return defaults


def _options(panel: Panel) -> dict[str, Any]:
    reduced = {"calcs": ["lastNotNull"], "fields": "", "values": False}
    legend = {"calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": True}
    if panel.kind == "timeseries":
        return {
            "legend": {**legend, "calcs": ["mean", "max"], "displayMode": "table"},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    if panel.kind == "stat":
        return {
            "reduceOptions": reduced,
            "orientation": "auto",
            "colorMode": "value",
            "graphMode": "area",
            "justifyMode": "auto",
            "textMode": "auto",
            "wideLayout": True,
            "showPercentChange": False,
            "percentChangeColorMode": "standard",
        }
    if panel.kind == "bargauge":
        return {
            "reduceOptions": reduced,
            "orientation": "horizontal",
            "displayMode": "basic",
            "valueMode": "color",
            "namePlacement": "left",
            "sizing": "auto",
            "showUnfilled": True,
            "minVizHeight": 16,
            "minVizWidth": 8,
            "maxVizHeight": 24,
            "legend": {**legend, "showLegend": False},
        }
    return {"showHeader": True, "frameIndex": 0, "cellHeight": "sm"}


def _without_time() -> dict[str, Any]:
    hidden = {"Time": True, "Value": True, "__name__": True, "job": True}
    return {"id": "organize", "options": {"excludeByName": hidden}}


def _link(title: str, url: str) -> dict[str, Any]:
    return {
        "title": title,
        "url": url,
        "type": "link",
        "icon": "doc",
        "tooltip": "",
        "tags": [],
        "asDropdown": False,
        "includeVars": False,
        "keepTime": False,
        "targetBlank": True,
    }


def _other_boards() -> dict[str, Any]:
    link = _link("backtal", "")
    return {
        **link,
        "type": "dashboards",
        "icon": "external link",
        "tags": [TAG],
        "includeVars": True,
        "keepTime": True,
        "targetBlank": False,
    }


def _restarts() -> dict[str, Any]:
    restarts = 'changes(backtal_children_restarted_total{cluster=~"$cluster"}[1m]) > 0'
    return {
        "name": "A child was started again",
        "datasource": DATASOURCE,
        "enable": True,
        "iconColor": "red",
        # Grafana's type knows targets of its own database only.
        "expr": restarts,
        "titleFormat": "{{child}}",
    }


def _datasource() -> dict[str, Any]:
    return {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
    }


def _variable(variable: Variable) -> dict[str, Any]:
    chosen = "" if variable.name == "cluster" else '{cluster=~"$cluster"}'
    query = f"label_values({variable.metric}{chosen}, {variable.name})"
    return {
        "name": variable.name,
        "label": variable.label,
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": query, "refId": "StandardVariableQuery"},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": ALL,
    }
