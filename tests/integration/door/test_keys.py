"""Who may do what through a door with keys, by TLS."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from backtal.async_client import AsyncClient
from backtal.client import NO_RETRIES, Client
from backtal.detection import DetectionAnswer
from backtal.errors import Unavailable
from backtal.http_client import AsyncHttpClient, HttpClient
from backtal_serving.door.callers import sha256_of_key
from tests.integration.conftest import tensor
from tests.integration.door.conftest import Fronted, at_once, running
from tests.integration.tiny_repository import BUNDLE
from tests.integration.videos import moving_colours

pytestmark = pytest.mark.slow

KEYS = {name: f"key-of-{name}-0123456789" for name in ("ann", "bob", "slow", "one", "op")}


def write_keys(path: Path, **changes: dict[str, Any]) -> None:
    rights: dict[str, dict[str, Any]] = {
        "ann": {"roots": [str(path.parent / "ann")]},
        "bob": {"models": ["another"]},
        "slow": {"requests_per_second": 0.2},
        "one": {"at_once": 1},
        "op": {"role": "operator"},
        **changes,
    }
    entries = [
        {"name": name, "sha256": sha256_of_key(KEYS[name]), **right}
        for name, right in rights.items()
    ]
    path.write_text(yaml.safe_dump({"keys": entries}))


@pytest.fixture(scope="module")
def keyed(tiny_repository: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fronted]:
    folder = tmp_path_factory.mktemp("keyed")
    write_keys(folder / "keys.yaml")
    with running(tiny_repository[0], folder, keys_file=folder / "keys.yaml") as service:
        yield service


def ask(service: Fronted, name: str, path: str = "/v1/detect", **options: Any) -> httpx.Response:
    headers = {"authorization": f"Bearer {KEYS.get(name, name)}"} if name else {}
    method = "POST" if options else "GET"
    return httpx.request(
        method, service.http + path, headers=headers, timeout=60.0, trust_env=False, **options
    )


def test_no_key_and_a_wrong_one(keyed: Fronted) -> None:
    for name in ("", "wrong"):
        response = ask(keyed, name, content=b"x")
        assert (response.status_code, response.json()["code"]) == (401, "UNAUTHENTICATED")
        assert response.headers["www-authenticate"].startswith("Bearer")
    assert ask(keyed, "", "/v1/models").status_code == 401
    assert ask(keyed, "", "/readyz").status_code == 200


def test_grpc_takes_the_same_keys(keyed: Fronted, video: bytes) -> None:
    from tritonclient.grpc import InferenceServerClient
    from tritonclient.utils import InferenceServerException

    with InferenceServerClient(keyed.grpc) as client:
        inputs = [tensor("video", video)]
        headers = {"authorization": f"Bearer {KEYS['ann']}"}
        assert client.infer(BUNDLE, inputs, headers=headers).as_numpy("duration") == [12.0]
        for given, code in (
            ({}, "UNAUTHENTICATED"),
            ({"authorization": "Bearer x"}, "UNAUTHENTICATED"),
        ):
            with pytest.raises(InferenceServerException) as caught:
                client.infer(BUNDLE, inputs, headers=given)
            assert caught.value.status() == f"StatusCode.{code}"
        headers = {"authorization": f"Bearer {KEYS['bob']}"}
        with pytest.raises(InferenceServerException) as caught:
            client.infer(BUNDLE, inputs, headers=headers)
        assert caught.value.status() == "StatusCode.PERMISSION_DENIED"


def test_a_keys_models_and_roots(keyed: Fronted, video: bytes) -> None:
    assert ask(keyed, "bob", f"/v1/detect?bundle={BUNDLE}", content=video).status_code == 403
    assert ask(keyed, "bob", "/v1/models").json() == {"models": []}
    own, common = keyed.root.parent / "ann" / "a.mp4", keyed.root / "b.mp4"
    own.parent.mkdir(exist_ok=True)
    for path in (own, common):
        path.write_bytes(video)
    statuses = {
        (name, path.name): ask(keyed, name, json={"uri": path.as_uri()}).status_code
        for name in ("ann", "op")
        for path in (own, common)
    }
    assert statuses == {
        ("ann", "a.mp4"): 200,
        ("ann", "b.mp4"): 403,
        ("op", "a.mp4"): 403,
        ("op", "b.mp4"): 200,
    }


def test_quotas_are_the_keys_own(keyed: Fronted, video: bytes) -> None:
    assert ask(keyed, "slow", content=video).status_code == 200
    second = ask(keyed, "slow", content=video)
    assert (second.status_code, second.json()["code"]) == (429, "RESOURCE_EXHAUSTED")
    assert 1 <= int(second.headers["retry-after"]) <= 5
    long_video = moving_colours(40.0)
    responses = at_once(3, lambda _: ask(keyed, "one", content=long_video).status_code)
    assert sorted(responses) == [200, 429, 429]


def test_another_keys_job_does_not_exist(keyed: Fronted, video: bytes) -> None:
    location = ask(keyed, "ann", "/v1/jobs", content=video).headers["location"]
    assert ask(keyed, "op", location).status_code == 404
    assert ask(keyed, "op", f"{location}/events").status_code == 404
    assert ask(keyed, "ann", location).status_code == 200


def test_keys_change_without_a_restart_and_are_not_logged(keyed: Fronted) -> None:
    path = keyed.root.parent / "keys.yaml"
    write_keys(path, ann={"models": []})
    deadline = time.monotonic() + 10.0
    while ask(keyed, "ann", "/v1/models").json() != {"models": []}:
        assert time.monotonic() < deadline, "the keys were not read again"
        time.sleep(0.1)
    path.write_text("keys: [")
    time.sleep(1.5)
    assert ask(keyed, "ann", "/v1/models").status_code == 200
    write_keys(path)
    log = keyed.log_file.read_text()
    assert "the keys stay as they were" in log
    for key in KEYS.values():
        assert key not in log
        assert sha256_of_key(key) not in log


def test_tls_and_mutual_tls(tiny_repository: Any, tmp_path: Path) -> None:
    import grpc
    import trustme
    from tritonclient.grpc import InferenceServerClient

    authority = trustme.CA()
    server, own = authority.issue_cert("127.0.0.1"), authority.issue_cert("caller@example.org")
    files = {name: tmp_path / name for name in ("ca.pem", "cert.pem", "key.pem", "own.pem")}
    authority.cert_pem.write_to_path(str(files["ca.pem"]))
    server.cert_chain_pems[0].write_to_path(str(files["cert.pem"]))
    server.private_key_pem.write_to_path(str(files["key.pem"]))
    own.private_key_and_cert_chain_pem.write_to_path(str(files["own.pem"]))
    tls = {
        "certificate": files["cert.pem"],
        "private_key": files["key.pem"],
        "client_ca": files["ca.pem"],
    }
    with running(tiny_repository[0], tmp_path, tls=tls) as service:
        address = service.http.replace("http:", "https:")
        context = ssl.create_default_context(cafile=str(files["ca.pem"]))
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{address}/healthz", verify=context, trust_env=False)
        context.load_cert_chain(files["own.pem"])
        assert httpx.get(f"{address}/healthz", verify=context, trust_env=False).status_code == 200
        credentials = grpc.ssl_channel_credentials(
            files["ca.pem"].read_bytes(),
            own.private_key_pem.bytes(),
            own.cert_chain_pems[0].bytes(),
        )
        with InferenceServerClient(service.grpc, ssl=True, creds=credentials) as client:
            assert client.is_server_ready()
        with (
            InferenceServerClient(
                service.grpc, ssl=True, root_certificates=str(files["ca.pem"])
            ) as stranger,
            pytest.raises(Exception, match="UNAVAILABLE"),
        ):
            stranger.is_server_live(client_timeout=5.0)


def test_our_clients_by_tls_with_a_key(tiny_repository: Any, tmp_path: Path, video: bytes) -> None:
    import trustme

    authority = trustme.CA()
    server = authority.issue_cert("127.0.0.1")
    files = {name: tmp_path / name for name in ("ca.pem", "cert.pem", "key.pem")}
    authority.cert_pem.write_to_path(str(files["ca.pem"]))
    server.cert_chain_pems[0].write_to_path(str(files["cert.pem"]))
    server.private_key_pem.write_to_path(str(files["key.pem"]))
    write_keys(tmp_path / "keys.yaml")
    path = tmp_path / "my.mp4"
    path.write_bytes(video)
    trusting = {"key": KEYS["op"], "root_certificates": str(files["ca.pem"])}

    async def ask(service: Fronted, url: str) -> list[DetectionAnswer]:
        async with (
            AsyncClient(service.grpc, ssl=True, **trusting) as by_grpc,
            AsyncHttpClient(url, **trusting) as by_http,
        ):
            return [await by_grpc.detect(video=video), await by_http.detect(path)]

    tls = {"certificate": files["cert.pem"], "private_key": files["key.pem"]}
    keys = tmp_path / "keys.yaml"
    with running(tiny_repository[0], tmp_path, tls=tls, keys_file=keys) as service:
        url = service.http.replace("http:", "https:")
        with (
            Client(service.grpc, ssl=True, **trusting) as by_grpc,
            HttpClient(url, **trusting) as by_http,
        ):
            answers = [by_grpc.detect(video=video), by_http.detect(path)]
        answers += asyncio.run(ask(service, url))
        with (
            HttpClient(url, key=KEYS["op"], retries=NO_RETRIES) as stranger,
            pytest.raises(Unavailable, match=r"(?i)certificate"),
        ):
            stranger.detect(path)
    assert {answer.segments for answer in answers} == {answers[0].segments} != {()}


def test_without_keys_the_door_is_for_loopback_only(tmp_path: Path) -> None:
    from backtal.errors import InvalidFile
    from backtal.settings import parse
    from backtal_serving.door.settings import DoorSettings

    raw = {"host": "0.0.0.0", "triton_address": "unix:/x", "folder": str(tmp_path)}
    with pytest.raises(InvalidFile, match="without a file of keys"):
        parse(DoorSettings, raw, source="test")
