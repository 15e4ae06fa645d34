"""Whether a server is there is known before a run starts, in one line."""

import socket

import pytest

from syncir_ray.errors import UserError
from syncir_ray.models.writer_openai import check_server
from tests.chat_server import KEY, Reply, error, serving


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")  # the machine may name a proxy


def test_check_server(monkeypatch: pytest.MonkeyPatch) -> None:
    models: Reply = (200, {}, {"object": "list", "data": []})
    with serving(lambda *_: models) as server:
        check_server(server.url)
        with pytest.raises(UserError, match="/v1"):
            check_server(server.url.removesuffix("/v1"))
    gone = server.url
    with serving(lambda *_: error(503)) as server:
        check_server(server.url)  # it starts: the writer will wait for it
    with serving(lambda *_: error(401)) as server:
        with pytest.raises(UserError, match=r"refuses the key.*right") as caught:
            check_server(server.url)
        assert KEY not in str(caught.value) and "\n" not in str(caught.value)
        monkeypatch.delenv("OPENAI_API_KEY")
        with pytest.raises(UserError, match="set OPENAI_API_KEY"):
            check_server(server.url)
    for url in (gone, "127.0.0.1:8000", "http://", "nonsense", "http://127.0.0.1:99999/v1"):
        with pytest.raises(UserError, match="nothing answers") as caught:
            check_server(url)
        assert "\n" not in str(caught.value)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes the connection and says nothing
        with pytest.raises(UserError, match=r"within 0\.1 s"):
            check_server(f"http://127.0.0.1:{silent.getsockname()[1]}/v1", timeout=0.1)
