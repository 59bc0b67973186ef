"""Real servers on loopback that send objects by ranges, and misbehave as they are told."""

from __future__ import annotations

import re
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import trustme


@dataclass
class Site:
    """What an https server has, and which requests it got, as (path, Range)."""

    host: str
    port: int
    ca_file: Path
    objects: dict[str, bytes] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    statuses: dict[str, int] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    serves_ranges: bool = True
    drips_seconds: float = 0.0
    weak_etags: bool = False

    def url(self, path: str) -> str:
        return f"https://{self.host}:{self.port}{path}"


@contextmanager
def https_site(folder: Path, host: str = "127.0.0.1", names: str = "127.0.0.1") -> Iterator[Site]:
    """A server on `host` with a certificate for `names`."""
    authority = trustme.CA()
    ca_file = folder / f"ca-{host}.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(names).configure_cert(context)
    site = Site(host, 0, ca_file)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            site.requests.append((self.path, self.headers.get("Range", "")))
            path = self.path.partition("?")[0]
            if path in site.redirects:
                self._send(302, b"", {"Location": site.redirects[path]})
            elif path in site.statuses:
                self._send(site.statuses[path], b"no")
            elif path not in site.objects:
                self._send(404, b"nothing here")
            else:
                self._send_object(site.objects[path])

        def _send_object(self, data: bytes) -> None:
            weak = "W/" if site.weak_etags else ""
            etag = {"ETag": f'{weak}"{hash(data)}"'}
            asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            if not asked or not site.serves_ranges:
                self._send(200, data, etag)
                return
            start, end = int(asked[1]), min(int(asked[2]), len(data) - 1)
            if start > end:
                self._send(416, b"", {"Content-Range": f"bytes */{len(data)}"})
                return
            told = {"Content-Range": f"bytes {start}-{end}/{len(data)}"}
            self._send(206, data[start : end + 1], {**told, **etag})

        def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            while site.drips_seconds and body:
                self.wfile.write(body[:1])
                self.wfile.flush()
                body = body[1:]
                time.sleep(site.drips_seconds)
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            """Nothing: the list of requests is what tests look at."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """Clients that hang up early are what some tests are about."""

    server = Server((host, 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    site.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
