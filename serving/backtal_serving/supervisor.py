"""Keeps a server answering: watches its models' processes and its answers, starts it anew.

Triton goes on saying that it is ready when a model's process is dead, and every request to that
model fails for ever. So the supervisor looks at the processes, a few times a second, and sends a
small request of its own now and then. A model whose process died is loaded again, where the server
has `model_control`. Else, and where that does not help, the server is killed as a whole and started
again on the same port, later and later.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Set
from dataclasses import dataclass

from backtal.errors import BacktalError, Unavailable
from backtal.repository import bundle_names, load_bundle
from backtal_serving.canary import Canary
from backtal_serving.logs import log_event
from backtal_serving.metrics.supervision import SupervisionMetrics
from backtal_serving.model_control import ModelControl
from backtal_serving.processes import Stub, bury_orphans, stubs_of
from backtal_serving.publications import Publications
from backtal_serving.server import TritonServer
from backtal_serving.triton_log import log_tail
from backtal_serving.watch import Watch

POLL_SECONDS = 0.1


@dataclass(frozen=True, kw_only=True)
class SupervisorOptions:
    """How a server is watched.

    canary_seconds: between requests of our own. canary_timeout_seconds: for one of them.
    refresh_seconds: between looks at the repository, for new versions.
    canary_failures: how many in a row mean that the server does not work.
    backoff_seconds: before the second start in a row; twice as long before each further one.
    max_reloads: of models in one server's life, before it is started again instead.
    healthy_seconds: of good answers, after which starts are counted anew.
    max_starts: in a row; then the supervisor gives up, for its own supervisor to see.
    """

    canary_seconds: float = 5.0
    canary_timeout_seconds: float = 5.0
    canary_failures: int = 2
    refresh_seconds: float = 1.0
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
    ) -> None:
        self._server = server
        self._options = options or SupervisorOptions()
        self._metrics = metrics or SupervisionMetrics()
        self._canary = Canary(self._options.canary_timeout_seconds, self._metrics)
        controlled, report_file = server.options.model_control, server.options.report_file
        self._publications = Publications(server, report_file) if controlled else None
        self._watch = Watch(self._is_served)

    def start(self) -> None:
        """Start the server. Raises what `TritonServer.start` raises: a first start must work."""
        log_event("starting", repository=self._server.options.repository)
        self._start()
        self._tell_ready()

    def _start(self) -> None:
        if self._publications is not None:
            self._publications.choose()
        self._server.start()
        try:
            if self._publications is not None:
                self._publications.settle()
            self._begin_watch()
        except BacktalError:
            self._server.kill()
            raise

    def _begin_watch(self) -> None:
        """Know the models' processes before anybody is told that the server is ready.

        Raises Unavailable where one has ended by now: Triton would call its model ready for ever.
        """
        self._watch = Watch(self._is_served)
        if ended := self._renew_watch(frozenset()):
            raise Unavailable(f"a process of {', '.join(sorted(ended))} ended while Triton started")

    def _renew_watch(self, before: Set[int]) -> set[str]:
        """Know the processes of what was loaded; the models that Triton says have more of them.

        A process that ended by now is in no watch. Those `before` a model was loaded again do not
        count: they may take a moment to end. Raises as `ModelControl.ready`.
        """
        server = self._server
        assert server.process_id is not None
        alive = stubs_of(server.process_id)
        self._watch.renew(alive)
        control = ModelControl(server.grpc_address, server.options.startup_timeout_seconds)
        fresh = Counter(stub for process_id, stub in alive.items() if process_id not in before)
        return {stub.model for stub in control.instances() - fresh}

    @property
    def _feature_dims(self) -> Mapping[str, int]:
        """D of each bundle that is served."""
        if self._publications is not None:
            return self._publications.feature_dims
        repository = self._server.options.repository
        return {
            name: load_bundle(repository, name).description.feature_dim
            for name in bundle_names(repository)
        }

    def watch(self) -> int:
        """Watch until the server cannot be kept up; the exit code. A signal interrupts this."""
        num_starts = 1
        while num_starts < self._options.max_starts:
            started = time.monotonic()
            problem = self._wait_for_problem()
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
                self._start()
            except BacktalError as error:
                log_event("start_failed", "error", problem=error.message)
            else:
                self._metrics.child_restarted("triton")
                self._tell_ready()
                return num_starts
        return num_starts

    def _tell_ready(self) -> None:
        bundles = tuple(self._feature_dims)
        self._metrics.started(self._server.triton_version(), bundles)
        log_event(
            "ready",
            grpc_address=self._server.grpc_address,
            bundles=bundles,
            triton_process_id=self._server.process_id,
        )

    def _wait_for_problem(self) -> str:
        """Watch one life of the server; what it ended by."""
        server, options, watch = self._server, self._options, self._watch
        triton = server.process_id
        assert triton is not None
        num_reloads = num_failures = 0
        next_canary = time.monotonic() + options.canary_seconds
        next_refresh = time.monotonic() + options.refresh_seconds
        while True:
            if (code := server.wait(POLL_SECONDS)) is not None:
                return f"Triton ended by itself with exit code {code}: {log_tail(server.log_file)}"
            bury_orphans(triton)
            if models := watch.take_dead(stubs_of(triton)):
                num_reloads += len(models)
                if num_reloads > options.max_reloads or not self._reload(models):
                    return f"a process of {', '.join(models)} died"
            if self._publications is not None and time.monotonic() > next_refresh:
                self._publications.refresh()
                watch.renew(stubs_of(triton))
                next_refresh = time.monotonic() + options.refresh_seconds
            if time.monotonic() < next_canary:
                continue
            problem = self._canary.problem(server.grpc_address, self._feature_dims)
            next_canary = time.monotonic() + options.canary_seconds
            num_failures = 0 if problem is None else num_failures + 1
            if problem is not None:
                log_event("canary_failed", "warning", problem=problem, in_a_row=num_failures)
                if num_failures >= options.canary_failures:
                    return problem
                next_canary = time.monotonic()

    def _is_served(self, stub: Stub) -> bool:
        return self._publications is None or self._publications.is_served(stub)

    def _reload(self, models: list[str]) -> bool:
        """Load models again whose processes died; whether that could be done."""
        if not self._server.options.model_control:
            return False
        assert self._server.process_id is not None
        before = stubs_of(self._server.process_id).keys()
        for model in models:
            started = time.monotonic()
            log_event("model_failed", "error", model=model)
            try:
                self._server.reload(model)
            except BacktalError as error:
                log_event("reload_failed", "error", model=model, problem=error.message)
                return False
            self._metrics.child_restarted("model")
            log_event("model_reloaded", model=model, seconds=round(time.monotonic() - started, 2))
        try:
            # Others that ended meanwhile are in the watch, and found by the next look.
            return not self._renew_watch(before) & set(models)
        except BacktalError as error:
            log_event("watch_not_renewed", "error", problem=error.message)
            return False
