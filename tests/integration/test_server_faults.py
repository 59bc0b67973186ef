"""A supervised server under load while parts of it are killed: who notices, and for how long."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from backtal.client import Client
from backtal.errors import BacktalError, Internal, Unavailable
from backtal.manifest import Manifest
from backtal_serving.processes import stubs_of
from backtal_serving.server import SHARED_MEMORY
from tests.integration.tiny_repository import BUNDLE
from tests.integration.videos import moving_colours
from tests.requirements import require

pytestmark = pytest.mark.slow

START_SECONDS = 60.0
RECOVERY_SECONDS = 10.0
NUM_CALLERS = 2


@dataclass
class Supervised:
    """A running `backtal serve`, its log and the address of its Triton."""

    process: subprocess.Popen[bytes]
    log: Path
    address: str

    def events(self, name: str) -> list[dict[str, Any]]:
        """Its events of one name, so far."""
        lines = self.log.read_text().splitlines()
        records = [json.loads(line) for line in lines if line.startswith("{")]
        return [record for record in records if record["event"] == name]

    @property
    def triton(self) -> int:
        """The process id of the Triton that it last told to be ready."""
        return int(self.events("ready")[-1]["triton_process_id"])


@dataclass
class Load:
    """Callers that ask without a pause; the answers' times, and the errors."""

    address: str
    video: bytes
    answers: list[float] = field(default_factory=list)
    errors: list[tuple[float, BacktalError]] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        with Client(self.address, timeout_seconds=20.0) as client:
            while not self.stopped.is_set():
                try:
                    assert client.detect(video=self.video, bundle=BUNDLE).duration_seconds == 2.0
                    self.answers.append(time.monotonic())
                except BacktalError as error:
                    self.errors.append((time.monotonic(), error))
                    time.sleep(0.05)

    def recovery_seconds(self, since: float) -> float:
        """From `since` to the last error's end: the next good answer."""
        deadline = time.monotonic() + 4 * RECOVERY_SECONDS
        while time.monotonic() < deadline:
            last = max((at for at, _ in self.errors), default=since)
            good = [at for at in self.answers if at > last]
            if len(good) >= 3 * NUM_CALLERS and time.monotonic() > since + 1.0:
                return good[0] - since
            time.sleep(0.05)
        raise AssertionError(f"no good answers again; errors: {self.errors[-3:]}")


@pytest.fixture(scope="module")
def supervised(
    tiny_repository: tuple[Path, Manifest], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Supervised]:
    """One for all tests: each leaves it at work, but for the last, which stops it."""
    folder = tmp_path_factory.mktemp("supervised")
    ready, log = folder / "ready.json", folder / "serve.log"
    command = [sys.executable, "-m", "backtal.cli", "serve", "--grpc-port", "0"]
    command += ["--repository", str(tiny_repository[0]), "--ready-file", str(ready)]
    command += ["--log-file", str(folder / "triton.log")]
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not ready.exists():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield Supervised(process, log, json.loads(ready.read_text())["grpc_address"])
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def load(supervised: Supervised) -> Iterator[Load]:
    running = Load(supervised.address, moving_colours(2.0))
    callers = [threading.Thread(target=running.run) for _ in range(NUM_CALLERS)]
    for caller in callers:
        caller.start()
    deadline = time.monotonic() + 20.0
    while len(running.answers) < 3:
        assert time.monotonic() < deadline, running.errors
        time.sleep(0.02)
    yield running
    running.stopped.set()
    for caller in callers:
        caller.join()


def test_a_killed_decoder_is_noticed_by_nobody(supervised: Supervised, load: Load) -> None:
    zygotes = [child for stub in stubs_of(supervised.triton) for child in _children(stub)]
    assert len(zygotes) == 4
    killed = 0
    while killed < 10:
        for zygote in zygotes:
            for decoder in _children(zygote):
                os.kill(decoder, signal.SIGKILL)
                killed += 1
        # A request may lose one child and be none the wiser; two are its error.
        _wait_for_answers(load)
    assert load.errors == []
    assert len(supervised.events("ready")) == 1


def test_a_killed_parent_of_decoders_is_noticed_by_nobody(
    supervised: Supervised, load: Load
) -> None:
    for stub in stubs_of(supervised.triton):
        for zygote in _children(stub):
            os.kill(zygote, signal.SIGKILL)
    _wait_for_answers(load)
    assert load.errors == []


@pytest.mark.parametrize(
    "which",
    [
        "a model's process",
        pytest.param("every model's process", marks=pytest.mark.long),
        "Triton",
    ],
)
def test_a_killed_part_is_mended_in_time(
    supervised: Supervised, load: Load, which: str, tell: Callable[[str], None]
) -> None:
    triton = supervised.triton
    stubs = sorted(stubs_of(triton))
    victims = {
        "a model's process": stubs[:1],
        "every model's process": stubs,
        "Triton": [triton],
    }[which]
    since = time.monotonic()
    for victim in victims:
        os.kill(victim, signal.SIGKILL)
    seconds = load.recovery_seconds(since)
    tell(f"{which}: good answers after {seconds:.1f} s, {len(load.errors)} errors")
    if which == "a model's process":
        # Behind the door it is loaded again, and Triton goes on.
        assert supervised.triton == triton
        assert supervised.events("model_reloaded")
        delay = 0.0
    else:
        assert supervised.triton != triton
        assert supervised.events("server_failed")
        delay = supervised.events("starting_again")[-1]["delay_seconds"]
    # What was in flight is lost, and says so; nothing is a wrong answer.
    kinds = {type(error).__name__: error for _, error in load.errors}
    assert all(isinstance(error, (Unavailable, Internal)) for error in kinds.values()), kinds
    assert seconds - delay < RECOVERY_SECONDS


@pytest.mark.long
def test_shared_memory_of_a_containers_default_size(
    tiny_repository: tuple[Path, Manifest], tmp_path: Path
) -> None:
    """64 MB: a message that does not fit is refused, what fits is answered, before and after."""
    unshare = shutil.which("unshare")
    if unshare is None or os.getuid() != 0:
        require("unshare", "a /dev/shm of its own takes unshare, and root")
    mount = 'mount -t tmpfs -o size=64m tmpfs /dev/shm && exec "$@"'
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from backtal.client import Client\n"
        "from backtal.errors import Unavailable\n"
        "from backtal_serving.embedded import EmbeddedServer\n"
        "video = Path(sys.argv[2]).read_bytes()\n"
        "with EmbeddedServer(Path(sys.argv[1])) as server, Client(server.grpc_address) as client:\n"
        "    for size in (0, 100_000_000, 0, 100_000_000, 0):\n"
        "        try:\n"
        "            answer = client.detect(video=bytes(size) if size else video, bundle='tiny')\n"
        "            print(answer.duration_seconds)\n"
        "        except Unavailable as error:\n"
        "            print(error.message)\n"
        "print(server.exit_code)\n"
    )
    (tmp_path / "video.mp4").write_bytes(moving_colours(2.0))
    command = [unshare, "-m", "sh", "-c", mount, "sh", sys.executable, "-c", code]
    command += [str(tiny_repository[0]), str(tmp_path / "video.mp4")]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    told = ["refused" if "no shared memory" in line else line for line in answer.stdout.split("\n")]
    assert told == ["2.0", "refused", "2.0", "refused", "2.0", "0", ""]


CONTROLLED = """
import signal
import sys
from pathlib import Path
from backtal_serving.server import TritonServer
from backtal_serving.server_options import ServerOptions
from backtal_serving.supervisor import Supervisor, SupervisorOptions

repository, log_file = map(Path, sys.argv[1:])
server = TritonServer(
    ServerOptions(repository=repository, log_file=log_file, model_control=True)
)
supervisor = Supervisor(server, SupervisorOptions(max_reloads=2))
signal.signal(signal.SIGTERM, signal.default_int_handler)
supervisor.start()
try:
    supervisor.watch()
finally:
    server.stop()
"""


def test_a_model_whose_process_died_is_loaded_again_and_triton_goes_on(
    tiny_repository: tuple[Path, Manifest], tmp_path: Path
) -> None:
    """Model control is for a Triton that nobody else reaches; here it is on for the test."""
    log = tmp_path / "serve.log"
    arguments = [str(tiny_repository[0]), str(tmp_path / "triton.log")]
    with log.open("wb") as file:
        process = subprocess.Popen([sys.executable, "-c", CONTROLLED, *arguments], stderr=file)
    controlled = Supervised(process, log, "")
    try:
        _wait_for(lambda: controlled.events("ready"))
        triton = controlled.triton
        with Client(controlled.events("ready")[0]["grpc_address"]) as client:
            for number in (1, 2):
                process_id, model = next(
                    (process_id, stub.model)
                    for process_id, stub in stubs_of(triton).items()
                    if stub.model.startswith("tiny-rgb" if number == 1 else "cas-")
                )
                since = time.monotonic()
                os.kill(process_id, signal.SIGKILL)
                _wait_for(lambda number=number: len(controlled.events("model_reloaded")) == number)
                assert controlled.events("model_reloaded")[-1]["model"] == model
                video = moving_colours(2.0)
                assert client.detect(video=video, bundle=BUNDLE).duration_seconds == 2.0
                print(f"{model} died: a good answer after {time.monotonic() - since:.1f} s")
                assert time.monotonic() - since < RECOVERY_SECONDS
            assert controlled.triton == triton
            # Enough of that: the whole is started again.
            os.kill(next(iter(stubs_of(triton))), signal.SIGKILL)
            _wait_for(lambda: len(controlled.events("ready")) == 2)
            assert controlled.triton != triton
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(60.0)
        process.kill()
        process.wait()


STARTS_ONCE = """
import os
import signal
import sys
import time
from pathlib import Path
from backtal.errors import Unavailable
from backtal_serving.processes import stubs_of
from backtal_serving.server import TritonServer
from backtal_serving.server_options import ServerOptions
from backtal_serving.supervisor import Supervisor, SupervisorOptions

class StartsOnce(TritonServer):
    was_started = False

    def start(self):
        if self.was_started:
            raise Unavailable("enough")
        self.was_started = True
        super().start()
        if when == "while it starts":
            kill_a_model()

    def reload(self, model):
        before = stubs_of(server.process_id)
        super().reload(model)
        kill_a_model(before)

def kill_a_model(before=()):
    victim = next(found for found in stubs_of(server.process_id) if found not in before)
    os.kill(victim, signal.SIGKILL)
    while victim in stubs_of(server.process_id):
        time.sleep(0.01)

when, repository, log_file = sys.argv[1:]
options = ServerOptions(
    repository=Path(repository),
    log_file=Path(log_file),
    model_control=when == "as soon as it is loaded again",
)
server = StartsOnce(options)
supervisor = Supervisor(server, SupervisorOptions(max_starts=2))
signal.signal(signal.SIGALRM, signal.default_int_handler)
signal.alarm(60)
try:
    supervisor.start()
    kill_a_model()
    supervisor.watch()
except Unavailable as error:
    print(error.message)
finally:
    server.stop()
"""


@pytest.mark.parametrize(
    ("when", "problem"),
    [
        ("while it starts", r"a process of \S+ ended while Triton started"),
        ("before the first look", r"a process of \S+ died"),
        ("as soon as it is loaded again", r"a process of \S+ died"),
    ],
)
def test_a_process_that_ends_early_is_missed(
    tiny_repository: tuple[Path, Manifest], tmp_path: Path, when: str, problem: str
) -> None:
    arguments = [when, str(tiny_repository[0]), str(tmp_path / "triton.log")]
    command = [sys.executable, "-c", STARTS_ONCE, *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    events = [json.loads(line) for line in ended.stderr.splitlines() if line[:1] == "{"]
    told = [event["problem"] for event in events if event["event"] == "server_failed"]
    assert re.fullmatch(problem, "".join([ended.stdout.strip(), *told]))


def test_a_stop_under_load_answers_what_is_in_flight_and_leaves_nothing(
    supervised: Supervised, load: Load
) -> None:
    process = supervised.process
    family = _descendants(process.pid)
    assert len(family) > 10
    since = time.monotonic()
    process.terminate()
    assert process.wait(40.0) == 0
    print(f"SIGTERM: ended after {time.monotonic() - since:.1f} s, {len(load.errors)} refused")
    load.stopped.set()
    assert [error for _, error in load.errors if not isinstance(error, Unavailable)] == []
    assert supervised.events("stopped")[0]["exit_code"] == 0
    assert not any(_is_alive(member) for member in family)
    assert not list(SHARED_MEMORY.glob(f"backtal-{process.pid}-*"))


def test_each_request_is_told_in_one_line(supervised: Supervised) -> None:
    log = supervised.log.with_name("triton.log").read_text()
    records = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    requests = [record for record in records if record["event"] == "request"]
    answered = [record for record in requests if record["outcome"] == "OK"]
    assert len({record["request_id"] for record in requests}) == len(requests)
    assert all(record["num_frames_decoded"] == 50 for record in answered)
    assert all(record["bundle"] == BUNDLE for record in requests)
    assert len(answered) > 10


def _wait_for_answers(load: Load) -> None:
    """Wait until what is in flight now has surely been answered."""
    num_enough = len(load.answers) + len(load.errors) + 4 * NUM_CALLERS
    _wait_for(lambda: len(load.answers) + len(load.errors) >= num_enough)


def _wait_for(what: Callable[[], object]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _children(process_id: int) -> list[int]:
    try:
        listed = Path(f"/proc/{process_id}/task/{process_id}/children").read_text()
    except FileNotFoundError:
        return []
    return [int(word) for word in listed.split()]


def _descendants(process_id: int) -> list[int]:
    children = _children(process_id)
    return [*children, *(member for child in children for member in _descendants(child))]


def _is_alive(process_id: int) -> bool:
    try:
        state = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"
