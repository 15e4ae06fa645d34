"""The openai engine against a real HTTP server on this machine, which does as each test says."""

import threading
import time
from typing import Any

import pytest

from syncir_ray.errors import UserError
from syncir_ray.models.answer import Answer, Failure
from syncir_ray.models.writer_openai import OpenAIWriter
from tests.chat_server import KEY, Reply, Server, completion, error, serving

BACKOFF = 0.02  # seconds, instead of 5


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")  # the machine may name a proxy


def writer(url: str, tries: int = 3, parallel: int = 4, **more: Any) -> OpenAIWriter:
    return OpenAIWriter(url, "m", 64, tries, parallel, **{"backoff": BACKOFF, **more})


def ask(server: Server, prompts: list[str], **more: Any) -> list[Answer | Failure]:
    """What the writer says, seen to be free of the key and of bounded length."""
    engine = writer(server.url, **more)
    results = engine(prompts)
    assert KEY not in repr((results, engine, vars(engine)))
    assert all(len(result.detail) <= 200 for result in results if isinstance(result, Failure))
    return results


def test_answers_come_in_order_with_their_tokens() -> None:
    def slower_first(prompt: str, _: int) -> Reply:
        time.sleep((10 - int(prompt)) / 100)
        return completion(f"text {prompt}")

    with serving(slower_first) as server:
        results = ask(server, [str(i) for i in range(10)], parallel=10, seed=5)
        assert results == [Answer(f"text {i}", False, 7, 3) for i in range(10)]
        assert ask(server, []) == []
    body = server.bodies[0]
    assert (body["model"], body["max_tokens"], body["temperature"], body["seed"]) == ("m", 64, 0, 5)
    assert server.keys == {f"Bearer {KEY}"}


def test_as_many_requests_are_under_way_as_allowed() -> None:
    together = threading.Barrier(4, timeout=10)  # every reply waits until four requests are there

    def act(prompt: str, _: int) -> Reply:
        time.sleep(0.2)  # time for a fifth to come, were it let
        together.wait()
        return completion(prompt)

    with serving(act) as server:
        results = ask(server, [str(i) for i in range(12)], parallel=4)
    assert all(isinstance(result, Answer) for result in results) and server.most == 4


@pytest.mark.parametrize("status", [429, 503, 408])
def test_a_busy_server_is_asked_again(status: int) -> None:
    with serving(lambda p, before: completion(p) if before else error(status)) as server:
        assert ask(server, ["a", "b"]) == [Answer("a", False, 7, 3), Answer("b", False, 7, 3)]
    assert server.asked == {"a": 2, "b": 2}


def test_retry_after_is_waited_for() -> None:
    with serving(lambda p, before: completion(p) if before else error(429, Retry_After="0.3")) as server:
        assert ask(server, ["a"]) == [Answer("a", False, 7, 3)]
    assert server.times[1] - server.times[0] >= 0.3
    with serving(lambda *_: error(429, Retry_After="3600")) as server:  # an hour is not
        (failure,) = ask(server, ["a"])
    assert isinstance(failure, Failure) and failure.reason == "rate limited" and server.asked["a"] == 1
    date = "Wed, 21 Oct 2015 07:28:00 GMT"  # the other form, and gone by
    for header in (date, "soon", "-1", "nan"):
        busy = error(503, Retry_After=header)
        with serving(lambda p, before, busy=busy: completion(p) if before else busy) as server:
            assert ask(server, ["a"]) == [Answer("a", False, 7, 3)]


@pytest.mark.parametrize(("status", "reason"), [(500, "server error"), (429, "rate limited")])
def test_the_tries_are_used_up_with_growing_waits(status: int, reason: str) -> None:
    with serving(lambda *_: error(status)) as server:
        (failure,) = ask(server, ["a"], tries=4)
    assert isinstance(failure, Failure)
    assert failure.reason == reason and failure.detail.startswith(f"HTTP {status}")
    gaps = [b - a for a, b in zip(server.times, server.times[1:], strict=False)]
    assert len(gaps) == 3 and all(gap >= BACKOFF * 2**i for i, gap in enumerate(gaps))


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (400, "request refused"),
        (404, "request refused"),
        (422, "request refused"),
        (401, "key refused"),
        (403, "key refused"),
    ],
)
def test_a_refused_prompt_fails_alone_and_at_once(status: int, reason: str) -> None:
    with serving(lambda p, _: error(status) if p == "bad" else completion(p)) as server:
        good, bad, last = ask(server, ["good", "bad", "last"])
    assert (good, last) == (Answer("good", False, 7, 3), Answer("last", False, 7, 3))
    assert isinstance(bad, Failure) and bad.reason == reason and f"HTTP {status}" in bad.detail
    assert server.asked["bad"] == 1


@pytest.mark.parametrize(
    ("reply", "result"),
    [
        (completion(None), Failure("empty answer", "finish reason stop")),
        (completion(" \n"), Failure("empty answer", "finish reason stop")),
        ((200, {}, {"choices": []}), Failure("empty answer", "finish reason None")),
        ((200, {}, {}), Failure("empty answer", "finish reason None")),
        ((200, {}, {"choices": None}), Failure("empty answer", "finish reason None")),
        ((200, {}, {"choices": 3}), Failure("empty answer", "finish reason None")),
        ((200, {}, {"choices": [None]}), Failure("empty answer", "finish reason None")),
        ((200, {}, {"choices": [{"message": None}]}), Failure("empty answer", "finish reason None")),
        ((200, {}, {"choices": [{"message": {"content": 3}}]}), Failure("empty answer", "finish reason None")),
        (completion("and and and", "length"), Answer("and and and", True, 7, 3)),
        (completion(None, "length"), Answer("", True, 7, 3)),
        (completion(None, "content_filter"), Failure("refused", "content filter")),
        (completion(None, refusal=f"No. {KEY}"), Failure("refused", "No. ***")),
    ],
)
def test_odd_replies(reply: Reply, result: Answer | Failure) -> None:
    with serving(lambda *_: reply) as server:
        assert ask(server, ["a"]) == [result]
    assert server.asked["a"] == 1


@pytest.mark.parametrize(
    "reply",
    [
        (200, {"Content_Type": "text/html"}, b"<html>"),
        (200, {}, b"{"),
        (200, {}, []),
        (200, {}, b"null"),
        (200, {}, b"\xff\xfe"),
        (200, {"Content_Length": "99"}, b"{}"),
    ],
)
def test_what_is_no_reply_is_asked_again(reply: Reply) -> None:
    with serving(lambda p, before: completion(p) if before > 1 else reply) as server:
        assert ask(server, ["a"], timeout=5) == [Answer("a", False, 7, 3)]
        (failure,) = ask(server, ["b"], tries=1)
    assert isinstance(failure, Failure) and failure.reason in ("bad reply", "server unreachable")


def test_a_silent_server_times_out() -> None:
    over = threading.Event()

    def act(prompt: str, before: int) -> Reply:
        if not before:
            over.wait(10)
        return completion(prompt)

    with serving(act) as server:
        assert ask(server, ["a"], timeout=0.5) == [Answer("a", False, 7, 3)]
        (failure,) = ask(server, ["b"], timeout=0.5, tries=1)
        over.set()
    assert failure == Failure("server timed out", "silent for 0.5 s, 1 tries")


def test_a_server_that_comes_back_is_found_again() -> None:
    results: list[Answer | Failure] = []
    with serving(lambda p, _: completion(p)) as server:
        url, port = server.url, server.server_port
    # Nothing listens now. Waits that double from 20 ms: eight tries last 2.5 s.
    asking = threading.Thread(target=lambda: results.extend(writer(url, tries=8)(["a", "b"])))
    asking.start()
    time.sleep(0.3)
    with serving(lambda p, _: completion(p), port):
        asking.join()
    assert results == [Answer("a", False, 7, 3), Answer("b", False, 7, 3)]
    (failure,) = writer(url, tries=2)(["a"])
    assert failure == Failure("server unreachable", "ConnectError, 2 tries")


def test_the_default_waits_outlast_half_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    with serving(lambda *_: error(503, Retry_After="1")) as server:
        monkeypatch.setattr("syncir_ray.models.writer_openai.asyncio.sleep", sleep)
        OpenAIWriter(server.url, "m", 64, 4, 1)(["a"])
        assert len(waits) == 3 and 35 <= sum(waits) <= 35 * 1.25
        OpenAIWriter(server.url, "m", 64, 9, 1)(["b"])
    assert max(waits) <= 30 * 1.25


def test_without_a_key_a_placeholder_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    with serving(lambda p, _: completion(p)) as server:
        assert isinstance(writer(server.url)(["a"])[0], Answer)
    assert server.keys == {"Bearer none"}


@pytest.mark.parametrize("key", ["sk-käse", "sk-a\nb", "sk-\u2026"])
def test_an_impossible_key_is_not_quoted(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(UserError, match="OPENAI_API_KEY") as caught:
        writer("http://127.0.0.1:9/v1")(["a"])
    assert key not in str(caught.value)
