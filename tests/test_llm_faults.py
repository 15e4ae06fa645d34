"""What a language model and its server do wrong, in whole runs: each row done, or failed with a reason, and asked
again as configured; and when all causes are mended, `--retry-failed` leaves no failed row."""

import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack

import pytest
import yaml

from syncir_ray.run import Run
from syncir_ray.stages import captions, features, pairs, queries, triplets
from tests import chat_server, world
from tests.chat_server import Reply, completion, error
from tests.faults import stubs
from tests.world import synthesize

TEXT = "Change the colour of the sky."
# What the server makes of a prompt, by its number, and what becomes of the prompt's rows (None: done).
KINDS: list[tuple[Reply | Callable[[int], Reply], str | None]] = [
    (completion(TEXT), None),
    (completion(f'Sure! Here\'s a short instruction:\n\n**"{TEXT}"**\n\nExplanation: it is blue now.'), None),
    (completion(""), "empty answer"),
    (completion(None), "empty answer"),
    (completion("and on and on and on", "length"), "answer too long"),
    (completion("I cannot help with pictures of people."), "refused"),
    (completion("", refusal="No."), "refused"),
    (completion("One way would be this.\n\nAnother would be that.\n\nOr neither."), "no instruction"),
    (error(400), "request refused"),
    (lambda before: completion(TEXT) if before else error(503, Retry_After="0"), None),
    (lambda before: completion(TEXT) if before else (200, {"Content_Type": "text/html"}, b"<html>"), None),
    ((200, {}, {"choices": 3}), "empty answer"),
    ((200, {}, b"{"), "bad reply"),
]
RAISES = "model error"


def number(prompt: str) -> int:
    return zlib.crc32(prompt.encode()) % (len(KINDS) + 1)


def act(prompt: str, before: int) -> Reply:
    reply, _ = KINDS[number(prompt)] if number(prompt) < len(KINDS) else (error(500), "")
    return reply(before) if callable(reply) else reply


class Write(queries.Write):
    """The engine itself raises on some prompts; it waits 50 ms before it asks again, instead of 5 s."""

    def __init__(self, config, threads):
        super().__init__(config, threads)
        model = self.model
        model.backoff = 0.05  # type: ignore[attr-defined]

        def ask(prompts: list[str]) -> list:
            if any(number(prompt) == len(KINDS) for prompt in prompts):
                raise ValueError("a prompt that it cannot take")
            return model(prompts)

        self.model = ask


class Patient(queries.Write):
    """Waits 0.5 s, 1 s, 2 s … before it asks again."""

    def __init__(self, config, threads):
        super().__init__(config, threads)
        self.model.backoff = 0.5  # type: ignore[attr-defined]


@pytest.fixture
def source(tmp_path):
    return world.images(tmp_path / "images")


@pytest.fixture
def configure(tmp_path, monkeypatch, ray_session):
    """Makes a configuration of stub models and a real client of the server at `url`."""
    monkeypatch.setattr(features, "Embed", stubs.Embed)
    monkeypatch.setattr(pairs, "Mine", stubs.Mine)
    monkeypatch.setattr(captions, "Caption", stubs.Caption)
    monkeypatch.setattr(triplets, "Filter", stubs.Filter)
    monkeypatch.setattr(stubs, "SECONDS", 0.0)
    model = str(stubs.folder(tmp_path / "stub"))

    def made(url: str, **more: object):
        one = {"max": 1}
        values = {
            "features": {"model": model, "rows": 64, "pool": one},
            "pairs": {"rows": 64, "duplicate": 1.01, "gap": 1e-5, "pool": one},
            "captions": {"model": model, "rows": 64, "pool": one},
            "queries": {"engine": "openai", "model": "w", "url": url, "rows": 32, "pool": one, "tries": 2, **more},
            "triplets": {"model": model, "threshold": -1.0, "pool": one},
        }
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(values))
        return path

    return made


def texts(run: Run) -> list[dict]:
    return [row for row in run.read_all("queries").to_pylist() if row["prompt_id"] is not None]


def test_each_fault_of_a_model_is_a_row_with_its_reason_and_a_retry_mends_all(
    source, configure, tmp_path, monkeypatch
):
    monkeypatch.setattr(queries, "Write", Write)
    out, run = tmp_path / "run", Run(str(tmp_path / "run"))
    with chat_server.serving(act) as server:
        assert synthesize(source, out, configure(server.url)) == 0
    met = Counter[int]()
    for row in texts(run):
        kind = number(queries.prompt(row["reference_caption"], row["target_caption"]))
        met[kind] += 1
        reason = KINDS[kind][1] if kind < len(KINDS) else RAISES
        assert (row["status"], row["reason"]) == (("failed", reason) if reason else ("done", None)), row
        assert (row["query_text"] is None) == (reason is not None)
        assert row["query_text"] in (None, TEXT) and len(row["detail"] or "") <= 200
    assert set(met) == set(range(len(KINDS) + 1))  # each fault was met
    judged = run.need("triplets").counts
    assert judged.filtered["no query text"] == run.need("queries").rows - run.need("queries").counts.done
    # what may pass is asked twice at most, what cannot is asked once; a batch of which one raised is asked alone
    for prompt, asked in server.asked.items():
        reply, reason = KINDS[number(prompt)]
        assert asked == (2 if callable(reply) or reason == "bad reply" else 1), prompt

    # all causes are mended, those of the photographs too
    for name in world.BAD:
        (source / name).write_bytes((source / "image-001.jpg").read_bytes())
    monkeypatch.setattr(queries, "Write", Patient)
    with chat_server.serving(lambda *_: completion(TEXT)) as server:
        assert synthesize(source, out, configure(server.url), "--retry-failed") == 0
    for stage in ("features", "captions", "queries", "triplets"):
        assert not run.need(stage).counts.failed, stage
    assert {row["query_text"] for row in texts(run)} == {TEXT}


@pytest.mark.parametrize("tries", [1, 6])
def test_a_server_that_goes_away_in_the_middle(source, configure, tmp_path, monkeypatch, tries):
    """It closes after forty prompts and opens again 3 s later: six tries outlast that, one does not."""
    monkeypatch.setattr(queries, "Write", Patient)
    enough, run = threading.Event(), Run(str(tmp_path / "run"))

    def answer(prompt: str, before: int) -> Reply:
        if len(first.asked) > 40:
            enough.set()
        return completion(TEXT)

    def go_away() -> None:
        enough.wait(60)
        first.shutdown()
        first.server_close()
        time.sleep(3)
        back.append(stack.enter_context(chat_server.serving(answer, port)))

    back: list = []
    with ExitStack() as stack:
        first = chat_server.Server(answer)
        port = first.server_port
        serve = threading.Thread(target=first.serve_forever, kwargs={"poll_interval": 0.01})
        leave = threading.Thread(target=go_away)
        serve.start(), leave.start()
        config = configure(first.url, tries=tries, parallel=4)
        try:
            assert synthesize(source, tmp_path / "run", config) == 0
        finally:
            enough.set()
            serve.join(), leave.join()
        failed = run.need("queries").counts.failed
        if tries > 1:
            assert not failed
            return
        assert set(failed) == {"server unreachable"} and run.need("queries").counts.done > 30
        assert synthesize(source, tmp_path / "run", config, "--retry-failed") == 0
    assert not run.need("queries").counts.failed
