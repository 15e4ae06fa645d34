"""A small OpenAI-compatible server on this machine that does as a test says."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "sk-planted-0123456789"

Reply = tuple[int, dict[str, str], Any]


def completion(text: Any, finish: str = "stop", **message: Any) -> Reply:
    return (
        200,
        {},
        {
            "id": "x",
            "object": "chat.completion",
            "created": 0,
            "model": "m",
            "choices": [
                {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text, **message}}
            ],
            "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
        },
    )


def error(status: int, **headers: str) -> Reply:
    """An error as long as proxies' pages are, which repeats the key. `Retry_After` is Retry-After."""
    return status, headers, {"error": {"message": f"{KEY} " + "no " * 500, "type": "t"}}


class Server(ThreadingHTTPServer):
    """Answers a prompt with `act(prompt, how often it was asked before)`; counts what is under way."""

    daemon_threads = False  # so that closing waits for every request: nothing is left running
    block_on_close = True

    def __init__(self, act: Callable[[str, int], Reply], port: int = 0, host: str = "127.0.0.1") -> None:
        super().__init__((host, port), Handler)
        self.act, self.asked, self.bodies = act, Counter[str](), list[dict[str, Any]]()
        self.keys, self.times = set[str | None](), list[float]()
        self.lock, self.now, self.most = threading.Lock(), 0, 0

    @property
    def url(self) -> str:
        return f"http://{self.server_address[0]}:{self.server_port}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client that hung up is part of a test."""


class Handler(BaseHTTPRequestHandler):
    server: Server
    timeout = 5

    def do_GET(self) -> None:
        self.server.keys.add(self.headers["Authorization"])
        found = self.path == "/v1/models"
        self.send(self.server.act("models", 0) if found else error(404))

    def do_POST(self) -> None:
        server, body = self.server, json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = body["messages"][0]["content"]
        with server.lock:
            before, server.asked[prompt] = server.asked[prompt], server.asked[prompt] + 1
            server.now += 1
            server.most = max(server.most, server.now)
            server.keys.add(self.headers["Authorization"])
            server.bodies.append(body)
            server.times.append(time.monotonic())
        try:
            assert self.path == "/v1/chat/completions"
            reply = server.act(prompt, before)
        finally:
            with server.lock:
                server.now -= 1
        self.send(reply)

    def send(self, reply: Reply) -> None:
        status, headers, body = reply
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        usual = {"Content-Type": "application/json", "Content-Length": str(len(data))}
        for name, value in {**usual, **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def serving(act: Callable[[str, int], Reply], port: int = 0, host: str = "127.0.0.1") -> Iterator[Server]:
    with Server(act, port, host) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
