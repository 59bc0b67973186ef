"""Every alert fires when it must and is silent when not, by promtool; each has its section."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.runbook import RUNBOOK_URL
from deploy.write import BOARDS
from tests.deploy.tools import DEPLOY, assert_succeeds, program, run
from tests.requirements import PROJECT_ROOT

PROMETHEUS = DEPLOY / "prometheus"
RULE_FILES = sorted((PROMETHEUS / "rules").glob("*.yaml"))
TEST_FILES = sorted((PROMETHEUS / "tests").glob("*.yaml"))
RUNBOOK = (PROJECT_ROOT / "docs" / "runbook.md").read_text()


def alerts() -> list[dict[str, Any]]:
    groups = [group for path in RULE_FILES for group in yaml.safe_load(path.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"] if "alert" in rule]


def sections() -> dict[str, str]:
    """The runbook's sections, by their anchors."""
    parts = re.split(r"^## (.+)$", RUNBOOK, flags=re.M)[1:]
    titles, texts = parts[::2], parts[1::2]
    return {
        title.lower().replace(" ", "-"): text for title, text in zip(titles, texts, strict=True)
    }


@pytest.fixture(scope="module")
def promtool() -> str:
    return program("promtool", "prometheus", "make system")


@pytest.mark.parametrize("path", RULE_FILES, ids=lambda path: path.name)
def test_the_rules_parse(promtool: str, path: Path) -> None:
    assert_succeeds([promtool, "check", "rules", "--lint=all", "--lint-fatal", path])


@pytest.mark.parametrize("path", TEST_FILES, ids=lambda path: path.name)
def test_the_alerts_fire_when_they_must(promtool: str, path: Path) -> None:
    assert_succeeds([promtool, "test", "rules", path])


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
def test_an_alert_has_a_case_that_fires_and_one_that_does_not(alert: dict[str, Any]) -> None:
    cases = [
        case
        for path in TEST_FILES
        for test in yaml.safe_load(path.read_text())["tests"]
        for case in test["alert_rule_test"]
        if case["alertname"] == alert["alert"]
    ]
    assert any(case["exp_alerts"] for case in cases)
    assert any(not case["exp_alerts"] for case in cases)


def test_a_rule_that_is_wrong_fails_its_cases(promtool: str, tmp_path: Path) -> None:
    rules = (PROMETHEUS / "rules" / "service.yaml").read_text()
    wrong = rules.replace("backtal_spool_limit_bytes > 0.9", "backtal_spool_limit_bytes > 0.99")
    assert wrong != rules
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "service.yaml").write_text(wrong)
    (tmp_path / "tests").mkdir()
    cases = tmp_path / "tests" / "service.yaml"
    cases.write_text((PROMETHEUS / "tests" / "service.yaml").read_text())
    done = run([promtool, "test", "rules", cases])
    assert done.returncode == 1
    assert "BacktalSpoolFull" in done.stdout + done.stderr


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
def test_an_alert_links_to_the_section_that_names_it(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in ("page", "ticket")
    url, _, anchor = alert["annotations"]["runbook_url"].partition("#")
    assert url == RUNBOOK_URL
    assert f"`{alert['alert']}`" in sections()[anchor]


def test_the_runbook_names_no_alert_that_is_not_there() -> None:
    named = set(re.findall(r"`(Backtal\w+)`", RUNBOOK))
    assert named == {alert["alert"] for alert in alerts()}


@pytest.mark.parametrize("anchor", sections())
def test_a_section_says_how_to_see_it_what_it_means_and_what_to_do(anchor: str) -> None:
    for part in ("**See it.**", "**What it means.**", "**What to do.**"):
        assert part in sections()[anchor]


def test_panels_and_sections_link_to_sections() -> None:
    linked = {panel.runbook for board in BOARDS for panel in board.panels}
    linked |= set(re.findall(r"\]\(#([a-z-]+)\)", RUNBOOK))
    assert linked <= set(sections())


def test_the_panels_that_the_runbook_names_exist() -> None:
    titles = {panel.title for board in BOARDS for panel in board.panels}
    titles |= {board.title.removeprefix("backtal / ") for board in BOARDS}
    named = set()
    for text in sections().values():
        (seen,) = re.findall(r"\*\*See it\.\*\*(.+?)(?:\n\n|\Z)", text, re.S)
        named |= {" ".join(name.split()) for name in re.findall(r"\*([A-Z][^*]+)\*", seen)}
    # Pages of Prometheus itself.
    assert named - {"Status", "Targets"} <= titles


def test_prometheus_takes_its_configuration(promtool: str) -> None:
    config = PROMETHEUS / "prometheus.yml"
    assert_succeeds([promtool, "check", "config", "--syntax-only", config])


def test_alertmanager_takes_its_configuration() -> None:
    amtool = program("amtool", "alertmanager", "make system")
    config = PROMETHEUS / "alertmanager.yml"
    assert_succeeds([amtool, "check-config", config])
    for severity, receiver in (("page", "page"), ("ticket", "ticket")):
        words = ["config", "routes", "test", f"--config.file={config}", f"severity={severity}"]
        assert assert_succeeds([amtool, *words]).split() == [receiver]


def test_alerts_that_are_silenced_by_others_exist() -> None:
    config = yaml.safe_load((PROMETHEUS / "alertmanager.yml").read_text())
    named = re.findall(r"Backtal\w+", str(config["inhibit_rules"]))
    assert set(named) <= {alert["alert"] for alert in alerts()}
