"""Writes what is made from code or from another file here: `python -m deploy.write`.

The files are committed, so that nothing has to be run to deploy; a test holds them equal.
"""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from deploy.grafana.index_runs import INDEX_RUNS
from deploy.grafana.json_form import dashboard
from deploy.grafana.machine import MACHINE
from deploy.grafana.models import MODELS
from deploy.grafana.service import SERVICE

FOLDER = Path(__file__).parent
BOARDS = (SERVICE, MODELS, INDEX_RUNS, MACHINE)
RULES = FOLDER / "prometheus" / "rules"
RULE_LABELS = {"app.kubernetes.io/part-of": "backtal"}


def made_files() -> dict[Path, str]:
    """Each file that is made, and its text."""
    files = {
        FOLDER / "grafana" / "dashboards" / f"{board.uid}.json": _json(dashboard(board))
        for board in BOARDS
    }
    for rules in sorted(RULES.glob("*.yaml")):
        target = FOLDER / "kubernetes" / "monitoring" / f"rules-{rules.name}"
        files[target] = _prometheus_rule(rules)
    return files


def _prometheus_rule(rules: Path) -> str:
    """A file of Prometheus's rules as the operator's resource."""
    resource = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": f"backtal-{rules.stem}", "labels": RULE_LABELS},
        "spec": yaml.safe_load(rules.read_text()),
    }
    note = f"# Made from prometheus/rules/{rules.name}: python -m deploy.write\n---\n"
    return note + yaml.safe_dump(resource, sort_keys=False, width=100, allow_unicode=True)


def _json(document: object) -> str:
    return json.dumps(document, indent=2) + "\n"


def main() -> None:
    """Write them all."""
    for path, text in made_files().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


if __name__ == "__main__":
    main()
