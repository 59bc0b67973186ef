"""The examples of index runs: their pods are pods, their commands parse."""

from __future__ import annotations

import argparse
import shlex
from typing import Any

import kubernetes_validate
import yaml

from backtal.client_wire import KEY_VARIABLE
from backtal_indexing.commands import index
from tests.deploy.test_kubernetes import VERSION
from tests.deploy.tools import DEPLOY
from tests.requirements import PROJECT_ROOT

EXAMPLES = DEPLOY / "kubernetes" / "examples"


def load(name: str) -> dict[str, Any]:
    document = yaml.safe_load((EXAMPLES / name).read_text())
    assert isinstance(document, dict)
    return document


def assert_pod(template: dict[str, Any]) -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", **template["metadata"]}}
    kubernetes_validate.validate({**pod, "spec": template["spec"]}, VERSION, strict=True)
    assert template["metadata"]["labels"]["backtal/caller"] == "true"
    assert template["spec"]["securityContext"]["runAsNonRoot"] is True
    for container in template["spec"]["containers"]:
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["env"][0]["name"] == KEY_VARIABLE


def parsed(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(exit_on_error=False)
    index.configure(parser)
    return parser.parse_args(words)


def test_the_job() -> None:
    job = load("index-run.yaml")
    kubernetes_validate.validate(job, VERSION, strict=True)
    assert_pod(job["spec"]["template"])
    (container,) = job["spec"]["template"]["spec"]["containers"]
    command, *words = container["args"]
    assert command == "index"
    assert parsed(words).metrics_port == container["ports"][0]["containerPort"]


def test_the_run_on_ray() -> None:
    job = load("index-run-on-ray.yaml")
    backtal, command, *words = shlex.split(job["spec"]["entrypoint"])
    assert (backtal, command) == ("backtal", "index")
    assert parsed(words).engine == "ray"
    cluster = job["spec"]["rayClusterSpec"]
    assert_pod(cluster["headGroupSpec"]["template"])
    (workers,) = cluster["workerGroupSpecs"]
    assert_pod(workers["template"])
    constraints = (PROJECT_ROOT / "constraints.txt").read_text().splitlines()
    assert f"ray=={cluster['rayVersion']}" in constraints
