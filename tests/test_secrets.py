"""Keys stay where they are: in no run, no log of ours or Ray's, no error, no report, whatever goes wrong."""

import io
import json
import os
import subprocess
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pyarrow.parquet as pq
import pytest

from syncir_ray import storage
from syncir_ray.run import Run
from tests import chat_server, s3_server, world

TOKEN = "hf_planted0123456789abcdefghij"
SECRETS = [chat_server.KEY, TOKEN, s3_server.KEY, s3_server.SECRET]
PASSWORD = "pass-planted-0123456789"


class Echo(BaseHTTPRequestHandler):
    """A hub that refuses, and repeats the token as it does so."""

    asked: ClassVar[list[str | None]] = []

    def do_GET(self) -> None:
        self.asked.append(token := self.headers["Authorization"])
        body = json.dumps({"error": f"no access with {token}"}).encode()
        self.send_response(500)
        self.send_header("X-Error-Message", f"no access with {token}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass


def write(prompt: str, before: int) -> chat_server.Reply:
    """Some prompts are refused with the key in the error, some are answered with it."""
    reply = world.write(prompt, before)
    if prompt != "models" and sum(prompt.encode()) % 7 == 0:
        return chat_server.completion(f"change the key to {chat_server.KEY}")
    return reply


@pytest.fixture(scope="module")
def told(tmp_path_factory, s3):
    """Everything that was written and printed by runs that went well and others that did not, by where it is; and
    the exit statuses."""
    folder, out = tmp_path_factory.mktemp("secrets"), s3("secrets")
    hub = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    models, source = world.models(folder / "models"), str(folder / "images.jsonl")
    rows = [(path.name, f"{path.stem} of a dog") for path in world.images(folder / "images").glob("*.jpg")]
    lines = (json.dumps({"uri": f"images/{name}", "caption": caption}) for name, caption in rows)
    Path(source).write_text("\n".join(lines))
    for name in ("config.json", "model.safetensors"):
        (folder / "broken").mkdir(exist_ok=True)
        (folder / "broken" / name).write_bytes(
            (models / "resnet" / name).read_bytes()[: -1 if "tens" in name else None]
        )
    with (
        tempfile.TemporaryDirectory(dir="/tmp", prefix="ray-") as ray,  # a short name: Ray's sockets lie below it
        chat_server.serving(write) as server,
        chat_server.serving(lambda prompt, before: chat_server.error(401)) as refusing,
    ):
        config = str(world.config(folder, models, server.url))
        usual = ["--config", config, "--captions.source", "manifest", "--queries.rows", "64"]
        for stage in ("features", "triplets"):  # a second actor would take longer to start than the first to end
            usual += [f"--{stage}.pool.max", "1"]
        asked = {
            "whole": [source, f"{out}/run", "--max-seeds", "8"],
            "broken weights": [source, str(folder / "run-1"), "--features.model", str(folder / "broken")],
            "no bucket": ["s3://no-such-bucket/x", str(folder / "run-2")],
            "a hub": [source, str(folder / "run-3"), "--features.model", "org/private"],
            "a refusing server": [source, str(folder / "run-4"), "--queries.url", refusing.url],
            "a password in a url": [source, str(folder / "run-5"), "--queries.url", f"http://me:{PASSWORD}@h/v1"],
        }
        commands = [
            ["synthesize", "--images", images, "--out", to, *usual, *more] for images, to, *more in asked.values()
        ]
        done = subprocess.run(
            [sys.executable, "-c", world.COMMANDS, json.dumps(commands)],
            capture_output=True, text=True, timeout=240,
            env={
                **os.environ, "RAY_TMPDIR": ray, "OPENAI_API_KEY": chat_server.KEY, "HF_TOKEN": TOKEN,
                "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_address[1]}", "HF_HUB_OFFLINE": "0",
                "HF_HOME": str(folder / "hub"),
            },
        )  # fmt: skip
        assert f"Bearer {chat_server.KEY}" in server.keys & refusing.keys
        logs = {str(path): path.read_bytes() for path in Path(ray).rglob("*") if path.is_file()}
    hub.shutdown()
    hub.server_close()
    found = {"terminal": (done.stdout + done.stderr).encode(), **logs}
    for root in (f"{out}/run", *(str(folder / f"run-{i}") for i in range(1, 6))):
        for entry in storage.list_files(root):
            found[f"{root}/{entry.name}"] = plain(entry.name, storage.read(storage.join(root, entry.name)))
    assert any("Bearer " + TOKEN == key for key in Echo.asked)
    return found, Run(f"{out}/run"), dict(zip(asked, json.loads(done.stdout.split("ENDED ")[1]), strict=True))


def plain(name: str, data: bytes) -> bytes:
    """Parquet is compressed: its rows as text."""
    if not name.endswith(".parquet"):
        return data
    file = pq.ParquetFile(io.BytesIO(data))
    return json.dumps([str(file.metadata.metadata), file.read().to_pylist()], default=str).encode()


def test_runs_end_as_they_should(told):
    found, run, ended = told
    wrong = {"no bucket", "a hub", "a refusing server", "a password in a url"}
    assert ended == {"whole": 0, "broken weights": 1, **dict.fromkeys(wrong, 2)}, found["terminal"].decode()
    failed = run.need("queries").counts.failed
    assert failed["request refused"] > 0 and run.need("triplets").counts.rows > 0


def test_no_key_is_anywhere(told):
    found, run, _ = told
    assert len([name for name in found if "/logs/" in name]) > 10 and f"{run.root}/run.json" in found
    assert any(name.endswith("index.html") for name in found)
    for secret in (*SECRETS, PASSWORD):
        assert not [name for name, data in found.items() if secret.encode() in data], secret
    texts = "".join(text or "" for text in run.read_all("queries")["query_text"].to_pylist())
    assert "change the key to *" in texts  # the server did answer with the key
