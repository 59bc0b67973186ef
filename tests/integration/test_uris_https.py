"""https URIs against real servers; a canary server proves what was not read."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backtal.errors import (
    InvalidArgument,
    InvalidFile,
    InvalidVideo,
    MissingDependency,
    NotFound,
    PermissionDenied,
    Unavailable,
)
from backtal.manifest import ClipPlan
from backtal.settings import parse
from backtal.video import RangeReader, open_video
from backtal.video.sandbox import DecoderPool
from backtal_serving.uris import RemoteAccess, resolve
from tests.integration.videos import moving_colours
from tests.requirements import require
from tests.web_servers import Site, https_site

PLAN = ClipPlan(short_side_pixels=32, crop_pixels=32)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with https_site(tmp_path) as opened:
        opened.objects["/videos/a.mp4"] = bytes(range(256)) * 4096
        yield opened


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Site]:
    """A server inside the network that nobody allowed."""
    with https_site(tmp_path, host="127.0.0.2", names="127.0.0.2") as opened:
        opened.objects["/secret"] = b"secret"
        yield opened
    assert opened.requests == []


def access(site: Site, **changes: Any) -> RemoteAccess:
    settings = {
        "prefixes": [site.url("/videos/")],
        "private_networks": ["127.0.0.1/32"],
        "ca_file": site.ca_file,
        "timeout_seconds": 2.0,
        **changes,
    }
    return RemoteAccess.model_validate(settings)


def open_object(uri: str, remote: RemoteAccess) -> RangeReader:
    opened = resolve(uri, [], remote)
    assert not isinstance(opened, Path)
    return opened


def test_an_object_is_read_by_its_parts(site: Site) -> None:
    data = site.objects["/videos/a.mp4"]
    with closing(open_object(site.url("/videos/a.mp4?sign=x"), access(site))) as opened:
        assert opened.num_bytes == len(data)
        # The signature is a secret: no message has it.
        assert opened.name == site.url("/videos/a.mp4")
        for offset, length in ((0, 10), (300_000, 1000), (len(data) - 5, 5), (0, len(data))):
            assert opened.read_at(offset, length) == data[offset : offset + length]
    assert site.requests[0] == ("/videos/a.mp4?sign=x", "bytes=0-262143")
    assert site.requests[1][1] == "bytes=300000-300999"


def test_its_version_names_its_content(site: Site) -> None:
    def version(uri: str) -> str | None:
        with closing(open_object(site.url(uri), access(site))) as opened:
            return opened.version

    first = version("/videos/a.mp4")
    assert first is not None
    assert version("/videos/a.mp4") == first
    # A query may choose another object.
    assert version("/videos/a.mp4?id=2") != first
    site.objects["/videos/a.mp4"] = bytes(1 << 20)
    assert version("/videos/a.mp4") != first
    # The same for what is about the same: a promise too weak.
    site.weak_etags = True
    assert version("/videos/a.mp4") is None


def test_a_child_decodes_a_remote_video_and_asks_for_no_more_than_it_needs(site: Site) -> None:
    video = moving_colours(30.0)
    # Its index is in front; what lies behind its frames is of no use.
    site.objects["/videos/b.mp4"] = video + b"\0\0\0\x08free" + bytes(8_000_000)
    pool = DecoderPool()
    try:
        pool.start()
    except MissingDependency as error:
        require("seccomp", error.message)
    with (
        pool,
        closing(open_video(video)) as here,
        closing(
            open_video(open_object(site.url("/videos/b.mp4"), access(site)), pool=pool)
        ) as there,
    ):
        windows = there.windows(PLAN, window_frames=200)
        for expected, found in zip(here.windows(PLAN, window_frames=200), windows, strict=True):
            np.testing.assert_array_equal(found.frames, expected.frames)
        assert there.report.num_frames == 750
    num_bytes = sum(_length(asked) for _, asked in site.requests)
    assert num_bytes < len(video) + 3 * 262_144


def test_a_redirect_is_followed_where_it_is_allowed(site: Site) -> None:
    site.redirects["/videos/moved.mp4"] = "a.mp4"
    with closing(open_object(site.url("/videos/moved.mp4"), access(site))) as opened:
        assert opened.read_at(0, 4) == b"\0\1\2\3"


@pytest.mark.parametrize(
    "target",
    ["https://127.0.0.2:{port}/secret", "//127.0.0.2:{port}/secret", "/../secret", "/private/x"],
)
def test_a_redirect_out_of_the_prefixes_is_denied(site: Site, canary: Site, target: str) -> None:
    site.redirects["/videos/moved.mp4"] = target.format(port=canary.port)
    with pytest.raises(
        (PermissionDenied, InvalidArgument), match=r"outside the allowed|without \."
    ):
        open_object(site.url("/videos/moved.mp4"), access(site))
    assert len(site.requests) == 1


@pytest.mark.parametrize(
    "target", ["http://127.0.0.2/secret", "file:///etc/passwd", "ftp://127.0.0.2/secret"]
)
def test_a_redirect_to_another_scheme_is_refused(site: Site, canary: Site, target: str) -> None:
    site.redirects["/videos/moved.mp4"] = target
    with pytest.raises(InvalidArgument, match="expected https"):
        open_object(site.url("/videos/moved.mp4"), access(site))


def test_redirects_in_a_circle_end(site: Site) -> None:
    site.redirects["/videos/a.mp4"] = "/videos/a.mp4"
    with pytest.raises(InvalidArgument, match="redirects more than 3 times"):
        open_object(site.url("/videos/a.mp4"), access(site))
    assert len(site.requests) == 4


def test_an_allowed_name_with_a_private_address_is_denied(site: Site) -> None:
    with pytest.raises(PermissionDenied, match="an address that is not public"):
        open_object(site.url("/videos/a.mp4"), access(site, private_networks=[]))
    assert site.requests == []


def test_an_allowed_name_that_leads_to_another_address_is_denied(
    site: Site, canary: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name with a good address beside a private one, whichever comes first."""
    answers = [_address("127.0.0.1", site.port), _address("127.0.0.2", canary.port)]
    for order in (answers, answers[::-1]):
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, order=order, **__: order)
        with pytest.raises(PermissionDenied, match="an address that is not public"):
            open_object(site.url("/videos/a.mp4"), access(site))


def test_the_address_that_was_checked_is_the_one_connected_to(
    tmp_path: Path, canary: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name server that answers the check with one address and the connection with another."""
    real = socket.getaddrinfo
    asked: list[str] = []

    def rebind(host: str, *arguments: Any, **named: Any) -> Any:
        if host != "media.test":
            return real(host, *arguments, **named)
        asked.append(host)
        return real("127.0.0.1" if len(asked) == 1 else "127.0.0.2", *arguments, **named)

    monkeypatch.setattr(socket, "getaddrinfo", rebind)
    with https_site(tmp_path, names="media.test") as site:
        site.objects["/videos/a.mp4"] = b"0123456789" * 100_000
        site.host = "media.test"
        with closing(open_object(site.url("/videos/a.mp4"), access(site))) as opened:
            assert opened.read_at(999_990, 10) == b"0123456789"
    assert asked == ["media.test"]


@pytest.mark.parametrize(
    "path",
    [
        "/videos/../private",
        "/videos/%2e%2e/private",
        "/videos/..%2fprivate",
        "/videos/%252e%252e/private",
        "/videos/x\\..\\private",
        "/videos/a%00.mp4",
        "/private/a.mp4",
        "/videosx/a.mp4",
        "/videos",
    ],
)
def test_a_path_out_of_the_prefix_is_refused(site: Site, path: str) -> None:
    with pytest.raises((PermissionDenied, InvalidArgument)):
        open_object(site.url(path), access(site))
    assert site.requests == []


@pytest.mark.parametrize(
    "uri",
    [
        "https://user:password@127.0.0.1:{port}/videos/a.mp4",
        "https://127.0.0.1:{port}@127.0.0.2/videos/a.mp4",
        "https://127.0.0.1:{port}/videos/a.mp4#x",
        "https://127.1:{port}/videos/a.mp4",
        "https://2130706433:{port}/videos/a.mp4",
        "https://127.0.0.1:99999/videos/a.mp4",
        "https://127.0.0.1:1/videos/a.mp4",
        "https://[::ffff:127.0.0.2]:{port}/videos/a.mp4",
        "https:///videos/a.mp4",
        "https://ｌocalhost/videos/a.mp4",
    ],
)
def test_another_spelling_of_a_host_is_refused(site: Site, canary: Site, uri: str) -> None:
    with pytest.raises((PermissionDenied, InvalidArgument)):
        open_object(uri.format(port=site.port), access(site))
    assert site.requests == []


def test_what_a_server_answers_becomes_our_error(site: Site) -> None:
    site.objects["/videos/empty"] = b""
    site.statuses = {"/videos/403": 403, "/videos/503": 503, "/videos/418": 418}
    for path, kind, says in (
        ("/videos/missing", NotFound, "no such object"),
        ("/videos/empty", InvalidVideo, "0 bytes"),
        ("/videos/403", PermissionDenied, "status 403"),
        ("/videos/503", Unavailable, "status 503"),
        ("/videos/418", InvalidArgument, "status 418"),
    ):
        with pytest.raises(kind, match=says):
            open_object(site.url(path), access(site))


def test_a_server_without_ranges_is_refused_before_it_sends_all(site: Site) -> None:
    site.serves_ranges = False
    with pytest.raises(InvalidArgument, match="does not send byte ranges"):
        open_object(site.url("/videos/a.mp4"), access(site))


def test_an_object_that_changes_is_noticed(site: Site) -> None:
    with closing(open_object(site.url("/videos/a.mp4"), access(site))) as opened:
        site.objects["/videos/a.mp4"] = b"x" * opened.num_bytes
        with pytest.raises(Unavailable, match="changed while it was read"):
            opened.read_at(500_000, 10)


def test_a_server_that_drips_is_given_up(site: Site) -> None:
    site.drips_seconds = 0.05
    with pytest.raises(Unavailable, match="take too long"):
        open_object(site.url("/videos/a.mp4"), access(site, timeout_seconds=0.2))


def test_a_certificate_of_another_name_is_not_trusted(tmp_path: Path) -> None:
    with https_site(tmp_path, names="other.test") as site:
        site.objects["/videos/a.mp4"] = b"x"
        with pytest.raises(Unavailable, match="SSLError"):
            open_object(site.url("/videos/a.mp4"), access(site))
        assert site.requests == []


def test_a_server_that_is_gone_is_unavailable(site: Site) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    gone = f"https://127.0.0.1:{port}/videos/"
    with pytest.raises(Unavailable, match="cannot be read"):
        open_object(f"{gone}a.mp4", access(site, prefixes=[gone]))


@pytest.mark.parametrize(
    "prefix",
    ["https://host", "https://host/no-slash", "http://host/", "file:///x/", "https://a@b/", "x"],
)
def test_a_prefix_that_allows_more_than_it_says_is_refused(prefix: str) -> None:
    with pytest.raises(InvalidFile, match="prefixes"):
        parse(RemoteAccess, {"prefixes": [prefix]}, source="settings")


def _length(asked: str) -> int:
    first, last = asked.removeprefix("bytes=").split("-")
    return int(last) - int(first) + 1


def _address(text: str, port: int) -> Any:
    return (socket.AF_INET, socket.SOCK_STREAM, 6, "", (text, port))
