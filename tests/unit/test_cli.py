from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pytest

from backtal import cli
from backtal.errors import BacktalError, DeadlineExceeded, InvalidVideo, NotFound

ROOT = Path(__file__).resolve().parents[2]


class Scripted(argparse.Namespace):
    """A stand-in for a command's module."""

    def __init__(self, outcome: BaseException | int) -> None:
        super().__init__()
        self.outcome = outcome

    def configure(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--level", type=int, default=0)

    def run(self, arguments: argparse.Namespace) -> int:
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome + arguments.level


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch):
    def run(outcome: BaseException | int, *words: str) -> int:
        monkeypatch.setattr(cli, "find_commands", lambda: {"act": "backtal.commands.detect"})
        monkeypatch.setattr(cli, "_import", lambda _: Scripted(outcome))
        return cli.main(["act", *words])

    return run


def test_the_command_gives_its_exit_code_and_gets_its_options(run) -> None:
    assert run(0) == 0
    assert run(3, "--level", "2") == 5


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidVideo("x.mp4 holds no video stream"), 2),
        (NotFound("no such file: x.mp4"), 2),
        (DeadlineExceeded("no answer within 3 s"), 1),
        (BacktalError("a bug"), 1),
    ],
)
def test_an_error_is_one_line_on_stderr(run, capsys, error: BacktalError, code: int) -> None:
    assert run(error) == code
    captured = capsys.readouterr()
    assert captured.err == f"backtal: error: {error.message}\n"
    assert captured.out == ""


def test_an_interrupt_is_130(run, capsys) -> None:
    assert run(KeyboardInterrupt()) == 130
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("module", "extra"),
    [("torch", "training"), ("tritonclient.grpc", "client"), ("onnxruntime", "local")],
)
def test_a_missing_module_names_its_extra(run, capsys, module: str, extra: str) -> None:
    assert run(ModuleNotFoundError(f"No module named {module}", name=module)) == 2
    assert f"pip install 'backtal[{extra}]'" in capsys.readouterr().err


def test_an_unknown_command_and_an_unknown_option_are_usage_errors(run, capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["detekt"])
    assert stopped.value.code == 2
    with pytest.raises(SystemExit) as stopped:
        run(0, "--levle", "1")
    assert stopped.value.code == 2
    assert "--levle" in capsys.readouterr().err


def test_help_lists_every_room_and_imports_none(capsys, monkeypatch) -> None:
    def refuse(name: str) -> None:
        pytest.fail(f"{name} was imported for --help")

    monkeypatch.setattr(cli, "_import", refuse)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    for name in ("detect", "features", "evaluate", "serve", "train", "corpus", "export"):
        assert f"\n    {name} " in text
    assert "(not installed)" not in text


def test_without_a_command_it_shows_the_help(capsys) -> None:
    assert cli.main([]) == 2
    assert "detect" in capsys.readouterr().out


def test_a_source_tree_that_is_not_installed_has_its_importable_rooms(monkeypatch) -> None:
    monkeypatch.setattr("importlib.metadata.entry_points", lambda **_: [])
    monkeypatch.setattr(sys, "path", [str(ROOT), str(ROOT / "serving"), *sys.path])
    found = cli.find_commands()
    assert found["detect"] == "backtal.commands.detect"
    assert found["serve"] == "backtal_serving.commands.serve"
