"""A server starts, says why where it cannot, and leaves nothing behind."""

from __future__ import annotations

import ipaddress
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from backtal.errors import NotFound, Unavailable
from backtal.manifest import Manifest
from backtal_serving.ports import free_port
from backtal_serving.server import SHARED_MEMORY, TritonServer
from backtal_serving.server_options import ServerOptions
from backtal_serving.settings import ServingSettings
from tests.integration.conftest import PATIENCE_SECONDS, tensor, wait_until_in_flight
from tests.integration.tiny_repository import BUNDLE
from tests.integration.videos import moving_colours
from tests.requirements import require

pytestmark = pytest.mark.slow

STARTUP_SECONDS = 60.0

TinyRepository = tuple[Path, Manifest]


def test_a_server_stops_with_0_and_leaves_nothing(tiny_repository: TinyRepository) -> None:
    server = TritonServer(ServerOptions(repository=tiny_repository[0]))
    with server:
        process_id = server.process_id
        assert process_id is not None
        prefix = server.shared_memory_prefix
        folder = server.log_file.parent
        assert len(_group(process_id)) > 1
        assert list(SHARED_MEMORY.glob(f"{prefix}*"))
        assert _listening(process_id) == {("127.0.0.1", server.grpc_port)}
    assert server.exit_code == 0
    assert _group(process_id) == []
    assert not list(SHARED_MEMORY.glob(f"{prefix}*"))
    assert not folder.exists()


def test_requests_in_flight_are_answered_before_the_end(
    tiny_repository: TinyRepository, triton: None
) -> None:
    from tritonclient.grpc import InferenceServerClient

    video = moving_colours(20.0)
    answered: list[Any] = []
    ended = threading.Event()

    def finish(result: Any, error: Any) -> None:
        answered.append(error or result)
        ended.set()

    options = ServerOptions(repository=tiny_repository[0], exit_timeout_seconds=60)
    with TritonServer(options) as server, InferenceServerClient(server.grpc_address) as client:
        client.async_infer(BUNDLE, [tensor("video", video)], callback=finish)
        assert server.process_id is not None
        wait_until_in_flight(server.process_id)
        assert not ended.is_set()
        assert server.stop() == 0
        assert ended.wait(5.0)
    assert answered[0].as_numpy("duration").tolist() == [20.0]


def test_a_request_that_triton_itself_cuts_short_is_told_so(
    tiny_repository: TinyRepository, triton: None
) -> None:
    from tritonclient.grpc import InferenceServerClient

    answered: list[Any] = []
    ended = threading.Event()

    def finish(result: Any, error: Any) -> None:
        answered.append(error)
        ended.set()

    inputs = [tensor("video", moving_colours(60.0))]
    options = ServerOptions(repository=tiny_repository[0])
    with TritonServer(options) as server, InferenceServerClient(server.grpc_address) as client:
        client.async_infer(BUNDLE, inputs, callback=finish)
        assert server.process_id is not None
        wait_until_in_flight(server.process_id)
        os.kill(server.process_id, signal.SIGTERM)
        assert server.wait(30.0) == 0
        assert ended.wait(5.0)
    assert answered[0].message() == "[UNAVAILABLE;reason=SERVICE_BUSY] the service is stopping"
    assert answered[0].status() == "StatusCode.UNAVAILABLE"


@pytest.mark.long
def test_a_stop_on_a_starved_machine_is_clean_too(tiny_repository: TinyRepository) -> None:
    """Its processes share one core with four that go first: they get a hundredth of it."""
    options = ServerOptions(repository=tiny_repository[0], exit_timeout_seconds=20)
    core = min(os.sched_getaffinity(0))
    busy = ["import os", f"os.sched_setaffinity(0, {{{core}}})", "while True: pass"]
    with TritonServer(options) as server:
        assert server.process_id is not None
        for member in _group(server.process_id):
            for thread in Path(f"/proc/{member}/task").iterdir():
                os.sched_setaffinity(int(thread.name), {core})
                os.setpriority(os.PRIO_PROCESS, int(thread.name), 15)
        others = [subprocess.Popen([sys.executable, "-c", "\n".join(busy)]) for _ in range(4)]
        try:
            assert server.stop() == 0
        finally:
            for other in others:
                other.kill()
                other.wait()


def test_a_killed_server_leaves_no_child_and_no_memory(tiny_repository: TinyRepository) -> None:
    server = TritonServer(ServerOptions(repository=tiny_repository[0]))
    with server:
        process_id = server.process_id
        assert process_id is not None
        os.kill(process_id, signal.SIGKILL)
        assert server.wait(10.0) == -signal.SIGKILL
    assert server.exit_code == -signal.SIGKILL
    assert _gone(process_id)
    assert not list(SHARED_MEMORY.glob(f"{server.shared_memory_prefix}*"))


def test_a_model_that_does_not_load_is_told_with_the_log(
    tiny_repository: TinyRepository, tmp_path: Path
) -> None:
    folder, manifest = tiny_repository
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    (broken / manifest.cas.model / "1" / "model.onnx").write_bytes(b"no network")
    server = TritonServer(ServerOptions(repository=broken))
    with pytest.raises(Unavailable) as caught:
        server.start()
    assert "ended at start with exit code 1" in caught.value.message
    assert f"failed to load '{manifest.cas.model}'" in caught.value.message
    assert server.process_id is None


def test_a_start_that_takes_too_long_is_given_up(tiny_repository: TinyRepository) -> None:
    options = ServerOptions(
        repository=tiny_repository[0], startup_timeout_seconds=0.05, exit_timeout_seconds=1
    )
    server = TritonServer(options)
    with pytest.raises(Unavailable, match=r"not ready after 0\.05 s"):
        server.start()
    assert not list(SHARED_MEMORY.glob(f"{server.shared_memory_prefix}*"))


def test_a_taken_port_is_told(tiny_repository: TinyRepository) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        server = TritonServer(ServerOptions(repository=tiny_repository[0], grpc_port=port))
        with pytest.raises(Unavailable, match=str(port)):
            server.start()


def test_a_missing_repository_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="nowhere"):
        ServerOptions(repository=tmp_path / "nowhere")


def test_http_is_on_loopback_where_it_is_asked_for(tiny_repository: TinyRepository) -> None:
    port = free_port()
    options = ServerOptions(repository=tiny_repository[0], http_port=port)
    with TritonServer(options) as server:
        assert server.process_id is not None
        assert _listening(server.process_id) == {
            ("127.0.0.1", server.grpc_port),
            ("127.0.0.1", port),
        }


def test_the_command_serves_until_it_is_told_to_stop(
    tiny_repository: TinyRepository, tmp_path: Path
) -> None:
    ready_file, log_file = tmp_path / "ready.json", tmp_path / "triton.log"
    arguments = ["--repository", str(tiny_repository[0]), "--grpc-port", "0"]
    arguments += ["--allow-root", str(tmp_path), "--ready-file", str(ready_file)]
    process = subprocess.Popen(
        [sys.executable, "-m", "backtal.cli", "serve", *arguments, "--log-file", str(log_file)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        record = _wait_for_record(ready_file, process)
        (tmp_path / "video.mp4").write_bytes(moving_colours(2.0))
        assert _ask(record["grpc_address"], (tmp_path / "video.mp4").as_uri()) == 2.0
        process.terminate()
        printed, _ = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0
    assert record["grpc_address"] in printed
    assert not ready_file.exists()
    assert log_file.stat().st_size > 0


@pytest.mark.long
def test_the_command_works_as_the_first_process_of_a_container(
    tiny_repository: TinyRepository, tmp_path: Path
) -> None:
    unshare = shutil.which("unshare")
    if unshare is None or os.getuid() != 0:
        require("unshare", "a process namespace of its own takes unshare, and root")
    ready_file = tmp_path / "ready.json"
    command = [sys.executable, "-m", "backtal.cli", "serve", "--grpc-port", "0"]
    command += ["--repository", str(tiny_repository[0]), "--ready-file", str(ready_file)]
    outer = subprocess.Popen([unshare, "--pid", "--fork", "--mount-proc", *command])
    try:
        record = _wait_for_record(ready_file, outer)
        assert record["pid"] == 1
        (first,) = map(
            int, Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split()
        )
        children = Path(f"/proc/{first}/task/{first}/children")
        own = children.read_text()
        # What is left behind becomes a child of the first process, which is to bury it.
        orphan = "/bin/sleep 0 & /bin/sleep 0.1 & exit"
        subprocess.run(["nsenter", "-t", str(first), "-p", "sh", "-c", orphan], check=True)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while children.read_text() != own:
            assert time.monotonic() < deadline, "an orphan was not buried"
            time.sleep(0.05)
        os.kill(first, signal.SIGTERM)
        assert outer.wait(40.0) == 0
    finally:
        outer.kill()
        outer.wait()


def test_a_server_goes_with_the_process_that_started_it(
    tiny_repository: TinyRepository, tmp_path: Path
) -> None:
    ready_file = tmp_path / "ready"
    code = (
        "import sys, time, pathlib\n"
        "from backtal_serving.embedded import EmbeddedServer\n"
        "server = EmbeddedServer(pathlib.Path(sys.argv[1]))\n"
        "server.start()\n"
        "pathlib.Path(sys.argv[2]).write_text(f'{{\"pid\": {server.process_id}}}')\n"
        "time.sleep(600)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tiny_repository[0]), str(ready_file)],
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    try:
        triton_id = _wait_for_record(ready_file, process)["pid"]
    finally:
        process.kill()
        process.wait()
    deadline = time.monotonic() + 20.0
    while not _gone(triton_id):
        assert time.monotonic() < deadline, "Triton outlived the process that started it"
        time.sleep(0.1)


def test_settings_reach_the_models(tiny_repository: TinyRepository, tmp_path: Path) -> None:
    from tritonclient.utils import InferenceServerException

    limits = {"video": {"max_duration_seconds": 1.0}}
    settings = ServingSettings.model_validate({"allowed_roots": [tmp_path], "limits": limits})
    (tmp_path / "video.mp4").write_bytes(moving_colours(2.0))
    options = ServerOptions(repository=tiny_repository[0], settings=settings)
    with (
        TritonServer(options) as server,
        pytest.raises(InferenceServerException, match="allowed are up to 1 s"),
    ):
        _ask(server.grpc_address, (tmp_path / "video.mp4").as_uri())


def _ask(address: str, uri: str) -> float:
    from tritonclient.grpc import InferenceServerClient

    with InferenceServerClient(address) as client:
        result = client.infer(BUNDLE, [tensor("uri", uri)])
        return float(result.as_numpy("duration")[0])


def _wait_for_record(path: Path, process: subprocess.Popen[Any]) -> dict[str, Any]:
    deadline = time.monotonic() + STARTUP_SECONDS
    while not (path.exists() and path.stat().st_size):
        assert process.poll() is None, "the server ended at start"
        assert time.monotonic() < deadline, "the server was not ready in time"
        time.sleep(0.05)
    record: dict[str, Any] = json.loads(path.read_text())
    return record


def _group(process_id: int) -> list[int]:
    """The living processes of the group that `process_id` leads."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[2]) == process_id and fields[0] != "Z":
            found.append(int(entry.name))
    return found


def _gone(process_id: int) -> bool:
    return not _group(process_id)


def _listening(process_id: int) -> set[tuple[str, int]]:
    """The addresses that a process and its group listen on by TCP."""
    inodes = set()
    for member in _group(process_id):
        for descriptor in Path(f"/proc/{member}/fd").iterdir():
            target = str(descriptor.readlink())
            if target.startswith("socket:["):
                inodes.add(target[len("socket:[") : -1])
    addresses = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{process_id}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                address, port = fields[1].split(":")
                addresses.add((_readable(address), int(port, 16)))
    return addresses


def _readable(address: str) -> str:
    """An address of /proc/net/tcp or tcp6: words of four bytes, each in the machine's order."""
    words = (bytes.fromhex(address[start : start + 8]) for start in range(0, len(address), 8))
    parsed = ipaddress.ip_address(b"".join(word[::-1] for word in words))
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return str(mapped or parsed)
