"""Every overlay renders, is of the schemas of its kinds, and gives no container privilege."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from backtal.settings import read_json
from backtal_serving.commands import serve
from backtal_serving.door.settings import DoorSettings
from backtal_serving.settings import SETTINGS_VARIABLE, ServingSettings
from tests.deploy.tools import CHECKS, DEPLOY, assert_succeeds, node_modules, program, run
from tests.deploy.typescript import type_errors
from tests.requirements import require

KUBERNETES = DEPLOY / "kubernetes"
OVERLAYS = ("cpu", "gpu", "kserve")
VERSION = "1.33"
# The first whose kustomize has `labels` and `replacements`.
OLDEST_KUBECTL = 26
OTHERS_KINDS = ("ScaledObject", "PodMonitor", "PrometheusRule")
Resource = dict[str, Any]


@pytest.fixture(scope="module")
def rendered() -> dict[str, list[Resource]]:
    """The resources of each overlay."""
    kubectl = program("kubectl", "kubectl", "make system")
    said = json.loads(assert_succeeds([kubectl, "version", "--client", "-o", "json"]))
    minor = int(re.sub(r"\D", "", said["clientVersion"]["minor"]))
    if minor < OLDEST_KUBECTL:
        require("kubectl", f"kubectl is 1.{minor}, these overlays need 1.{OLDEST_KUBECTL}")
    return {
        overlay: list(
            yaml.safe_load_all(
                assert_succeeds([kubectl, "kustomize", KUBERNETES / "overlays" / overlay])
            )
        )
        for overlay in OVERLAYS
    }


@pytest.fixture(params=OVERLAYS)
def resources(request: pytest.FixtureRequest, rendered: dict[str, list[Resource]]) -> Any:
    return rendered[request.param]


def of_kind(resources: list[Resource], kind: str) -> list[Resource]:
    return [resource for resource in resources if resource["kind"] == kind]


def pod_specs(resources: list[Resource]) -> Iterator[Resource]:
    for resource in resources:
        if resource["kind"] == "InferenceService":
            yield resource["spec"]["predictor"]
        elif resource["kind"] == "Deployment":
            yield resource["spec"]["template"]["spec"]


def containers(resources: list[Resource]) -> list[Resource]:
    return [
        container
        for spec in pod_specs(resources)
        for container in (*spec["containers"], *spec.get("initContainers", ()))
    ]


def validate(resource: Resource) -> None:
    import kubernetes_validate

    kubernetes_validate.validate(resource, VERSION, strict=True)


def test_kubernetes_own_kinds_are_of_its_schemas(resources: list[Resource]) -> None:
    own = [r for r in resources if r["kind"] not in (*OTHERS_KINDS, "InferenceService")]
    assert {"NetworkPolicy", "PodDisruptionBudget", "Service"} <= {r["kind"] for r in own}
    for resource in own:
        validate(resource)


def test_a_misspelt_key_is_found(resources: list[Resource]) -> None:
    import kubernetes_validate

    (policy,) = of_kind(resources, "NetworkPolicy")
    with pytest.raises(kubernetes_validate.ValidationError):
        validate({**policy, "spec": {**policy["spec"], "egres": []}})


def test_the_pod_of_an_inference_service_is_one(rendered: dict[str, list[Resource]]) -> None:
    # KServe's own fields of a predictor beside the pod's; there is no schema of it on npm or PyPI.
    (service,) = of_kind(rendered["kserve"], "InferenceService")
    assert set(service) == {"apiVersion", "kind", "metadata", "spec"}
    assert set(service["spec"]) == {"predictor"}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}}
    validate({**pod, "spec": service["spec"]["predictor"]})
    assert service["spec"]["predictor"]["containers"][0]["name"] == "kserve-container"
    assert of_kind(rendered["kserve"], "Deployment") == []


def test_others_kinds_are_of_their_schemas(
    rendered: dict[str, list[Resource]], tmp_path: Path
) -> None:
    node_modules()
    others: list[Resource] = []
    for resources in rendered.values():
        assert {r["kind"] for r in resources} >= set(OTHERS_KINDS)
        others += [r for r in resources if r["kind"] in OTHERS_KINDS and r not in others]
    done = run(["node", CHECKS / "validate.mjs"], input=json.dumps(others))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("valid: ") == len(others)
    assert type_errors([(r["kind"], r) for r in others], tmp_path) == ""


def test_mistakes_in_others_kinds_are_found(
    rendered: dict[str, list[Resource]], tmp_path: Path
) -> None:
    node_modules()
    (scaler,) = of_kind(rendered["cpu"], "ScaledObject")
    unknown = {**scaler, "spec": {**scaler["spec"], "minReplicas": 2}}
    assert "minReplicas" in type_errors([("ScaledObject", unknown)], tmp_path)
    wrong = {**scaler, "spec": {**scaler["spec"], "maxReplicaCount": "many"}}
    done = run(["node", CHECKS / "validate.mjs"], input=json.dumps([wrong]))
    assert done.returncode != 0
    assert "maxReplicaCount" in done.stderr


def test_no_container_has_privilege(resources: list[Resource]) -> None:
    for spec in pod_specs(resources):
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        assert all("hostPath" not in volume for volume in spec["volumes"])
    for container in containers(resources):
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert "memory" in container["resources"]["limits"]


def test_what_is_mounted_is_a_volume_and_shared_memory_is_memory(
    resources: list[Resource],
) -> None:
    for spec in pod_specs(resources):
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        mounted = {
            mount["mountPath"]: mount["name"]
            for container in spec["containers"]
            for mount in container["volumeMounts"]
        }
        assert set(mounted.values()) == set(volumes)
        assert volumes[mounted["/dev/shm"]]["emptyDir"]["medium"] == "Memory"


def test_the_network_policy_and_the_budget_choose_the_pods(resources: list[Resource]) -> None:
    chosen = {"app.kubernetes.io/name": "backtal"}
    (policy,) = of_kind(resources, "NetworkPolicy")
    assert policy["spec"]["podSelector"]["matchLabels"] == chosen
    (budget,) = of_kind(resources, "PodDisruptionBudget")
    assert budget["spec"]["selector"]["matchLabels"] == chosen
    monitors = of_kind(resources, "PodMonitor")
    assert chosen in [monitor["spec"]["selector"]["matchLabels"] for monitor in monitors]
    made = of_kind(resources, "InferenceService")
    made += [d["spec"]["template"] for d in of_kind(resources, "Deployment")]
    for pods in made:
        assert chosen.items() <= pods["metadata"]["labels"].items()


def test_no_secret_is_in_the_tree_and_those_that_are_needed_are_told(
    resources: list[Resource],
) -> None:
    assert of_kind(resources, "Secret") == []
    text = yaml.safe_dump_all(resources)
    page = (DEPLOY.parent / "docs" / "deploying.md").read_text()
    for secret in set(re.findall(r"secretName: (\S+)", text)) | {"backtal-metrics-key"}:
        assert secret in text
        assert f"create secret generic {secret} " in page


def test_the_arguments_of_the_service_parse(rendered: dict[str, list[Resource]]) -> None:
    parser = argparse.ArgumentParser(exit_on_error=False)
    serve.configure(parser)
    for overlay in ("cpu", "kserve"):
        (spec,) = pod_specs(rendered[overlay])
        name, *words = spec["containers"][0]["args"]
        assert name == "serve"
        arguments = parser.parse_args(words)
        assert arguments.exit_timeout < spec["terminationGracePeriodSeconds"]


def test_the_door_of_the_gpu_form_takes_its_settings(rendered: dict[str, list[Resource]]) -> None:
    settings = read_json(DoorSettings, KUBERNETES / "overlays" / "gpu" / "door.json")
    (spec,) = pod_specs(rendered["gpu"])
    door, triton = spec["containers"]
    assert "backtal_serving.door.main" in door["command"]
    address, port = (
        next(word.split("=")[1] for word in triton["command"] if word.startswith(option))
        for option in ("--grpc-address", "--grpc-port")
    )
    assert settings.triton_address == f"{address}:{port}"
    (told,) = [v["value"] for v in triton["env"] if v["name"] == "BACKTAL_SETTINGS"]
    models = ServingSettings.from_environment({SETTINGS_VARIABLE: told})
    assert models.spool_folder == settings.spool_folder
    assert models.tracing == settings.tracing
    compile(triton["livenessProbe"]["exec"]["command"][-1], "probe", "exec")


def test_tritons_options_are_its_own(rendered: dict[str, list[Resource]]) -> None:
    from backtal.errors import MissingDependency
    from backtal_serving.launcher import find_installation

    try:
        triton = find_installation().tritonserver
    except MissingDependency as error:
        require("triton", error.message)
    (spec,) = pod_specs(rendered["gpu"])
    done = run([triton, "--help"])
    known = set(re.findall(r"--[a-z-]+", done.stdout + done.stderr))
    used = {word.split("=")[0] for word in spec["containers"][1]["command"][1:]}
    assert used <= known


def test_the_scaler_scales_what_is_there_by_metrics_of_ours(resources: list[Resource]) -> None:
    (scaler,) = of_kind(resources, "ScaledObject")
    target = scaler["spec"]["scaleTargetRef"]["name"]
    if deployments := of_kind(resources, "Deployment"):
        assert target == deployments[0]["metadata"]["name"]
    else:
        (service,) = of_kind(resources, "InferenceService")
        assert target == f"{service['metadata']['name']}-predictor"
    queries = [trigger["metadata"]["query"] for trigger in scaler["spec"]["triggers"]]
    assert any("backtal_requests_waiting" in query for query in queries)


def test_the_dashboards_are_config_maps(resources: list[Resource]) -> None:
    maps = [
        config
        for config in of_kind(resources, "ConfigMap")
        if config["metadata"].get("labels", {}).get("grafana_dashboard") == "1"
    ]
    texts = [text for config in maps for text in config["data"].values()]
    files = (DEPLOY / "grafana" / "dashboards").glob("*.json")
    assert sorted(texts) == sorted(path.read_text() for path in files)
