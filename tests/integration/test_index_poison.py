"""Videos that hang or kill whoever asks about them: named, and in nobody's way."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from backtal_indexing.answering import Service
from backtal_indexing.engines import Engine, Job
from backtal_indexing.engines.local import LocalEngine
from backtal_indexing.layout import Index, IndexManifest
from backtal_indexing.listing import Listing
from backtal_indexing.planning import Plan, Wanted, plan_run
from backtal_indexing.run import Driver, RunState
from backtal_indexing.shard import Rules
from backtal_indexing.sources import parse_source
from backtal_indexing.verify import verify
from tests.index_poison import Poisoned
from tests.index_runs import write_library
from tests.integration.conftest import Served
from tests.integration.tiny_repository import BUNDLE
from tests.requirements import shared_folder
from tests.unit.index_fakes import SHA, current_rows_of

WORKERS = 3


def drive(
    index: Index, library: Path, job: Job, engine: Engine, videos_per_shard: int = 32
) -> RunState:
    """Index a folder."""
    source = parse_source(str(library))
    wanted = Wanted(BUNDLE, job.bundle_sha256, videos_per_shard)
    with Plan() as plan, Listing([source]) as listing:
        plan_run(plan, index, listing, [source], wanted)
        return Driver(plan, engine, job.rules).run()


def rows_by_name(index: Index) -> dict[str, dict[str, Any]]:
    rows = current_rows_of(index)
    return {unquote(uri).rpartition("/")[2]: row for (uri, _), row in rows.items()}


def poison_index(folder: Path, num_parts: int = 2) -> Index:
    manifest = IndexManifest.new(1, 1).model_copy(update={"num_parts": num_parts})
    return Index.create(str(folder / "index"), manifest)


def test_what_hangs_and_what_kills_is_quarantined(tmp_path: Path) -> None:
    library = tmp_path / "library"
    library.mkdir()
    names = [f"{number:02}.mp4" for number in range(20)]
    poison = {
        "hangs.mp4": "it hung, and its worker ended itself after 1.5 s, 2 times",
        "locks.mp4": "it hung, and its worker ended itself after 1.5 s, 2 times",
        "kills.mp4": "killed by SIGKILL, 2 times",
        "invalid.mp4": "holds no video stream",
    }
    for name in [*names, *poison]:
        (library / name).write_text(name)
    # Two parts only: poison and others are together in one shard.
    index = poison_index(tmp_path)
    rules = Rules(timeout_seconds=1.0, grace_seconds=0.5, max_attempts=2)
    job = Job(index.url, Poisoned(), SHA, rules)
    state = drive(index, library, job, LocalEngine(job, WORKERS))
    assert state.num_videos == Counter(done=len(names), quarantined=len(poison))
    rows = rows_by_name(index)
    assert {name for name, row in rows.items() if row["status"] == "done"} == set(names)
    for name, reason in poison.items():
        assert rows[name]["status"] == "quarantined"
        assert reason in rows[name]["error"]
        assert rows[name]["attempts"] == (1 if name == "invalid.mp4" else 2)
    assert verify(index).problems == []


@pytest.mark.slow
@pytest.mark.long
def test_five_percent_of_poison_stops_nobody(
    served: Served, tmp_path: Path, tell: Callable[[str], None]
) -> None:
    library = served.root / "poisoned"
    write_library(library, 285)
    broken = sorted((shared_folder() / "media" / "broken").iterdir())
    damaged = {
        "mp4parse_invalid_userdata.mp4",
        "mediabunny_annex-b.mp4",
        "decord_corrupted.mp4",
        "mp4parse_afconvert-aac-0.5s.mp4",
        "mp4parse_short-cenc.mp4",
        "mp4parse_no_timescale.mp4",
        "mp4parse_minimal.mp4",
        "mp4parse_chunk_out_of_range.mp4",
        "mp4parse_white.mp4",
    }
    assert damaged <= {path.name for path in broken}
    for path in broken:
        if path.name in damaged:
            shutil.copyfile(path, library / path.name)
    sound = (library / "video 000.mp4").read_bytes()
    fatal = {f"{kind} {number}.mp4" for kind in ("hangs", "locks", "kills") for number in (1, 2)}
    for name in fatal:
        (library / name).write_bytes(sound)
    index = poison_index(tmp_path, num_parts=64)
    rules = Rules(timeout_seconds=15.0, grace_seconds=1.0, max_attempts=2)
    service = Service(served.address, BUNDLE)
    job = Job(index.url, Poisoned(service), served.manifest.sha256, rules)
    state = drive(index, library, job, LocalEngine(job, WORKERS))
    rows = rows_by_name(index)
    assert len(rows) == 300
    sick = {name for name, row in rows.items() if row["status"] != "done"}
    for name in sorted(sick):
        row = rows[name]
        print(f"{name}: {row['status']} after {row['attempts']}: {row['error']}")
    sound_ones = {name for name in rows if name.startswith("video ")}
    assert len(sound_ones) == 285
    assert sound_ones.isdisjoint(sick)
    assert fatal <= sick
    assert all(rows[name]["status"] == "quarantined" and rows[name]["error"] for name in sick)
    assert state.num_videos == Counter(done=300 - len(sick), quarantined=len(sick))
    assert verify(index).problems == []
    tell(f"{len(rows) - len(sick)} videos done, {len(sick)} quarantined")
