"""An HTTP server on this machine that breaks off, lies or knows no Range."""

from __future__ import annotations

import hashlib
import random
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from local.fetch import Archive

DATA = random.Random(1).randbytes(300_000)


class Server(ThreadingHTTPServer):
    """Serves `files` by name or else `data`, at most `most` bytes a connection, `pause` seconds before each 10 kB."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.data, self.most, self.ranges, self.status, self.pause = DATA, len(DATA), True, 200, 0.0
        self.files: dict[str, bytes | None] = {}  # None: not found
        self.tells_length = True
        self.starts: list[int] = []  # of the downloads; questions for the size are not among them

    def url(self, name: str = "sounds.bin") -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"

    def archive(self, sha256: str | None = None) -> Archive:
        digest = sha256 or hashlib.sha256(DATA).hexdigest()
        return Archive("sounds.bin", len(DATA), digest, url=self.url())

    def handle_error(self, request: object, client_address: object) -> None:
        """Who asks for the size only, or is killed, does not read on."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers["Range"]
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.server.ranges else 0
        if asked:
            self.server.starts.append(start)
        data = self.server.files.get(self.path.strip("/"), self.server.data)
        if self.server.status != 200 or data is None:
            self.send_error(404 if data is None else self.server.status)
            return
        if start and start >= len(data):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(data)}")
            self.end_headers()
            return
        body = data[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        if self.server.tells_length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        for at in range(0, min(len(body), self.server.most), 10_000):
            time.sleep(self.server.pause)
            self.wfile.write(body[at : min(at + 10_000, self.server.most)])

    def log_message(self, *_: object) -> None:
        pass
