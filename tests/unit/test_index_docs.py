"""docs/index-search.md is true: its commands parse, its Python and its SQL run."""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from backtal_indexing.commands import index as command
from backtal_indexing.compact import compact
from backtal_indexing.exports import FORMATS
from tests.made_index import append, new_index, row, segment

PAGE = (Path(__file__).parents[2] / "docs" / "index-search.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.M | re.S)


LINES = [line[2:] for block in blocks("console") for line in block.splitlines()]


@pytest.mark.parametrize("line", LINES)
def test_a_command_parses(line: str) -> None:
    program, name, *words = shlex.split(line)
    assert (program, name) == ("backtal", "index")
    parser = argparse.ArgumentParser(exit_on_error=False)
    command.configure(parser)
    parser.parse_args(words)


@pytest.fixture
def _library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    index = new_index("library.index")
    append(index, [row("a", segment(0, 5, "high jump", 0.9)), row("b", segment(0, 1, "run", 0.6))])
    append(index, [row("b", status="deleted")])
    compact(index)


@pytest.mark.usefixtures("_library")
def test_the_python_block_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = blocks("python")
    exec(compile(block, "index-search.md", "exec"), {})
    assert capsys.readouterr().out == "1 segments of 1 videos\n"


@pytest.mark.usefixtures("_library")
def test_others_read_it_as_it_is() -> None:
    by_label, by_status = blocks("sql")
    assert duckdb.sql(by_label).fetchall() == [("high jump", 1, 0.9)]
    statuses = {status: videos for status, videos, _ in duckdb.sql(by_status).fetchall()}
    assert statuses == {"done": 1, "deleted": 1}
    # What pandas does with a folder.
    assert pq.read_table("library.index/segments").num_rows == 1


def test_the_table_of_exports_is_whole() -> None:
    assert re.findall(r"^\| `([a-z][a-z-]*)` \|", PAGE, re.M) == list(FORMATS)
