"""A small HTTP server that answers like the Hugging Face hub, for one model."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """Serves `files` as the model org/name at COMMIT, the way the hub does, and notes what was asked."""

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.files = files
        self.asked: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Answer(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        headers = {"X-Repo-Commit": COMMIT}
        if self.path.startswith(f"/api/models/org/name/tree/{COMMIT}"):
            files = self.server.files.items()
            data = json.dumps(
                [{"type": "file", "path": name, "size": len(body), "oid": "0"} for name, body in files]
            ).encode()
        elif self.path.startswith("/api/models/org/name"):
            siblings = [{"rfilename": name} for name in self.server.files]
            data = json.dumps({"id": "org/name", "sha": COMMIT, "siblings": siblings}).encode()
        elif (name := self.path.removeprefix(f"/org/name/resolve/{COMMIT}/")) in self.server.files:
            data = self.server.files[name]
            headers["ETag"] = f'"{hashlib.sha256(data).hexdigest()}"'
        else:
            data = b"{}"
            headers["X-Error-Code"] = "RepoNotFound"
        self.send_response(404 if "X-Error-Code" in headers else 200)
        for key, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass
