"""The README is true: its commands parse, its Python runs, what it links to exists."""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from backtal import cli, client
from backtal.detection import DetectionAnswer
from backtal.segments import Segment

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = ["README.md", "CONTRIBUTING.md"]


@dataclass(frozen=True)
class Block:
    language: str
    text: str


def blocks(text: str) -> list[Block]:
    return [Block(*found) for found in re.findall(r"^```(\w+)\n(.*?)^```$", text, re.M | re.S)]


def console_lines(text: str) -> list[str]:
    joined = text.replace("\\\n", " ")
    return [line[2:] for line in joined.splitlines() if line.startswith("$ ")]


COMMANDS = [
    line
    for page in PAGES
    for block in blocks((ROOT / page).read_text(encoding="utf-8"))
    if block.language == "console"
    for line in console_lines(block.text)
]


@pytest.mark.parametrize("line", [line for line in COMMANDS if line.startswith("backtal ")])
def test_a_command_of_the_readme_parses(line: str) -> None:
    _, name, *words = shlex.split(line, comments=True)
    parser = argparse.ArgumentParser(exit_on_error=False)
    importlib.import_module(cli.find_commands()[name]).configure(parser)
    parser.parse_args(words)


@pytest.mark.parametrize("line", [line for line in COMMANDS if line.startswith("make ")])
def test_a_target_of_the_readme_exists(line: str) -> None:
    target = shlex.split(line, comments=True)[1]
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M)


def test_every_command_is_of_a_kind_that_is_tested() -> None:
    assert COMMANDS
    assert {line.split()[0] for line in COMMANDS} == {"backtal", "make"}


RUN = [block for block in blocks(README) if block.text.startswith("# run\n")]


@pytest.mark.parametrize("block", RUN)
def test_a_block_that_is_marked_runs(block: Block) -> None:
    script = block.text.replace("backtal ", f"{sys.executable} -m backtal.cli ")
    subprocess.run(["sh", "-e", "-c", script], cwd=ROOT, check=True, capture_output=True)


def test_the_python_block_runs(tmp_path: Path, monkeypatch, capsys) -> None:
    class Fake:
        def __init__(self, address: str) -> None:
            self.address = address

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        # The real signature, so that the README cannot name an argument that is not there.
        def detect(self, *, video, bundle, options):
            assert (video, bundle) == (b"film", "kinetics400")
            assert options.as_parameters() == {"score_threshold": 0.3}
            return DetectionAnswer((Segment(6.4, 13.4, "clean and jerk", 0.8),), 18.1)

    real = client.Client.detect.__kwdefaults__ or {}
    assert {"video", "bundle", "options"} <= set(real)
    (block,) = [block for block in blocks(README) if block.language == "python"]
    (tmp_path / "my.mp4").write_bytes(b"film")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(client, "Client", Fake)
    exec(compile(block.text, "README.md", "exec"), {})
    assert capsys.readouterr().out == "6.4-13.4 s clean and jerk\n"


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_links_to_exists(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (ROOT / page).parent.joinpath(target).exists(), target


def test_the_rooms_that_are_named_exist() -> None:
    table = README.split("## Where things are")[1]
    for room in re.findall(r"^\| `([a-z_]+)/`", table, re.M):
        assert (ROOT / room).is_dir(), room
