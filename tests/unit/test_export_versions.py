"""Roll back, take back, two publishers at once, a full disk: what the repository holds after."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from backtal import cli
from backtal.errors import InvalidFile, NotFound
from backtal.repository import bundle_versions, load_bundle, network_path
from backtal_export.model_folders import copy_networks, write_exported
from backtal_export.public_models import remove_version, write_public_models
from backtal_export.publishing import publish, roll_back
from backtal_export.verification import check_files, verify
from tests.requirements import PROJECT_ROOT, require
from tests.unit.small_bundle import cas_file, small_export, write_golden_set


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two versions that differ in their CAS network."""
    folder = tmp_path / "repository"
    write_exported(folder, small_export())
    write_exported(folder, small_export(cas=cas_file(0.01)))
    return folder


def test_a_roll_back_is_a_new_version_and_a_second_one_undoes_it(repository: Path) -> None:
    first, second = (load_bundle(repository, "small", number) for number in (1, 2))
    done = roll_back(repository, "small")
    assert (done.version, done.copy_of) == (3, 1)
    assert load_bundle(repository, "small") == first
    done = roll_back(repository, "small")
    assert (done.version, done.copy_of) == (4, 2)
    assert load_bundle(repository, "small") == second
    assert [checked.version for checked in verify(repository, measured=False)] == [1, 2, 3, 4]


def test_a_roll_back_to_a_version_by_its_number(repository: Path) -> None:
    assert roll_back(repository, "small", 1).version == 3
    # It is the newest already.
    assert roll_back(repository, "small", 1).version == 3
    with pytest.raises(NotFound, match=r"no version 7 of small, only \[1, 2, 3\]"):
        roll_back(repository, "small", 7)
    with pytest.raises(NotFound, match="no bundle 'other'"):
        roll_back(repository, "other")
    with pytest.raises(NotFound, match="no bundle 'small'.*none"):
        roll_back(repository / "nowhere", "small")
    assert not (repository / "nowhere").exists()


def test_without_another_version_there_is_nothing_to_roll_back_to(tmp_path: Path) -> None:
    write_exported(tmp_path, small_export())
    with pytest.raises(NotFound, match="no version of small before version 1"):
        roll_back(tmp_path, "small")


def test_a_damaged_version_is_not_rolled_back_to(repository: Path) -> None:
    network_path(repository, load_bundle(repository, "small", 1).cas.model).write_bytes(b"damaged")
    with pytest.raises(InvalidFile, match="SHA-256"):
        roll_back(repository, "small")
    assert bundle_versions(repository, "small") == [1, 2]


def test_a_newest_version_that_cannot_be_read_can_be_left(repository: Path) -> None:
    (repository / "small" / "2" / "manifest.json").write_text("{")
    assert roll_back(repository, "small").copy_of == 1
    assert check_files(repository, "small", 3) == load_bundle(repository, "small", 1)


def test_a_version_that_is_taken_back_leaves_the_one_before_whole(repository: Path) -> None:
    remove_version(repository, "small", 2)
    (checked,) = verify(repository, measured=False)
    assert checked.version == 1
    assert bundle_versions(repository, "small_stream") == [1]
    remove_version(repository, "small", 1)
    assert not (repository / "small").exists()
    assert not (repository / "small_stream").exists()


def test_two_publishers_at_once_write_two_whole_versions(tmp_path: Path) -> None:
    golden, served = tmp_path / "golden", tmp_path / "served"
    golden.mkdir()
    write_golden_set(golden)
    versions: list[int] = []

    def work(index: int) -> None:
        staged = tmp_path / str(index)
        write_exported(staged, small_export(cas=cas_file(0.001 * index)))
        done = publish(staged, "small", served, golden, say=lambda _: None)
        versions.append(done.version)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(versions) == [1, 2, 3, 4]
    whole = list(verify(served, measured=False))
    assert [checked.version for checked in whole] == [1, 2, 3, 4]


def test_only_the_version_is_missing_where_its_twin_alone_was_written(repository: Path) -> None:
    """As after a kill between the two renames: the next publish writes both."""
    shutil.copytree(repository / "small_stream" / "2", repository / "small_stream" / "3")
    manifest = load_bundle(repository, "small", 1)
    assert bundle_versions(repository, "small") == [1, 2]
    copy_networks(repository, manifest, repository)
    assert write_public_models(repository, manifest) == 4
    assert check_files(repository, "small", 4) == manifest


FULL_DISK = """
import os
import sys
from contextlib import suppress
from pathlib import Path
from backtal.errors import Unavailable
from backtal_export.publishing import publish
from backtal_export.verification import verify
from backtal_export.model_folders import write_exported
from tests.unit.small_bundle import cas_file, small_export, write_golden_set

def listed():
    return {path for path in served.rglob("*") if path.name not in (".lock", ".filler")}

served, elsewhere = Path(sys.argv[1]), Path(sys.argv[2])
write_exported(served, small_export())
write_golden_set(elsewhere)
for pages in map(int, sys.argv[3:]):
    staged = elsewhere / str(pages)
    write_exported(staged, small_export(cas=cas_file(0.001 * (pages + 1))))
    before = listed()
    with suppress(OSError), (served / ".filler").open("wb", buffering=0) as filler:
        while filler.write(bytes(4096)):
            pass
    os.truncate(served / ".filler", (served / ".filler").stat().st_size - 4096 * pages)
    try:
        publish(staged, "small", served, elsewhere, say=lambda _: None)
    except Unavailable as error:
        print(error.message)
    (served / ".filler").unlink()
    # A network that was written whole may stay: nothing names it.
    new = {path for path in listed() - before if "cas-" not in str(path)}
    assert before <= listed() and not new, new
    print([checked.version for checked in verify(served, measured=False)])
"""


def test_a_full_disk_is_told_and_nothing_half_is_there(tmp_path: Path) -> None:
    unshare = shutil.which("unshare")
    if unshare is None or os.getuid() != 0:
        require("unshare", "a disk of its own takes unshare, and root")
    served, elsewhere = tmp_path / "served", tmp_path / "elsewhere"
    served.mkdir()
    elsewhere.mkdir()
    # Room for the first file, a part of a network, the network alone, one of two models.
    rooms = ["0", "1", "3", "5", "7", "9"]
    mount = 'mount -t tmpfs -o size=512k tmpfs "$1" && shift && exec "$@"'
    words = [str(served), sys.executable, "-c", FULL_DISK, str(served), str(elsewhere), *rooms]
    done = subprocess.run(
        [unshare, "-m", "sh", "-c", mount, "sh", *words],
        capture_output=True,
        text=True,
        cwd=PROJECT_ROOT,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"the disk of {served} is full", "[1]"] * len(rooms)


def test_the_command_says_what_it_did(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["rollback", str(repository / "small")]) == 0
    assert f"rolled small in {repository} back to version 1, as version 3" in (
        capsys.readouterr().out
    )
    assert cli.main(["rollback", str(repository / "small"), "--to-version", "9"]) != 0
    assert "no version 9 of small" in capsys.readouterr().err
