from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from backtal.errors import InvalidArgument, NotFound, PermissionDenied
from backtal_serving.uris import resolve


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "allowed"
    folder.mkdir()
    (folder / "a video.mp4").write_bytes(b"video")
    (tmp_path / "secret.mp4").write_bytes(b"secret")
    return folder


@pytest.mark.parametrize("form", ["file://{}/a%20video.mp4", "file:{}/a video.mp4"])
def test_a_file_under_a_root_is_found(root: Path, form: str) -> None:
    assert resolve(form.format(root), [root]) == root / "a video.mp4"


def test_localhost_is_no_other_host(root: Path) -> None:
    assert resolve(f"file://localhost{root}/a%20video.mp4", [root]) == root / "a video.mp4"


def test_one_of_several_roots_is_enough(root: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert resolve(f"file://{root}/a%20video.mp4", [elsewhere, root]).is_file()


def test_a_root_may_itself_be_a_link(root: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(root)
    assert resolve(f"file://{link}/a%20video.mp4", [link]) == root / "a video.mp4"


@pytest.mark.parametrize(
    "tail", ["/../secret.mp4", "/%2e%2e/secret.mp4", "/x/../../secret.mp4", "-neighbour/file"]
)
def test_a_path_out_of_the_root_is_denied(root: Path, tail: str) -> None:
    uri = f"file://{root}{tail}"
    with pytest.raises(PermissionDenied, match=re.escape(str(root))) as caught:
        resolve(uri, [root])
    assert uri in caught.value.message


def test_a_link_out_of_the_root_is_denied(root: Path, tmp_path: Path) -> None:
    (root / "link.mp4").symlink_to(tmp_path / "secret.mp4")
    (root / "folder").symlink_to(tmp_path)
    for name in ("link.mp4", "folder/secret.mp4"):
        with pytest.raises(PermissionDenied):
            resolve(f"file://{root}/{name}", [root])


def test_outside_existence_is_not_told(root: Path, tmp_path: Path) -> None:
    for name in ("secret.mp4", "missing.mp4"):
        with pytest.raises(PermissionDenied):
            resolve(f"file://{tmp_path}/{name}", [root])


def test_without_roots_nothing_is_allowed(root: Path) -> None:
    with pytest.raises(PermissionDenied, match="started without any"):
        resolve(f"file://{root}/a%20video.mp4", [])


def test_a_missing_file_under_a_root_is_not_found(root: Path) -> None:
    with pytest.raises(NotFound, match=r"missing\.mp4"):
        resolve(f"file://{root}/missing.mp4", [root])


def test_a_folder_and_a_pipe_are_no_files(root: Path) -> None:
    os.mkfifo(root / "pipe")
    for name in ("", "pipe"):
        with pytest.raises(InvalidArgument, match="no regular file"):
            resolve(f"file://{root}/{name}", [root])


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("http://example.org/a.mp4", "scheme 'http', allowed are file:, https:, s3:"),
        ("ftp://example.org/a.mp4", "scheme 'ftp', allowed are file:"),
        ("concat:a|b", "scheme 'concat', allowed are file:"),
        ("subfile,,start,0,end,9,,:/etc/passwd", "scheme '', allowed are file:"),
        ("data:video/mp4;base64,AAAA", "scheme 'data', allowed are file:"),
        ("/plain/path.mp4", "scheme '', allowed are file:"),
        ("", "scheme '', allowed are file:"),
        ("file://other/a.mp4", "host 'other'"),
        ("file:relative.mp4", "no absolute path"),
        ("file:", "no absolute path"),
        ("file:///a%00b", "no absolute path"),
        ("file:///a?b", "query or a fragment"),
        ("file:///a#b", "query or a fragment"),
        ("file:///%ff", "UTF-8"),
        ("file://[", "ill-formed"),
    ],
)
def test_an_ill_formed_uri_is_refused_by_its_value(root: Path, uri: str, says: str) -> None:
    with pytest.raises(InvalidArgument, match=re.escape(says)) as caught:
        resolve(uri, [root])
    assert repr(uri) in caught.value.message


def test_a_loop_of_links_is_no_crash(root: Path) -> None:
    (root / "a").symlink_to(root / "b")
    (root / "b").symlink_to(root / "a")
    with pytest.raises(InvalidArgument, match="Too many levels"):
        resolve(f"file://{root}/a", [root])


def test_a_name_too_long_is_no_crash(root: Path) -> None:
    with pytest.raises(InvalidArgument, match="cannot be looked up"):
        resolve(f"file://{root}/{'a' * 300}", [root])
    with pytest.raises(InvalidArgument, match="allowed are 4096"):
        resolve(f"file://{root}/{'a' * 5000}", [root])
