"""Keeps a server answering: watches its models' processes and its answers, starts it anew.

Triton goes on saying that it is ready when a model's process is dead, and every request to that
model fails for ever. So the supervisor looks at the processes, a few times a second, and sends a
small request of its own now and then. A model whose process died is loaded again, where the server
has `model_control`. Else, and where that does not help, the server is killed as a whole and started
again on the same port, later and later.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from backtal.errors import BacktalError, Unavailable
from backtal_serving.canary import Canary
from backtal_serving.logs import log_event
from backtal_serving.metrics.supervision import SupervisionMetrics
from backtal_serving.processes import bury_orphans, stubs_of
from backtal_serving.server import TritonServer

POLL_SECONDS = 0.1


@dataclass(frozen=True, kw_only=True)
class SupervisorOptions:
    """How a server is watched.

    canary_seconds: between requests of our own. canary_timeout_seconds: for one of them.
    canary_failures: how many in a row mean that the server does not work.
    backoff_seconds: before the second start in a row; twice as long before each further one.
    max_reloads: of models in one server's life, before it is started again instead.
    healthy_seconds: of good answers, after which starts are counted anew.
    max_starts: in a row; then the supervisor gives up, for its own supervisor to see.
    """

    canary_seconds: float = 5.0
    canary_timeout_seconds: float = 5.0
    canary_failures: int = 2
    max_reloads: int = 3
    backoff_seconds: float = 1.0
    max_backoff_seconds: float = 30.0
    healthy_seconds: float = 60.0
    max_starts: int = 8


class Supervisor:
    """Watches a started `TritonServer`, from one thread, the one that started it."""

    def __init__(
        self,
        server: TritonServer,
        options: SupervisorOptions | None = None,
        *,
        metrics: SupervisionMetrics | None = None,
        on_ready: Callable[[], None] = lambda: None,
        on_down: Callable[[], None] = lambda: None,
    ) -> None:
        self._server = server
        self._options = options or SupervisorOptions()
        self._metrics = metrics or SupervisionMetrics()
        self._canary = Canary(
            server.options.repository, self._options.canary_timeout_seconds, self._metrics
        )
        self._on_ready = on_ready
        self._on_down = on_down

    def start(self) -> None:
        """Start the server. Raises what `TritonServer.start` raises: a first start must work."""
        log_event("starting", repository=self._server.options.repository)
        self._server.start()
        self._tell_ready()

    def watch(self) -> int:
        """Watch until the server cannot be kept up; the exit code. A signal interrupts this."""
        num_starts = 1
        while num_starts < self._options.max_starts:
            started = time.monotonic()
            problem = self._wait_for_problem()
            self._on_down()
            if time.monotonic() - started > self._options.healthy_seconds:
                num_starts = 0
            log_event("server_failed", "error", problem=problem, starts_in_a_row=num_starts)
            self._server.kill()
            bury_orphans(None)
            num_starts = self._start_again(num_starts)
        log_event("gave_up", "error", starts_in_a_row=num_starts)
        return 1

    def _start_again(self, num_starts: int) -> int:
        """Start until it works or was tried too often; the number of starts in a row."""
        options = self._options
        while num_starts < options.max_starts:
            # At once the first time, for whoever is waiting.
            delay = options.backoff_seconds * 2 ** (num_starts - 2) if num_starts > 1 else 0.0
            delay = min(delay, options.max_backoff_seconds)
            num_starts += 1
            log_event("starting_again", starts_in_a_row=num_starts, delay_seconds=delay)
            time.sleep(delay)
            try:
                self._server.start()
            except BacktalError as error:
                log_event("start_failed", "error", problem=error.message)
            else:
                self._metrics.child_restarted("triton")
                self._tell_ready()
                return num_starts
        return num_starts

    def _tell_ready(self) -> None:
        self._on_ready()
        self._metrics.started(self._server.triton_version(), self._canary.bundles)
        log_event(
            "ready",
            grpc_address=self._server.grpc_address,
            bundles=self._canary.bundles,
            triton_process_id=self._server.process_id,
        )

    def _wait_for_problem(self) -> str:
        """Watch one life of the server; what it ended by."""
        server, options = self._server, self._options
        triton = server.process_id
        assert triton is not None
        stubs = stubs_of(triton)
        num_reloads = num_failures = 0
        next_canary = time.monotonic() + options.canary_seconds
        while True:
            if (code := server.wait(POLL_SECONDS)) is not None:
                return f"Triton ended by itself with exit code {code}: {server.log_tail()}"
            bury_orphans(triton)
            alive = stubs_of(triton)
            if dead := stubs.keys() - alive.keys():
                models = sorted({stubs[process_id] for process_id in dead})
                num_reloads += len(models)
                if num_reloads > options.max_reloads or not self._reload(models):
                    return f"a process of {', '.join(models)} died"
                stubs = stubs_of(triton)
            if time.monotonic() < next_canary:
                continue
            problem = self._canary.problem(server.grpc_address)
            next_canary = time.monotonic() + options.canary_seconds
            num_failures = 0 if problem is None else num_failures + 1
            if problem is not None:
                log_event("canary_failed", "warning", problem=problem, in_a_row=num_failures)
                if num_failures >= options.canary_failures:
                    return problem
                next_canary = time.monotonic()

    def _reload(self, models: list[str]) -> bool:
        """Load models again whose processes died; whether that could be done."""
        if not self._server.options.model_control:
            return False
        for model in models:
            started = time.monotonic()
            log_event("model_failed", "error", model=model)
            try:
                self._server.reload(model)
            except Unavailable as error:
                log_event("reload_failed", "error", model=model, problem=error.message)
                return False
            self._metrics.child_restarted("model")
            log_event("model_reloaded", model=model, seconds=round(time.monotonic() - started, 2))
        return True
