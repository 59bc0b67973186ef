"""The service's figures against what its clients saw, and against the list of metrics."""

from __future__ import annotations

import os
import queue
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from backtal_serving.door.callers import sha256_of_key
from backtal_serving.metrics.definitions import DOOR, PIPELINE, SUPERVISOR
from tests.integration.conftest import outputs, tensor, wait_until_in_flight
from tests.integration.door.conftest import at_once
from tests.integration.door.serving import PATIENCE_SECONDS, Service, serving
from tests.integration.tiny_repository import BUNDLE
from tests.integration.videos import moving_colours

pytestmark = pytest.mark.slow

Seen = Counter[tuple[str, str, str]]
KEYS: dict[str, dict[str, Any]] = {"ann": {}, "slow": {"requests_per_second": 0.001}}
LONG_SECONDS = 120.0


@pytest.fixture(scope="module")
def service(tiny_repository: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("serving")
    entries = [{"name": name, "sha256": sha256_of_key(name), **own} for name, own in KEYS.items()]
    (folder / "keys.yaml").write_text(yaml.safe_dump({"keys": entries}))
    settings = {"limits": {"requests": {"at_once": 1, "queued": 3}}}
    keys = ("--keys", str(folder / "keys.yaml"))
    with serving(tiny_repository[0], folder, *keys, settings=settings) as started:
        yield started


class Callers:
    """Clients of one service that remember what they saw: code, entry and bundle."""

    def __init__(self, service: Service) -> None:
        from tritonclient.grpc import InferenceServerClient

        self.seen: Seen = Counter()
        self._service = service
        self.client = InferenceServerClient(service.grpc)

    def post(
        self, path: str = "/v1/detect", *, key: str = "ann", bundle: str = BUNDLE, **options: Any
    ) -> str:
        headers = {"authorization": f"Bearer {key}"}
        response = httpx.post(
            self._service.http + path, headers=headers, trust_env=False, timeout=60.0, **options
        )
        code = "OK" if response.is_success else response.json()["code"]
        self.seen[code, "http", bundle] += 1
        return code

    def ask(self, inputs: list[Any], model: str = BUNDLE, *, bundle: str = BUNDLE) -> str:
        from tritonclient.grpc import InferenceServerException

        code = "OK"
        try:
            self.client.infer(model, inputs, outputs=outputs("scores"), headers=self.headers())
        except InferenceServerException as error:
            code = str(error.status()).removeprefix("StatusCode.")
        self.seen[code, "grpc", bundle] += 1
        return code

    def begin(self, video: bytes) -> tuple[Any, queue.Queue[Any]]:
        """A call that is under way, and where its end will be told."""
        ended: queue.Queue[Any] = queue.Queue()
        call = self.client.async_infer(
            BUNDLE,
            [tensor("video", video)],
            lambda result, error: ended.put(error),
            outputs=outputs("scores"),
            headers=self.headers(),
        )
        wait_until_in_flight(self._service.triton)
        return call, ended

    def headers(self) -> dict[str, str]:
        return {"authorization": "Bearer ann"}


def counted(service: Service) -> Seen:
    """What the door counted, once nothing is inside any more."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while service.value("backtal_requests_in_flight"):
        assert time.monotonic() < deadline, "a request does not end"
        time.sleep(0.05)
    return Counter(
        {
            (sample.labels["code"], sample.labels["entry"], sample.labels["bundle"]): int(
                sample.value
            )
            for sample in service.metrics()
            if sample.name == "backtal_requests_total"
        }
    )


def test_the_counters_are_what_clients_saw(service: Service, feature_inputs: list[Any]) -> None:
    callers = Callers(service)
    video, short_video, long_video = map(moving_colours, (2.0, 10.0, LONG_SECONDS))
    # Good ones.
    assert [callers.post(content=video) for _ in range(3)] == ["OK"] * 3
    assert [callers.ask(feature_inputs) for _ in range(4)] == ["OK"] * 4
    run_job(service, video)
    callers.seen["OK", "job", BUNDLE] += 1
    # Bad input, in the form and in the content, and callers that may not.
    callers.post(content=b"no video")
    callers.post(content=b"")
    callers.ask([tensor("video", b"no video")])
    callers.ask([*feature_inputs, tensor("video", video)])
    callers.post(params={"nms": 7}, content=video, bundle="")
    callers.post(content=video, key="nobody", bundle="")
    callers.ask(feature_inputs, model="nothing", bundle="")
    # One key's own quota.
    slow = [callers.post(content=video, key="slow", bundle="") for _ in range(3)]
    assert slow == ["OK", "RESOURCE_EXHAUSTED", "RESOURCE_EXHAUSTED"]
    callers.seen["OK", "http", ""] -= 1
    callers.seen["OK", "http", BUNDLE] += 1
    # More than the service can take.
    flood = at_once(12, lambda _: callers.post(content=short_video))
    assert {"OK", "UNAVAILABLE"} == set(flood)
    # Given up while they run.
    for _ in range(2):
        call, ended = callers.begin(long_video)
        call.cancel()
        assert "CANCELLED" in str(ended.get(timeout=PATIENCE_SECONDS).status())
        callers.seen["CANCELLED", "grpc", BUNDLE] += 1
        counted(service)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{service.http}/v1/detect",
            content=long_video,
            headers=callers.headers(),
            timeout=httpx.Timeout(PATIENCE_SECONDS, read=0.3),
            trust_env=False,
        )
    callers.seen["CANCELLED", "http", BUNDLE] += 1
    assert counted(service) == +callers.seen
    # The bundle's process dies under one.
    _, ended = callers.begin(long_video)
    os.kill(service.stub_of(BUNDLE), signal.SIGKILL)
    error = ended.get(timeout=PATIENCE_SECONDS)
    assert error.status() == f"StatusCode.{grpc.StatusCode.UNAVAILABLE.name}"
    callers.seen["UNAVAILABLE", "grpc", BUNDLE] += 1
    deadline = time.monotonic() + PATIENCE_SECONDS
    while callers.ask(feature_inputs) != "OK":
        assert time.monotonic() < deadline
        time.sleep(0.1)

    # Meanwhile the bundle may have been none that the door knows, which its callers cannot tell.
    assert without_bundle(counted(service)) == without_bundle(+callers.seen)
    assert_stages_add_up(service, callers.seen)


def without_bundle(seen: Seen) -> Counter[tuple[str, str]]:
    sums: Counter[tuple[str, str]] = Counter()
    for (code, entry, _), number in seen.items():
        sums[code, entry] += number
    return sums


def run_job(service: Service, video: bytes) -> None:
    with httpx.Client(
        base_url=service.http, headers={"authorization": "Bearer ann"}, trust_env=False
    ) as http:
        location = http.post("/v1/jobs", content=video).raise_for_status().headers["location"]
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (state := http.get(location).json()["state"]) != "succeeded":
            assert state in ("queued", "running")
            assert time.monotonic() < deadline
            time.sleep(0.05)


def assert_stages_add_up(service: Service, seen: Seen) -> None:
    """The pipeline counted the same answers, those before its process died too, and no canary."""
    answered = sum(number for (code, _, _), number in seen.items() if code == "OK")
    features = seen["OK", "grpc", BUNDLE]
    assert service.value("backtal_inputs_total") == answered
    assert service.value("backtal_inputs_total", codec="features") == features
    assert service.value("backtal_input_seconds_count") == answered
    for stage, number in (
        ("decode", answered - features),
        ("rgb", answered - features),
        ("cas", answered),
        ("localize", answered),
        ("total", answered),
    ):
        assert service.value("backtal_stage_seconds_count", stage=stage) == number
    assert service.value("backtal_stage_seconds_count", stage="flow") == 0
    assert service.value("backtal_decode_failures_total", reason="unreadable") == 2
    assert service.value("backtal_decode_failures_total") == 2
    assert service.value("backtal_children_restarted_total", child="model") == 1
    assert service.value("backtal_children_restarted_total", child="triton") == 0
    # No count of dead decoders: the process that died took that of the runs given up along.

    # The first canary is five seconds after the start: a fast machine is here before.
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not service.value("backtal_canary_seconds_count", bundle=BUNDLE):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    jobs = service.value("backtal_jobs", state="succeeded")
    assert jobs == 1


def test_it_tells_every_metric_of_the_list_and_no_other(service: Service) -> None:
    assert Callers(service).post(content=moving_colours(1.0)) == "OK"
    text = httpx.get(f"{service.http}/metrics", trust_env=False, timeout=30.0).text
    families = {family.name: family for family in text_string_to_metric_families(text)}
    listed = {
        metric.name.removesuffix("_total"): metric for metric in (*DOOR, *PIPELINE, *SUPERVISOR)
    }
    ours = {name for name in families if not name.startswith("nv_")}
    assert ours == set(listed)
    for name in ours:
        family, metric = families[name], listed[name]
        assert (family.type, family.documentation) == (metric.kind, metric.help)
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(metric.labels)
    assert {"nv_inference_count", "nv_inference_exec_count"} <= {
        name for name in families if name.startswith("nv_")
    }


def test_a_decoder_that_dies_is_counted(service: Service) -> None:
    callers = Callers(service)
    before = service.value("backtal_children_restarted_total", child="decoder")
    _, ended = callers.begin(moving_colours(60.0))
    stub = service.stub_of(BUNDLE)
    decoders = decoders_of(stub)
    for decoder in decoders:
        with suppress(ProcessLookupError):
            os.kill(decoder, signal.SIGKILL)
    assert ended.get(timeout=PATIENCE_SECONDS) is None
    assert service.value("backtal_children_restarted_total", child="decoder") > before


def test_a_killed_door_begins_anew_and_is_counted(
    service: Service, feature_inputs: list[Any]
) -> None:
    assert Callers(service).ask(feature_inputs) == "OK"
    answered = service.value("backtal_inputs_total")
    (door,) = [
        child
        for child in children_of(service.process_id)
        if b"backtal_serving.door.main" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]
    os.kill(door, signal.SIGKILL)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not doors_restarted(service):
        assert time.monotonic() < deadline, "the door is not back"
        time.sleep(0.05)
    assert doors_restarted(service) == 1
    assert service.value("backtal_requests_total") == 0
    assert service.value("backtal_inputs_total") == answered > 0


@pytest.mark.long
def test_a_killed_triton_is_counted(service: Service) -> None:
    before = len(service.events("ready"))
    os.kill(service.triton, signal.SIGKILL)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while len(service.events("ready")) == before:
        assert time.monotonic() < deadline, "Triton is not back"
        time.sleep(0.05)
    assert service.value("backtal_children_restarted_total", child="triton") == 1
    assert service.value("backtal_metrics_source_up", source="triton") == 1


def doors_restarted(service: Service) -> float:
    with suppress(httpx.TransportError):
        return service.value("backtal_children_restarted_total", child="door")
    return 0.0


def decoders_of(stub: int) -> list[int]:
    """The children of a model's zygote."""
    zygotes = children_of(stub)
    return [child for zygote in zygotes for child in children_of(zygote)]


def children_of(process_id: int) -> list[int]:
    tasks = Path(f"/proc/{process_id}/task").iterdir()
    return [int(word) for task in tasks for word in (task / "children").read_text().split()]
