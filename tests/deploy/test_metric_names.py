"""What dashboards, rules and the scaler ask for is in the lists of those who count."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from backtal_indexing.metrics import MetricsSettings, RunMetrics
from backtal_indexing.run import RunState
from backtal_serving.metrics.definitions import DOOR, PIPELINE, SUPERVISOR, Metric
from tests.deploy.tools import DEPLOY

SUFFIXES = ("_bucket", "_sum", "_count")
FILES = (
    *sorted((DEPLOY / "grafana" / "dashboards").glob("*.json")),
    *sorted((DEPLOY / "prometheus" / "rules").glob("*.yaml")),
    *sorted((DEPLOY / "prometheus" / "tests").glob("*.yaml")),
    DEPLOY / "kubernetes" / "scaling" / "scaled-object.yaml",
)
ASKED = re.compile(r"\b(backtal_\w+)(?=[{\[\") ]|$)(?:{([^}]*)})?", re.M)
MATCHED = re.compile(r"(\w+)\s*(?:=~|!=|!~|=)")
# Added by the scrape.
FROM_OUTSIDE = {"cluster", "instance", "job", "le"}


def of_the_service() -> dict[str, set[str]]:
    """Names and labels."""
    metrics: tuple[Metric, ...] = (*DOOR, *PIPELINE, *SUPERVISOR)
    return {metric.name: set(metric.labels) for metric in metrics}


def of_index_runs() -> dict[str, set[str]]:
    """Names and labels, from what a run leaves for a node exporter."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "run.prom"
        with RunMetrics("films", MetricsSettings(textfile=file)) as metrics:
            metrics.update(RunState(0, 0))
        families = list(text_string_to_metric_families(file.read_text()))
    return {sample.name: set(sample.labels) for family in families for sample in family.samples}


KNOWN = of_the_service() | of_index_runs()


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_names_and_labels_are_known(path: Path) -> None:
    asked = ASKED.findall(path.read_text().replace('\\"', '"'))
    assert asked or path.name in ("burn.yaml", "backtal-machine.json")
    for name, matchers in asked:
        base = next((name.removesuffix(s) for s in SUFFIXES if name.endswith(s)), name)
        metric = name if name in KNOWN else base
        assert metric in KNOWN, name
        used = {label for label in MATCHED.findall(matchers) if label}
        assert used <= KNOWN[metric] | FROM_OUTSIDE, f"{name}{{{matchers}}}"
