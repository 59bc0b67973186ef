"""Which versions a repository offers: of each bundle the newest that are whole.

A version is looked at when it is new, and again when its files change: it may have been half
copied. One that is being served is not looked at again, whatever becomes of its files: the server
has them in memory, and a damaged disk must not take it down.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from backtal.errors import BacktalError
from backtal.integrity import check_version
from backtal.manifest import Manifest
from backtal.repository import (
    bundle_names,
    bundle_versions,
    manifest_path,
    network_path,
    public_models,
)
from backtal_serving.logs import log_event

# Of every file of a version: its path, when it was changed, its size.
Signature = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True)
class Offer:
    """A version of a bundle that is whole. text: of its manifest's file."""

    bundle: str
    number: int
    manifest: Manifest
    text: str

    @property
    def models(self) -> tuple[str, str]:
        """The stream, then the public model: the order in which they take a version."""
        return public_models(self.bundle)

    @property
    def networks(self) -> frozenset[str]:
        """The inner models that it names."""
        return frozenset(network.model for network in self.manifest.networks)


@dataclass(frozen=True)
class Refusal:
    """Why a version is not served, and what its files were then."""

    problem: str
    signature: Signature


class Offers:
    """The repository's offers, `num_versions` of each bundle at most, and what was refused."""

    def __init__(self, repository: Path, num_versions: int) -> None:
        self._repository = repository
        self._num_versions = num_versions
        self._refused: dict[tuple[str, int], Refusal] = {}

    @property
    def refused(self) -> Mapping[tuple[str, int], str]:
        """Why each version, by bundle and number, is not offered."""
        return {key: refusal.problem for key, refusal in self._refused.items()}

    def look(self, served: Mapping[str, tuple[Offer, ...]]) -> dict[str, tuple[Offer, ...]]:
        """What is to be served, rising by number, where `served` is served now.

        A bundle that is there without a version to offer has none here. Raises OSError.
        """
        numbers = {name: bundle_versions(self._repository, name) for name in self.bundles()}
        there = {(bundle, number) for bundle, known in numbers.items() for number in known}
        self._refused = {key: why for key, why in self._refused.items() if key in there}
        return {
            bundle: self._newest(bundle, known, served.get(bundle, ()))
            for bundle, known in numbers.items()
        }

    def bundles(self) -> list[str]:
        """The bundles of the repository, whether or not one can be served."""
        return bundle_names(self._repository)

    def refuse(self, offer: Offer, problem: str) -> None:
        """Offer this version no more, as long as its files stay what they are."""
        self._refuse(offer.bundle, offer.number, problem)

    def _newest(
        self, bundle: str, numbers: Iterable[int], served: tuple[Offer, ...]
    ) -> tuple[Offer, ...]:
        found: list[Offer] = []
        for number in sorted(numbers, reverse=True):
            offer = self._offer(bundle, number, served)
            if offer is not None:
                found.append(offer)
            if len(found) == self._num_versions:
                break
        return tuple(reversed(found))

    def _offer(self, bundle: str, number: int, served: tuple[Offer, ...]) -> Offer | None:
        known = next((offer for offer in served if offer.number == number), None)
        text = self._text(bundle, number)
        if known is not None and known.text == text:
            return known
        refusal = self._refused.get((bundle, number))
        if refusal is not None and refusal.signature == self._signature(bundle, number):
            return None
        try:
            manifest = check_version(self._repository, bundle, number)
        except BacktalError as error:
            self._refuse(bundle, number, error.message)
            return None
        self._refused.pop((bundle, number), None)
        return Offer(bundle, number, manifest, text)

    def _refuse(self, bundle: str, number: int, problem: str) -> None:
        # What callers may read has the names of the repository's files, not where it lies.
        problem = problem.replace(f"{self._repository}/", "")
        self._refused[bundle, number] = Refusal(problem, self._signature(bundle, number))
        log_event("version_refused", "error", bundle=bundle, version=number, problem=problem)

    def _text(self, bundle: str, number: int) -> str:
        try:
            path = manifest_path(self._repository, bundle, number)
            return path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""

    def _signature(self, bundle: str, number: int) -> Signature:
        folders = [self._repository / model / str(number) for model in public_models(bundle)]
        with suppress(BacktalError):
            manifest = Manifest.load(manifest_path(self._repository, bundle, number))
            networks = (network.model for network in manifest.networks)
            folders += [network_path(self._repository, network).parent for network in networks]
        found = []
        for file in (file for folder in folders for file in folder.glob("*")):
            with suppress(FileNotFoundError):
                facts = file.stat()
                found.append((str(file), facts.st_ctime_ns, facts.st_size))
        return tuple(sorted(found))
