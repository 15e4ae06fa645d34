"""A small HTTP proxy before an S3 server, which misbehaves as it is told: what a busy or a broken S3 does."""

import http.client
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

Kind = Literal["slow down", "cut", "silent"]

SLOW_DOWN = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n'
    b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
)


@dataclass(frozen=True)
class Trouble:
    """Until `end` (monotonic seconds), a `share` of the requests meets it."""

    kind: Kind
    end: float
    share: float
    silence: float = 0.0
    """Seconds that a silent server keeps its connection open before it hangs up."""


class Proxy(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, host: str, target: str, seed: int = 0) -> None:
        super().__init__((host, 0), Handler)
        self.target = target
        self.random, self.lock = random.Random(seed), threading.Lock()
        self.trouble: Trouble | None = None
        self.met = Counter[str]()

    @property
    def url(self) -> str:
        return f"http://{self.server_address[0]}:{self.server_port}"

    def draw(self) -> tuple[Trouble | None, float]:
        """What the next request meets, and a number from 0 to 1 that decides how."""
        with self.lock:
            trouble, chance, how = self.trouble, self.random.random(), self.random.random()
            if trouble is None or time.monotonic() > trouble.end or chance > trouble.share:
                return None, how
            self.met[trouble.kind] += 1
            return trouble, how

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: a client that hangs up, or a server that is not there, is part of a run."""


class Handler(BaseHTTPRequestHandler):
    server: Proxy
    protocol_version = "HTTP/1.1"
    timeout = 120

    def answer(self) -> None:
        trouble, how = self.server.draw()
        body = self.body()
        if trouble and trouble.kind == "slow down":
            self.reply(503, "Slow Down", [("Content-Type", "application/xml")], SLOW_DOWN, len(SLOW_DOWN))
            return
        if trouble and trouble.kind == "silent":
            time.sleep(trouble.silence)
            self.hang_up()
            return
        if trouble and self.command == "PUT" and how < 0.5:
            self.hang_up()  # the object has not arrived; otherwise it has, and the answer gets lost
            return
        try:
            status, reason, headers, data, length = self.forward(body)
        except (OSError, http.client.HTTPException):
            self.hang_up()  # the server is not there, or died over it
            return
        if not trouble:
            self.reply(status, reason, headers, data, length)
        elif data:
            self.reply(status, reason, headers, data[: int(how * len(data))], length)
            self.hang_up()
        else:
            self.hang_up()

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = answer

    def body(self) -> bytes | None:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            raise NotImplementedError("a chunked request")
        return self.rfile.read(int(length)) if (length := self.headers.get("Content-Length")) else None

    def forward(self, body: bytes | None) -> tuple[int, str, list[tuple[str, str]], bytes, int]:
        """Status, reason, headers and body of the server's answer, and the length that it states."""
        connection = http.client.HTTPConnection(self.server.target, timeout=60)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in ("expect", "connection"):
                    connection.putheader(name, value)  # the host too: it is signed
            connection.endheaders(body)
            answer = connection.getresponse()
            data = answer.read()
            length = int(answer.getheader("Content-Length") or 0) if self.command == "HEAD" else len(data)
            own = ("connection", "content-length", "transfer-encoding")
            headers = [(name, value) for name, value in answer.getheaders() if name.lower() not in own]
            return answer.status, answer.reason, headers, data, length
        finally:
            connection.close()

    def reply(self, status: int, reason: str, headers: list[tuple[str, str]], data: bytes, length: int) -> None:
        self.send_response_only(status, reason)
        for name, value in headers:
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(data)

    def hang_up(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(host: str, target: str, seed: int = 0) -> Iterator[Proxy]:
    """A proxy on a free port of `host` before the server at `target` (host:port)."""
    with Proxy(host, target, seed) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
            thread.join()
