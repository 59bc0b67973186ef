"""The trainer: the same weights after a kill, the epoch chosen on unseen videos, the options."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from backtal.errors import InvalidArgument, InvalidFile
from backtal.settings import parse
from backtal_training.batches import make_batch
from backtal_training.bundle import describe
from backtal_training.datasets import Sample, make_sample
from backtal_training.schedule import learning_rate
from backtal_training.settings import OptimizerSettings, Recipe
from backtal_training.steps import batch_losses, clip_gradients
from backtal_training.trainer import Run, train
from tests import synthetic

CORPUS = synthetic.corpus(12, 4)
WIDTHS = {"hidden_dim": 16, "embedding_hidden_dim": 8, "filter_hidden_dim": 8, "embedding_dim": 4}
RECIPE: dict[str, Any] = {
    "name": "tiny",
    "grid": synthetic.GRID.model_dump(),
    "network": WIDTHS,
    "optimizer": {"learning_rate": 3e-3, "batch_videos": 3, "epochs": 4, "ema_decay": 0.9},
    "selection": {"held_out_fraction": 0.25},
}


def recipe(**changes: Any) -> Recipe:
    raw = dict(RECIPE)
    for section, change in changes.items():
        raw[section] = {**raw.get(section, {}), **change}
    return parse(Recipe, raw, source="the test")


def samples(subset: str = "training") -> list[Sample]:
    return [
        make_sample(
            name,
            CORPUS.sequences[name],
            instances=video.instances,
            clicks=CORPUS.clicks,
            classes=synthetic.CLASSES,
            grid=synthetic.GRID,
        )
        for name, video in CORPUS.truth.subset(subset).videos.items()
    ]


def trained(chosen: Recipe, **options: Any) -> Run:
    description = describe(chosen, synthetic.CLASSES, next(iter(CORPUS.sequences.values())))
    return train(samples(), chosen, description, **options)


def weights(run: Run) -> dict[str, torch.Tensor]:
    return dict(run.network.state_dict())


def test_a_run_goes_on_from_its_state_to_the_same_bits(tmp_path: Path) -> None:
    whole = trained(recipe())

    class Stopped(Exception):
        pass

    def stop(epoch: Any) -> None:
        if epoch.number == 3:
            raise Stopped

    path = tmp_path / "run.state"
    with pytest.raises(Stopped):
        trained(recipe(), state_path=path, save_every_seconds=0, on_epoch=stop)
    numbers: list[int] = []
    again = trained(recipe(), state_path=path, on_epoch=lambda epoch: numbers.append(epoch.number))
    assert numbers == [1, 2, 3, 4]
    assert again.chosen_epoch == whole.chosen_epoch
    for name, value in weights(whole).items():
        assert torch.equal(weights(again)[name], value), name


def test_a_state_of_another_run_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.state"
    trained(recipe(), state_path=path, save_every_seconds=0)
    with pytest.raises(InvalidFile, match="another recipe"):
        trained(recipe(optimizer={"learning_rate": 1e-4}), state_path=path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InvalidFile, match="no state of a run"):
        trained(recipe(), state_path=path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What `backtal train` reads."""
    (tmp_path / "features").mkdir()
    for name, sequence in CORPUS.sequences.items():
        sequence.save(tmp_path / "features" / f"{name}.npz")
    CORPUS.truth.save(tmp_path / "truth.json")
    CORPUS.clicks.save(tmp_path / "clicks.txt", len(synthetic.CLASSES))
    return tmp_path


def command(folder: Path, chosen: Recipe, to: str, *words: str) -> list[str]:
    path = folder / f"{to}.yaml"
    path.write_text(chosen.model_dump_json())
    inputs = ("--features", folder / "features", "--ground-truth", folder / "truth.json")
    clicks = ("--clicks", folder / "clicks.txt", "--recipe", path, "--to", folder / to)
    return ["-m", "backtal.cli", "train", *map(str, (*inputs, *clicks)), *words]


def environment(**variables: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", **variables}


def wait_for_newer(state: Path, before: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 300
    while not (state.exists() and state.stat().st_mtime_ns > before):
        assert process.poll() is None, "the run ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_killed_in_the_middle_of_an_epoch(folder: Path) -> None:
    """SIGKILL for a real process, twice, at no particular moment; then the command once more."""
    chosen = recipe(optimizer={"epochs": 40})
    run = [sys.executable, *command(folder, chosen, "killed", "--threads", "1")]
    slowed = (
        "import runpy, sys, time; import backtal_training.trainer as t; one = t.step\n"
        "t.step = lambda *a: (time.sleep(0.02), one(*a))[1]\n"
        "t.train.__kwdefaults__['save_every_seconds'] = 0.0\n"
        "runpy.run_module('backtal.cli', run_name='__main__')"
    )
    state = folder / "killed.state"
    for _ in range(2):
        before = state.stat().st_mtime_ns if state.exists() else 0
        with subprocess.Popen(
            [sys.executable, "-c", slowed, *run[3:]],
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            try:
                wait_for_newer(state, before, process)
                time.sleep(0.03)
            finally:
                process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
        assert not (folder / "killed").exists()
    subprocess.run(run, env=environment(), check=True, capture_output=True)
    assert not state.exists()
    unbroken = [sys.executable, *command(folder, chosen, "unbroken", "--threads", "1")]
    subprocess.run(unbroken, env=environment(), check=True, capture_output=True)
    ours, theirs = (
        safetensors.torch.load_file(folder / name / "weights.safetensors")
        for name in ("killed", "unbroken")
    )
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_two_processes_are_one_run(folder: Path) -> None:
    """Without clicks every term is a mean over videos, so that shares add up to the whole."""
    chosen = recipe(
        network={"dropout": 0.0}, optimizer={"batch_videos": 5}, selection={"held_out_fraction": 0}
    )
    words = ("--device", "cpu", "--threads", "1")
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    for to, start in (("two", launch), ("one", ())):
        words_of = command(folder, chosen, to, *words, "--without-clicks")
        done = subprocess.run(
            [sys.executable, *start, *words_of], env=environment(), capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    two, one = (
        safetensors.torch.load_file(folder / name / "weights.safetensors")
        for name in ("two", "one")
    )
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-3, atol=1e-5)


def test_the_result_says_what_the_epoch_was_chosen_on(folder: Path) -> None:
    from backtal.cli import main

    for words, expected in (
        ((), "held-out part of the training split"),
        (("--choose-on-test", "test"), "test split"),
    ):
        main(command(folder, recipe(), "here", *words)[2:])
        metrics = json.loads((folder / "here" / "metrics.json").read_text())
        assert metrics["epoch_chosen_on"] == expected
        description = json.loads((folder / "here" / "checkpoint.json").read_text())
        assert description["training"]["epoch_chosen_on"] == expected
        maps = [epoch["held_out_map"] for epoch in metrics["epochs"]]
        assert metrics["chosen_epoch"] == 1 + int(np.argmax(maps))
    assert trained(recipe(selection={"held_out_fraction": 0})).chosen_on.startswith("nothing")
    with pytest.raises(InvalidArgument, match="there are no test videos"):
        trained(recipe(selection={"on_test_split": True}))


def test_videos_without_a_label_and_options_that_clash_are_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from backtal.cli import main

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    document = json.loads((folder / "truth.json").read_text())
    document["database"]["video_002"]["annotations"] = []
    (folder / "truth.json").write_text(json.dumps(document))
    for words, message in (
        (command(folder, recipe(), "a")[2:], "1 videos to train on have no label: video_002"),
        (["train", "--to", "a"], "--features is missing, and there is no --data-set"),
        (["train", "--to", "a", "--data-set", "own", "--clicks", "c"], "give one"),
        ([*command(folder, recipe(), "a")[2:], "--device", "cuda"], "no GPU that PyTorch can use"),
    ):
        assert main(words) == 2
        assert message in capsys.readouterr().err


def test_a_run_ends_after_patience_evaluations() -> None:
    run = trained(recipe(selection={"patience": 2}, optimizer={"epochs": 60}))
    assert len(run.epochs) == run.chosen_epoch + 2 < 60


def test_warm_up_and_cosine() -> None:
    settings = OptimizerSettings(
        learning_rate=1.0, schedule="cosine", warmup_epochs=0.5, epochs=3, final_fraction=0.1
    )
    rates = [learning_rate(settings, step, 8) for step in range(24)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates[-1] == pytest.approx(0.1)
    assert rates[3:] == sorted(rates[3:], reverse=True)
    assert learning_rate(OptimizerSettings(learning_rate=0.3), 1000, 1) == 0.3


def test_long_gradients_are_shortened_together() -> None:
    one, two, none = (torch.zeros(2, requires_grad=True) for _ in range(3))
    one.grad, two.grad = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 4.0])
    clip_gradients([one, two, none], 10.0)
    assert one.grad.tolist() == [3, 0]
    clip_gradients([one, two, none], 1.0)
    torch.testing.assert_close(one.grad, torch.tensor([0.6, 0.0]))
    torch.testing.assert_close(two.grad, torch.tensor([0.0, 0.8]))
    assert none.grad is None


@pytest.mark.parametrize("supervision", ["clicks", "frames"])
def test_no_step_waits_for_the_device(supervision: Any) -> None:
    """On the device `meta` there are no values: whoever asks for one gets an error."""
    from backtal_training.network import BackTALNetwork

    chosen = recipe()
    meta = torch.device("meta")
    network = BackTALNetwork(chosen.network.network(feature_dim=24, num_classes=3)).to(meta)
    batch = make_batch(samples()[:3], 40, np.random.default_rng(0))
    assert len(set(batch.lengths.tolist())) > 1
    terms = batch_losses(network, batch, chosen, supervision, meta)
    torch.autograd.backward(terms["total"])
    clip_gradients(list(network.parameters()), 1.0)
    with pytest.raises(RuntimeError):
        terms["total"].item()


def test_bfloat16_learns_as_float32_does() -> None:
    runs = [
        trained(recipe(optimizer={"precision": precision, "epochs": 30}))
        for precision in ("float32", "bfloat16")
    ]
    totals = [run.epochs[-1].losses["total"] for run in runs]
    assert totals[1] == pytest.approx(totals[0], rel=0.1)
    assert totals[1] < 0.8 * runs[1].epochs[0].losses["total"]
    assert all(value.dtype == torch.float32 for value in weights(runs[1]).values())
