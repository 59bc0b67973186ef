"""What a running Triton serves of its repository: new versions are taken while it answers.

The repository is looked at again and again, as its volume may be written by another machine. A new
version that is whole is taken in steps, each of which leaves the old one answering:

1. the networks that it names and that are not loaded: they are named by content, so no loaded one
   changes;
2. a trial: the version as a model that no caller knows, asked for the segments of two clips;
3. the stream, then the public model. Triton lets the newest version answer when it is ready; the
   one before, unless it is kept, ends with its last request;
4. when that has happened, the networks that no version names any more are unloaded.

A version that fails one of them is refused, and not tried again until its files change.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from backtal.errors import BacktalError, Unavailable
from backtal.manifest import Manifest
from backtal_serving.canary import try_model
from backtal_serving.logs import log_event
from backtal_serving.model_control import ModelControl
from backtal_serving.offers import Offer, Offers
from backtal_serving.processes import Stub, stubs_of
from backtal_serving.repository_view import RepositoryView
from backtal_serving.server import TritonServer
from backtal_serving.triton_log import log_tail
from backtal_serving.version_report import RefusedVersion, VersionReport

# Of loads during which Triton itself ended.
MAX_DEATHS = 3
TRIAL_SECONDS = 60.0
# From a call that failed to the end of the process that failed it.
DEATH_SECONDS = 1.0
MAX_PROBLEM_CHARACTERS = 500


class Publications:
    """The versions that `server` serves; it has `model_control`. Of one thread.

    report_file: where the front door reads which they are, if there is one.
    """

    def __init__(self, server: TritonServer, report_file: Path | None = None) -> None:
        self._server = server
        self._report_file = report_file
        self._offers = Offers(server.options.repository, server.options.settings.limits.versions)
        self._served: dict[str, tuple[Offer, ...]] = {}
        self._networks: set[str] = set()
        self._leaving: list[Offer] = []
        self._deaths: Counter[tuple[str, int]] = Counter()
        self._told = VersionReport()
        self._problem: str | None = None

    @property
    def feature_dims(self) -> Mapping[str, int]:
        """D of the newest version of each bundle that is served."""
        return {
            bundle: versions[-1].manifest.description.feature_dim
            for bundle, versions in self._served.items()
        }

    def is_served(self, stub: Stub) -> bool:
        """Whether a model's process has work to do, so that its end is a fault."""
        return stub.model in self._networks or any(
            stub.model in offer.models and stub.version == offer.number
            for versions in self._served.values()
            for offer in versions
        )

    def choose(self) -> None:
        """Before a start: the same versions as before it; at the first, what is offered."""
        if not self._served:
            self._served = {
                bundle: versions for bundle, versions in self._offers.look({}).items() if versions
            }
        self._leaving.clear()
        self._server.shown = {
            bundle: _numbered(versions) for bundle, versions in self._served.items()
        }

    def settle(self) -> None:
        """After a start: what did not load gives way to what does.

        Raises Unavailable, with the reasons, where there are bundles and none of them does.
        """
        ready = self._control.ready()
        self._networks = {stub.model for stub in ready} & {
            network
            for versions in self._served.values()
            for offer in versions
            for network in offer.networks
        }
        for bundle, versions in list(self._served.items()):
            loaded = tuple(offer for offer in versions if self._is_ready(offer, ready))
            self._served[bundle] = loaded
            for offer in versions:
                if offer not in loaded:
                    log_event("not_loaded", "error", bundle=bundle, version=offer.number)
        self._served = {bundle: loaded for bundle, loaded in self._served.items() if loaded}
        self.refresh()
        if not self._served and self._offers.bundles():
            problems = [
                f"version {number} of {bundle}: {problem}"
                for (bundle, number), problem in self._offers.refused.items()
            ]
            raise Unavailable(
                f"no bundle can be served: {'; '.join(problems)}; the end of Triton's log:\n"
                f"{log_tail(self._server.log_file)}"
            )

    def refresh(self) -> None:
        """Take what is new, leave what is gone. What goes wrong is logged, not raised."""
        try:
            while self._step():
                pass
            self._unload_unnamed()
            self._tell()
            self._problem = None
        except (BacktalError, OSError) as error:
            # Of the volume, or of a Triton that ends: the next look will tell. Told once.
            problem = error.message if isinstance(error, BacktalError) else str(error)
            if problem != self._problem:
                log_event("versions_not_refreshed", "error", problem=problem)
            self._problem = problem

    @property
    def _control(self) -> ModelControl:
        options = self._server.options
        return ModelControl(self._server.grpc_address, options.startup_timeout_seconds)

    @property
    def _view(self) -> RepositoryView:
        view = self._server.view
        if view is None:
            raise Unavailable("Triton is not running")
        return view

    def _step(self) -> bool:
        """Take one bundle's versions, or refuse one of them; whether there was anything to do."""
        offered = self._offers.look(self._served)
        # A volume that is not mounted looks like a repository without bundles.
        if not offered:
            return False
        for bundle in self._served.keys() - offered.keys():
            self._withdraw(bundle)
            return True
        for bundle, versions in offered.items():
            if versions and versions != self._served.get(bundle):
                self._take(bundle, versions)
                return True
        return False

    def _take(self, bundle: str, versions: tuple[Offer, ...]) -> None:
        """Serve these versions of the bundle, or refuse one. Raises what is none's fault."""
        before = self._served.get(bundle, ())
        started = time.monotonic()
        tried = None
        log_event("taking_versions", bundle=bundle, versions=[offer.number for offer in versions])
        try:
            for tried in (offer for offer in versions if offer not in before):
                self._try(tried)
            self._show(bundle, before, versions)
        except BacktalError as error:
            if tried is None:
                raise
            self._blame(tried, error)
            return
        self._leaving += [offer for offer in before if offer not in versions]
        self._served[bundle] = versions
        log_event(
            "versions_served",
            bundle=bundle,
            versions={offer.number: offer.manifest.sha256 for offer in versions},
            seconds=round(time.monotonic() - started, 2),
        )

    def _try(self, offer: Offer) -> None:
        """Load what the version needs, and let it answer where nobody else asks."""
        for network in sorted(offer.networks - self._networks):
            self._view.show_network(network)
            self._networks.add(network)
            self._load(network)
        trial = self._view.show_trial(offer.bundle, (offer.number, offer.manifest))
        try:
            self._load(trial)
            feature_dim = offer.manifest.description.feature_dim
            try_model(self._server.grpc_address, trial, feature_dim, TRIAL_SECONDS)
        finally:
            with suppress(BacktalError):
                self._control.unload(trial)
            self._view.remove(trial)

    def _show(self, bundle: str, before: tuple[Offer, ...], versions: tuple[Offer, ...]) -> None:
        """Let the models take the versions; where one does not, all have those before again."""
        models = versions[-1].models
        taken = []
        try:
            self._view.show_bundle(bundle, _numbered(versions))
            for model in models:
                taken.append(model)
                self._load(model)
        except (BacktalError, OSError):
            with suppress(BacktalError, OSError):
                self._show_again(taken, before)
            raise

    def _show_again(self, models: list[str], before: tuple[Offer, ...]) -> None:
        if before:
            self._view.show_bundle(before[-1].bundle, _numbered(before))
        for model in models:
            if before:
                self._control.load(model)
            else:
                self._control.unload(model)
                self._view.remove(model)

    def _load(self, model: str) -> None:
        try:
            self._control.load(model)
        except Unavailable as error:
            if self._has_died():
                raise
            # Triton may take a process for dead that a busy machine has not let compute.
            log_event("load_failed", "warning", model=model, problem=error.message)
            self._control.load(model)

    def _blame(self, offer: Offer, error: BacktalError) -> None:
        """Refuse the version, unless Triton ended meanwhile, which may not be its fault."""
        problem = error.message
        if self._has_died():
            self._deaths[offer.bundle, offer.number] += 1
            if self._deaths[offer.bundle, offer.number] < MAX_DEATHS:
                raise Unavailable("Triton ended while it took a version")
            problem = f"Triton ended {MAX_DEATHS} times while it took the version"
        folder = str(self._view.folder)
        log_event("version_failed", "error", model=offer.bundle, problem=problem)
        first_line = problem.partition("\n")[0].replace(f"{folder}/", "")
        self._offers.refuse(offer, first_line[:MAX_PROBLEM_CHARACTERS])

    def _withdraw(self, bundle: str) -> None:
        """Serve a bundle no more that its repository does not hold any more."""
        versions = self._served.pop(bundle)
        for model in versions[-1].models:
            self._control.unload(model)
            self._view.remove(model)
        self._leaving += versions
        log_event("bundle_withdrawn", bundle=bundle)

    def _unload_unnamed(self) -> None:
        """Unload the networks that no version names which is served or still answers."""
        process_id = self._server.process_id
        if process_id is None or not (self._leaving or self._networks - self._named()):
            return
        alive = set(stubs_of(process_id).values())
        self._leaving = [
            offer
            for offer in self._leaving
            if any(Stub(model, offer.number) in alive for model in offer.models)
        ]
        for network in sorted(self._networks - self._named()):
            self._networks.discard(network)
            self._control.unload(network)
            self._view.remove(network)
            log_event("network_unloaded", model=network)

    def _named(self) -> set[str]:
        offers = [
            *self._leaving,
            *(offer for versions in self._served.values() for offer in versions),
        ]
        return {network for offer in offers for network in offer.networks}

    def _has_died(self) -> bool:
        return self._server.wait(DEATH_SECONDS) is not None

    def _is_ready(self, offer: Offer, ready: frozenset[Stub]) -> bool:
        needed = {Stub(model, offer.number) for model in offer.models}
        return needed | {Stub(network, 1) for network in offer.networks} <= ready

    def _tell(self) -> None:
        """Write the report where it has changed."""
        report = VersionReport(
            served={
                bundle: {str(offer.number): offer.manifest.sha256 for offer in versions}
                for bundle, versions in self._served.items()
            },
            refused=tuple(
                RefusedVersion(bundle=bundle, number=number, problem=problem)
                for (bundle, number), problem in sorted(self._offers.refused.items())
            ),
        )
        if self._report_file is not None and report != self._told:
            report.write(self._report_file)
            self._told = report


def _numbered(versions: tuple[Offer, ...]) -> list[tuple[int, Manifest]]:
    return [(offer.number, offer.manifest) for offer in versions]
