"""When S3 says no, cuts off or is away: what is tried again, and errors in one line."""

import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from syncir_ray import s3, storage
from syncir_ray.errors import UserError
from tests.s3_server import KEY, SECRET

EVERY: dict[str, Callable[[str], object]] = {
    "read": storage.read,
    "write": lambda uri: storage.write(uri, b"data"),
    "create": lambda uri: storage.create(uri, b"data"),
    "size": storage.size,
    "exists": storage.exists,
    "list": lambda uri: list(storage.list_files(uri)),
    "delete": storage.delete,
    "upload": lambda uri: storage.upload(Path(__file__), uri),
    "download": lambda uri: storage.download(uri, Path("/tmp/never-there/file")),
}


def line(error: pytest.ExceptionInfo) -> str:
    """What it says; it is one line and holds no secret."""
    text = str(error.value)
    assert "\n" not in text and "Traceback" not in text
    for secret in (KEY, SECRET, "wrong-key", "wrong-secret"):
        assert secret not in text
    return text


@pytest.mark.parametrize("do", EVERY)
@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_a_refused_key(s3, monkeypatch, do, name):
    monkeypatch.setenv(name, "wrong-key" if name.endswith("ID") else "wrong-secret")
    with pytest.raises(UserError) as error:
        EVERY[do](s3("refused"))
    assert "S3 refused the key" in line(error)


def test_a_missing_bucket(s3):
    with pytest.raises(UserError, match="there is no such bucket"):
        storage.read("s3://nowhere/a")
    with pytest.raises(UserError, match="there is no such bucket"):
        list(storage.list_files("s3://nowhere/a"))
    with pytest.raises(UserError, match="s3://bucket/key"):
        storage.read("s3:///a")
    with pytest.raises(UserError, match="Invalid bucket name"):
        storage.read("s3://what is this/a")


def test_no_credentials_at_all(s3, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(UserError) as error:
        storage.read(s3("none"))
    assert "no S3 credentials" in line(error)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    with pytest.raises(UserError) as error:
        storage.read(s3("none"))
    assert "AWS_SECRET_ACCESS_KEY" in line(error)


def test_an_endpoint_that_is_down(s3, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free.getsockname()[1]}")
        start = time.monotonic()
        with pytest.raises(storage.Unreachable) as error:
            storage.read("s3://test/a")
    assert "does not answer" in line(error)
    assert time.monotonic() - start < 10
    monkeypatch.setenv("AWS_ENDPOINT_URL", "no address")
    with pytest.raises(UserError, match="AWS_ENDPOINT_URL"):
        storage.read("s3://test/a")


class Moody(BaseHTTPRequestHandler):
    """An S3 server that follows a script: a number of bytes of the body to send, or a status with a code."""

    protocol_version = "HTTP/1.1"  # answers `Expect: 100-continue`, which botocore waits for
    script: list[int | tuple[int, str]]
    body = b"0123456789" * 1000
    puts: list[bytes]

    def do_GET(self) -> None:
        act = self.script.pop(0) if self.script else len(self.body)
        if isinstance(act, tuple):
            return self.refuse(*act)
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(self.body[:act])

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        act = self.script.pop(0) if self.script else (200, "")
        assert isinstance(act, tuple)
        self.puts.append(data)
        self.refuse(*act)

    def refuse(self, status: int, code: str) -> None:
        text = f"<Error><Code>{code}</Code><Message>{KEY}</Message></Error>".encode() if code else b""
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def moody(monkeypatch):
    """Set what the server does next, one act a request."""
    server = HTTPServer(("127.0.0.1", 0), type("Now", (Moody,), {"script": [], "puts": []}))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setattr(s3.time, "sleep", lambda _: None)  # botocore's pauses too
    yield server.RequestHandlerClass
    server.shutdown()
    server.server_close()


def test_a_body_cut_short_is_asked_for_again(moody):
    moody.script[:] = [0, 17, 9999]
    assert storage.read("s3://test/a") == Moody.body
    moody.script[:] = [100] * s3.TRIES
    with pytest.raises(storage.Unreachable) as error:
        storage.read("s3://test/a")
    assert "the connection broke" in line(error)


def test_errors_of_the_server_are_not_of_the_object(moody):
    moody.script[:] = [(503, "SlowDown"), (500, "InternalError")]
    assert storage.read("s3://test/a") == Moody.body  # botocore asked again
    moody.script[:] = [(503, "SlowDown")] * 4
    with pytest.raises(storage.Unreachable) as error:
        storage.read("s3://test/a")
    assert "SlowDown" in line(error)


@pytest.mark.parametrize(
    "status, code, kind",
    [
        (403, "AccessDenied", storage.Denied),
        (403, "InvalidAccessKeyId", UserError),
        (400, "ExpiredToken", UserError),
        (400, "InvalidRequest", UserError),
        (404, "NoSuchKey", FileNotFoundError),
        (404, "NoSuchBucket", UserError),
    ],
)
def test_errors_by_kind(moody, status, code, kind):
    moody.script[:] = [(status, code)]
    with pytest.raises(kind) as error:
        storage.read("s3://test/a")
    assert type(error.value) is kind
    assert "s3://test/a" in line(error)


def test_create_knows_its_own_object(moody):
    # the first answer is lost, the put is repeated, and meets what the first one wrote
    moody.script[:] = [(500, "InternalError"), (412, "PreconditionFailed")]
    assert storage.create("s3://test/a", Moody.body)
    moody.script[:] = [(412, "PreconditionFailed")]
    assert not storage.create("s3://test/a", b"mine")
    moody.script[:] = [(409, "ConditionalRequestConflict"), (200, "")]
    assert storage.create("s3://test/a", b"mine")
    assert moody.puts[-1] == b"mine"


def test_work_under_way_waits_for_a_server_that_is_away(moody, monkeypatch):
    away = [(503, "SlowDown")] * 4  # one call of botocore's
    moody.script[:] = away * 3
    with storage.patience():
        assert storage.read("s3://test/a") == Moody.body and not moody.script
    moody.script[:] = away
    with pytest.raises(storage.Unreachable):  # a command that only begins does not wait
        storage.read("s3://test/a")
    monkeypatch.setenv(s3.PATIENCE, "5")
    clock, began = s3.time.monotonic, s3.time.monotonic()
    monkeypatch.setattr(s3.time, "monotonic", lambda: clock() + 2 * len(moody.puts))  # 2 s a put
    moody.script[:] = away * 9
    with pytest.raises(storage.Unreachable):
        storage.write("s3://test/a", b"mine")
    assert clock() - began < 60 and 4 <= len(moody.puts) <= 12


def test_a_listing_is_whole_though_the_server_goes_away_between_its_pages(request, monkeypatch):
    from botocore.exceptions import EndpointConnectionError

    place = request.getfixturevalue("s3")("pages")
    names = {f"{i:02}/a b+%.jpg" for i in range(7)}
    for name in names:
        storage.write(storage.join(place, name), b"")
    real, asked = storage.s3.client(), []

    class Away:
        def list_objects_v2(self, **arguments: object) -> object:
            asked.append(arguments)
            if len(asked) % 2:
                raise EndpointConnectionError(endpoint_url="http://away")
            return real.list_objects_v2(MaxKeys=2, **arguments)

    monkeypatch.setattr(storage.s3, "client", Away)
    monkeypatch.setattr(storage.s3.time, "sleep", lambda _: None)
    with storage.patience():
        assert sorted(entry.name for entry in storage.list_files(place)) == sorted(names)
    assert len(asked) == 8
    with pytest.raises(storage.Unreachable):
        list(storage.list_files(place))
