"""Which versions a server takes from its repository, and what it does with those that are not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from backtal.repository import load_bundle, network_path
from backtal_export.model_folders import write_exported
from backtal_export.public_models import remove_version
from backtal_serving.offers import Offer, Offers
from tests.unit.small_bundle import cas_file, small_export


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    write_exported(folder, small_export())
    write_exported(folder, small_export(cas=cas_file(0.01)))
    write_exported(folder, small_export(name="other"))
    return folder


def numbers(offered: dict[str, tuple[Offer, ...]]) -> dict[str, list[int]]:
    return {bundle: [offer.number for offer in offers] for bundle, offers in offered.items()}


def newest_network(repository: Path) -> Path:
    return network_path(repository, load_bundle(repository, "small").cas.model)


@pytest.mark.parametrize(("num_versions", "expected"), [(1, [2]), (2, [1, 2]), (3, [1, 2])])
def test_the_newest_of_each_bundle(repository: Path, num_versions: int, expected) -> None:
    offered = Offers(repository, num_versions).look({})
    assert numbers(offered) == {"small": expected, "other": [1]}
    assert offered["small"][-1].manifest == load_bundle(repository, "small")


def test_a_damaged_version_gives_way_to_the_one_before_until_it_is_mended(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = newest_network(repository)
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    offers = Offers(repository, 1)
    for _ in range(3):
        assert numbers(offers.look({}))["small"] == [1]
    problem = offers.refused["small", 2]
    assert problem.startswith(f"{path.relative_to(repository)} has the SHA-256")
    assert capsys.readouterr().err.count("version_refused") == 1
    path.write_bytes(content)
    assert numbers(offers.look({}))["small"] == [2]
    assert offers.refused == {}


def test_what_is_half_copied_is_taken_when_it_is_whole(repository: Path) -> None:
    stream = repository / "small_stream" / "2"
    aside = repository.parent / "aside"
    stream.rename(aside)
    offers = Offers(repository, 1)
    assert numbers(offers.look({}))["small"] == [1]
    assert offers.refused["small", 2].startswith("no such file: small_stream/2")
    shutil.copytree(aside, stream)
    assert numbers(offers.look({}))["small"] == [2]


def test_what_is_served_stays_whatever_becomes_of_its_files(repository: Path) -> None:
    offers = Offers(repository, 1)
    served = offers.look({})
    newest_network(repository).write_bytes(b"damaged")
    assert offers.look(served) == served
    # But a new start would not take it.
    assert numbers(Offers(repository, 1).look({}))["small"] == [1]


def test_a_manifest_that_an_older_release_wrote_is_no_fault(repository: Path) -> None:
    """It lacks what has a default by now, and its fields stand in another order."""
    for model in ("small", "small_stream"):
        path = repository / model / "2" / "manifest.json"
        raw = json.loads(path.read_text())
        del raw["library_versions"]
        path.write_text(json.dumps(raw, sort_keys=True))
    offers = Offers(repository, 1)
    served = offers.look({})
    assert numbers(served)["small"] == [2]
    assert offers.look(served)["small"][0] is served["small"][0]


def test_another_content_under_the_same_number_is_another_version(repository: Path) -> None:
    offers = Offers(repository, 1)
    served = offers.look({})
    remove_version(repository, "small", 2)
    write_exported(repository, small_export(cas=cas_file(0.02)))
    offered = offers.look(served)
    assert numbers(offered) == numbers(served)
    assert offered["small"] != served["small"]


def test_a_refused_version_that_is_taken_back_is_forgotten(repository: Path) -> None:
    offers = Offers(repository, 1)
    (offer,) = offers.look({})["small"]
    offers.refuse(offer, "it does not load")
    assert numbers(offers.look({}))["small"] == [1]
    assert offers.refused == {("small", 2): "it does not load"}
    remove_version(repository, "small", 2)
    offers.look({})
    assert offers.refused == {}


def test_a_bundle_of_which_nothing_is_whole_is_told_apart_from_one_that_is_gone(
    repository: Path,
) -> None:
    (repository / "other" / "1" / "manifest.json").write_text("{")
    assert numbers(Offers(repository, 1).look({}))["other"] == []
    shutil.rmtree(repository / "other")
    assert "other" not in Offers(repository, 1).look({})
