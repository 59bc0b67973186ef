"""`make check` fails for a known vulnerability, and says so where it cannot know of one.

pip-audit asks PyPI by its name, so these tests are its proxy, with a certificate for that name.
"""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import trustme

from deploy import audit

ADVISORY = {
    "id": "PYSEC-2026-1",
    "aliases": ["CVE-2026-0001"],
    "summary": "it breaks",
    "fixed_in": ["1.2"],
}


@dataclass
class Advisories:
    """What PyPI answers: the status of each, and what is known of a pin."""

    status: int = 200
    known: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    missing: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def advisories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Advisories]:
    told = Advisories()
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("pypi.org").configure_cert(context)

    class Handler(BaseHTTPRequestHandler):
        def do_CONNECT(self) -> None:
            self.send_response(200)
            self.end_headers()
            with (
                suppress(OSError),
                context.wrap_socket(self.connection, server_side=True) as inner,
                inner.makefile("rb") as self.rfile,
                inner.makefile("wb") as self.wfile,  # type: ignore[assignment]
            ):
                self.handle_one_request()
            self.rfile = self.wfile = BytesIO()  # type: ignore[assignment]
            self.close_connection = True

        def do_GET(self) -> None:
            pin = "==".join(self.path.split("/")[2:4])
            told.asked.append(pin)
            body = json.dumps({"vulnerabilities": told.known.get(pin, [])}).encode()
            self.send_response(404 if pin in told.missing else told.status)
            self.send_header("content-length", str(len(body)))
            self.send_header("connection", "close")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    # Its cache of answers.
    monkeypatch.setenv("PIP_CACHE_DIR", str(tmp_path / "cache"))
    try:
        yield told
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def daily(tmp_path: Path) -> list[str]:
    """What `make check` runs, with pins of two images, one of them in two versions."""
    files = tmp_path / "one.txt", tmp_path / "two.txt"
    files[0].write_text("alpha==1.0 \\\n    --hash=sha256:00\nbeta==2.0 ; python_version > '3'\n")
    files[1].write_text("alpha==1.1 \\\n    --hash=sha256:11\nbeta==2.0\n")
    return ["--daily", f"--stamp={tmp_path / 'stamp'}", *map(str, files)]


def test_what_is_sound_is_asked_for_once_a_day(advisories: Advisories, daily: list[str]) -> None:
    assert audit.main(daily) == 0
    assert sorted(advisories.asked) == ["alpha==1.0", "alpha==1.1", "beta==2.0"]
    advisories.asked.clear()
    assert audit.main(daily) == 0
    assert advisories.asked == []
    with Path(daily[-1]).open("a") as file:
        file.write("gamma==3\n")
    assert audit.main(daily) == 0
    assert "gamma==3" in advisories.asked


def test_a_known_vulnerability_fails(
    advisories: Advisories, daily: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    advisories.known["alpha==1.1"] = [ADVISORY]
    assert audit.main(daily) == 1
    assert not (Path(daily[-1]).parent / "stamp").exists()
    assert (
        "audit: alpha 1.1: PYSEC-2026-1, CVE-2026-0001, mended in 1.2\n" in capfd.readouterr().err
    )


@pytest.mark.parametrize("status", [404, 503])
def test_where_pypi_has_no_advisories_a_line_says_so(
    advisories: Advisories, daily: list[str], status: int, capfd: pytest.CaptureFixture[str]
) -> None:
    advisories.status = status
    assert audit.main(daily) == 0
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("audit: nothing was audited, no advisories: ")


def test_what_was_found_before_the_advisories_went_away_fails(
    advisories: Advisories, daily: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    advisories.known["alpha==1.0"] = [ADVISORY]
    advisories.missing.add("alpha==1.1")
    assert audit.main(daily) == 1
    assert "audit: the rest was not audited, no advisories: " in capfd.readouterr().err


def test_one_package_that_pypi_does_not_know_fails(
    advisories: Advisories, daily: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    advisories.missing.add("beta==2.0")
    assert audit.main(daily) == 1
    assert "beta: Dependency not found on PyPI" in capfd.readouterr().err


@pytest.mark.parametrize("is_silent", [True, False])
def test_where_nobody_answers_a_line_says_so(
    daily: list[str],
    is_silent: bool,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(audit, "ANSWER_SECONDS", 1)
    with socket.socket() as proxy:
        proxy.bind(("127.0.0.1", 0))
        if is_silent:
            proxy.listen()
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        assert audit.main(daily) == 0
        # `make audit` was asked for nothing else.
        assert audit.main(daily[1:]) == 1
    assert capfd.readouterr().err.count("nothing was audited, no advisories: ") == 2


def test_pins_that_are_none_fail(daily: list[str], tmp_path: Path) -> None:
    Path(daily[-1]).write_text("alpha==not-a-version\n")
    assert audit.main([daily[1], daily[-1]]) == 1
