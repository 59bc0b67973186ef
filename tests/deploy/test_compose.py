"""Compose takes its file, and what the file names is there."""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

import pytest
import yaml

from backtal.settings import read_yaml
from backtal_serving.commands import serve
from backtal_serving.door.settings import SettingsFile
from backtal_serving.settings import ServingSettings
from tests.deploy.tools import DEPLOY, assert_succeeds, program

COMPOSE = DEPLOY / "compose.yaml"


@pytest.fixture(scope="module")
def composed() -> dict[str, Any]:
    """The whole, as Compose understands it."""
    command = program("docker-compose", "compose", "pip install 'backtal[dev]'")
    words = ["-f", COMPOSE, "--profile", "gpu", "config", "--format", "json"]
    document = json.loads(assert_succeeds([command, *words]))
    assert isinstance(document, dict)
    return document


def test_it_has_the_service_and_what_watches_it(composed: dict[str, Any]) -> None:
    assert {"backtal", "prometheus", "alertmanager", "grafana", "otel-collector"} <= set(
        composed["services"]
    )


def test_the_command_of_the_service_parses(composed: dict[str, Any]) -> None:
    name, *words = composed["services"]["backtal"]["command"]
    assert name == "serve"
    parser = argparse.ArgumentParser(exit_on_error=False)
    serve.configure(parser)
    assert parser.parse_args(words).http_port == 8000


def test_nothing_is_privileged_and_only_loopback_is_opened(composed: dict[str, Any]) -> None:
    for name, service in composed["services"].items():
        assert not service.get("privileged"), name
        for port in service.get("ports", ()):
            assert port["host_ip"] == "127.0.0.1", name
        if name != "dcgm-exporter":
            assert service["read_only"], name
            assert service["cap_drop"] == ["ALL"], name


def test_what_is_mounted_from_here_is_here(composed: dict[str, Any]) -> None:
    for service in composed["services"].values():
        for volume in service.get("volumes", ()):
            if volume["type"] == "bind" and volume["source"].startswith(str(DEPLOY)):
                assert os.path.exists(volume["source"]), volume["source"]  # noqa: PTH110


def test_a_digest_pins_an_image() -> None:
    command = program("docker-compose", "compose", "pip install 'backtal[dev]'")
    digest = "@sha256:" + 64 * "a"
    words = [command, "-f", COMPOSE, "config", "--format", "json"]
    text = assert_succeeds(words, env={**os.environ, "PROMETHEUS_DIGEST": digest})
    assert json.loads(text)["services"]["prometheus"]["image"].endswith(digest)


def test_the_settings_are_the_services_own() -> None:
    serving = read_yaml(ServingSettings, DEPLOY / "settings" / "serving.yaml")
    assert serving.limits.requests.at_once == 2
    assert serving.tracing is not None
    collector = yaml.safe_load((DEPLOY / "otel-collector.yaml").read_text())
    port = collector["receivers"]["otlp"]["protocols"]["http"]["endpoint"].rpartition(":")[2]
    assert serving.tracing.endpoint == f"http://otel-collector:{port}/v1/traces"
    door = read_yaml(SettingsFile, DEPLOY / "settings" / "door.yaml")
    assert door.limits.spool_bytes == door.jobs.max_bytes


def test_prometheus_scrapes_the_services_by_their_names(composed: dict[str, Any]) -> None:
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    hosts = {
        target.split(":")[0]
        for scraped in config["scrape_configs"]
        for group in scraped["static_configs"]
        for target in group["targets"]
    }
    assert hosts - {"host.docker.internal"} <= set(composed["services"])
    assert {scraped["job_name"] for scraped in config["scrape_configs"]} >= {
        "backtal",
        "backtal-index",
    }
