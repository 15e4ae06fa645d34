"""Hostile sources through the front door: every file ends in the ledger, nothing outside of the source is read,
nothing inside a file is told, and memory stays bounded."""

import io
import json
import os
import random
import socket
import sys
import tempfile
import time
import tracemalloc
import warnings
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote

import pyarrow.parquet as pq
import pytest
from PIL import Image

from syncir_ray import cli, storage
from syncir_ray.images import Resize
from syncir_ray.ledger import ledger
from syncir_ray.record import need
from syncir_ray.run import Run, Unit
from syncir_ray.stages import manifest, pixels, tars
from syncir_ray.stages.account import work
from syncir_ray.stages.items import Item
from tests import chat_server, runs, s3_server, world
from tests.hostile import archives, images
from tests.hostile.source import HIDDEN, NAMES, Sources
from tests.hostile.watch import Tap, opened

REASONS = {
    "empty file", "not an image", "unsupported format", "too many pixels", "truncated image", "broken image",
    "file too large", "outside the source", "no such file", "unreadable (OSError)",
}  # fmt: skip
# Images to Pillow and not to us: larger than is decoded, or slower (images.py).
REFUSED = {"too-large.png", "tiff-tiles.tif", "scans-many.jpg"}
# Tars that say nothing false, and are read to their end.
WHOLE = {
    "links", "specials", "names", "captions", "name-long", "name-longer", "name-twice", "names-for-ever",
    "pax-path", "pax-path-empty", "pax-link", "pax-other", "pax-sparse-map", "pax-sparse-1", "pax-sparse-name",
    "sparse", "sparse-for-ever", "size-zero", "folder-with-size", "same-name", "within", "zeros-none",
    "empty-none", "many",
}  # fmt: skip


@pytest.fixture(scope="module")
def tried(tmp_path_factory, s3):
    """The sources after their three runs."""
    s3_server.client(dict(os.environ)).create_bucket(Bucket="canary")
    storage.write("s3://canary/canary.jpg", b"canary")
    made = Sources(tmp_path_factory.mktemp("hostile"), s3("hostile"))
    with (
        tempfile.TemporaryDirectory(dir="/tmp", prefix="ray-") as ray,  # a short name: Ray's sockets lie below it
        chat_server.serving(world.write) as server,
        opened(made.canary, made.outside / "x.tar") as made.opened,
    ):
        made.output = made.run(server.url, Path(ray))
        logs = (path for path in Path(ray).rglob("logs/**/*") if path.is_file())
        made.logs = b"\n".join(path.read_bytes() for path in logs)
    return made


def rejected(run: Run) -> list[dict]:
    return pq.read_table(io.BytesIO(storage.read(run.at("manifest", "rejected.parquet")))).to_pylist()


def outcomes(run: Run) -> dict[str, tuple[str, str | None]]:
    """By uri, the status and reason of each image in the features stage."""
    uris = run.read_all("manifest", ["uri"])["uri"].to_pylist()
    return {uris[row["image_id"]]: (row["status"], row["reason"]) for row in run.read_all("features").to_pylist()}


def test_every_run_ends_well(tried):
    assert "ENDED [0, 0, 0]" in tried.output, tried.output
    for run in tried.runs.values():
        lines = ledger(run, need(run)["config"])
        assert all(line.sums and line.sealed for line in lines) and len(lines) == 6


def test_every_file_is_in_the_ledger_with_its_reason(tried):
    run = tried.runs["folder"]
    found, refused = outcomes(run), {row["place"]: row for row in rejected(run)}
    assert len(tried.files) + len(tried.tars) + len(NAMES) >= 500
    there = [path for path in Path(tried.images["folder"]).iterdir() if path.name not in HIDDEN]
    walked = [path for path in there if path.is_symlink() or path.is_file()]
    shown = {path.name for path in walked if not path.name.endswith(".tar") or path.is_symlink()}
    assert shown == {name for name in found.keys() | refused.keys() if ".tar/" not in name} - set(tried.tars) - {
        "holes.tar"
    }
    assert {reason for _, reason in found.values()} <= REASONS | {None}
    assert all((status == "done") == (reason is None) for status, reason in found.values())
    links = {name: row["reason"] for name, row in refused.items() if name.startswith("link-")}
    assert set(links.values()) == {"link to no file of the source"} and len(links) == 10
    assert found["huge.jpg"] == ("failed", "file too large")
    assert all(found[name] == ("done", None) for name in set(NAMES) - HIDDEN)
    for row in [*refused.values(), *run.read_all("features").to_pylist()]:
        assert row["status"] == "done" or row["reason"]


def test_what_is_done_is_an_image_and_what_is_an_image_is_done(tried):
    found = outcomes(tried.runs["folder"])
    for name, data in tried.files.items():
        if name.startswith("large") or name in REFUSED:  # Pillow would take long over them
            assert found[name][0] == ("failed" if name in REFUSED else "done")
            continue
        try:
            with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(data)) as image:
                image.load()
                image.convert("RGB")
                good = True
        except Exception:
            good = False
        assert (found[name][0] == "done") == good, name
    # and the same on S3
    s3 = outcomes(tried.runs["s3"])
    assert all(found[name] == s3[name] for name in tried.some)


def test_uris_lead_nowhere_else(tried):
    done = {
        "table": {"image-000.jpg", "link-good.jpg"},
        "s3": {name for name in tried.some if outcomes(tried.runs["folder"])[name][0] == "done"}
        | {"new\nline é.jpg"},
    }
    for source, wanted in done.items():
        run = tried.runs[source]
        assert run.need("manifest").counts.rows == tried.rows[source]
        assert sum(row["reason"] == "outside the source" for row in rejected(run)) >= 20
        assert {uri for uri, (status, _) in outcomes(run).items() if status == "done"} == wanted


def test_nothing_outside_the_source_is_read(tried):
    assert tried.opened == []
    assert tried.http.lines == []
    allowed = [f"/{tried.s3.removeprefix('s3://')}/{part}" for part in ("in/", "run/")]
    asked = {unquote(line.split()[1]) for line in tried.tap.lines}
    assert asked and not [path for path in asked if ".." in path.split("/")]
    assert {path for path in asked if not path.startswith(tuple(allowed))} == {
        path for path in asked if path.startswith("/test?list-type=2&prefix=")
    }
    assert not Path(f"{tried.canary}_RAN").exists() and sorted(os.listdir(tried.outside)) == [
        "canary.jpg",
        "x.tar",
    ]


def test_no_error_tells_what_is_in_a_file(tried, capsys):
    told = [tried.output.encode(), tried.logs]
    for run in tried.runs.values():
        with pytest.raises(SystemExit):
            cli.main(["status", run.root])
        for entry in storage.list_files(run.root):
            data = storage.read(run.at(entry.name))
            if entry.name.endswith(".parquet"):  # compressed
                rows = pq.read_table(io.BytesIO(data))
                data = json.dumps([rows.schema.names, rows.to_pylist()], default=str).encode()
            elif entry.name.endswith(".html"):
                assert images.MARK.encode() not in data and b"<img src=x" not in data
                continue  # its thumbnails may have any four letters
            told.append(data)
    told.append(capsys.readouterr().out.encode())
    assert tried.logs and len(told) > 60
    assert not [text for text in told if images.MARK[:4].encode() in text]
    assert "\x1b" not in tried.output


def test_memory_is_bounded(tried):
    """The 400 MiB of a chunk, the gigabytes of a header, the 700 MiB of a file are never held. The largest image
    that is decoded is, beside Python and Ray."""
    largest = {name: tried.memory.largest(name) for name in ("ray::MapBatches(Load)", "ray::", sys.executable)}
    print({name: f"{peak / 2**20:.0f} MiB" for name, peak in largest.items()})
    assert 0 < largest["ray::MapBatches(Load)"] < 1.25 * 2**30 and largest["ray::"] < 1.25 * 2**30
    assert largest[sys.executable] < 0.75 * 2**30


def test_tars_are_read_up_to_where_they_lie(tmp_path):
    made = archives.everything("/etc/passwd")
    for name, data in made.items():
        (tmp_path / name).write_bytes(data)
    archives.holes(str(tmp_path / "holes-none.tar"), 4 * 2**30)
    tracemalloc.start()
    start = time.monotonic()
    found = {name: list(tars.rows(str(tmp_path), name)) for name in [*made, "holes-none.tar"]}
    assert time.monotonic() - start < 10
    assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
    tracemalloc.stop()
    for name, rows in found.items():
        items = {row.uri: row for row in rows if isinstance(row, Item)}
        assert ("good.jpg" in name or f"{name}/good.jpg" in items) == ("none" not in name)
        assert any(row.reason == "broken tar" for row in rows if not isinstance(row, Item)) == (
            name.removesuffix(".tar") not in WHOLE
        )
        for item in items.values():
            assert storage.inside(item.uri.removeprefix(f"{name}/")) and item.object == name
            assert 0 < item.offset <= item.offset + item.length <= len(made[name])
    assert not any(
        f"link-{i}" in row.uri for row in found["links.tar"] if isinstance(row, Item) for i in range(12)
    )


def test_large_images_are_held_one_at_a_time(tmp_path, monkeypatch):
    """Many are read at once from S3, but of those above `LARGE` no second one before the first is decoded."""
    names = [f"{i}.png" for i in range(12)]
    for i, name in enumerate(names):
        data = images.encoded(images.picture(random.Random(i)), "PNG")
        (tmp_path / name).write_bytes(data + bytes(2000 if i % 2 else 0))
    run = Run(str(tmp_path / "run"))
    runs.manifest(run, names)
    monkeypatch.setattr(pixels, "LARGE", len(data) + 1000)
    held: list[int] = []

    def read(root: str, row: dict, most: int, found=manifest.read_up_to) -> bytes | None:
        data = found(root, row, most)
        if data and len(data) > pixels.LARGE:
            held.append(len(data))
        return data

    def decode(data: bytes, resize: Resize, made=pixels.decode) -> object:
        if len(data) > pixels.LARGE:
            assert len(held) == 1
            held.pop()
        return made(data, resize)

    monkeypatch.setattr(manifest, "read_up_to", read)
    monkeypatch.setattr(pixels, "read_up_to", read)
    monkeypatch.setattr(pixels, "decode", decode)
    monkeypatch.setattr(pixels, "storage", SimpleNamespace(is_s3=lambda _: True))  # sixteen readers
    found = pixels.Load(run, str(tmp_path), Resize(8, 8))(work(Unit(0, 12), range(12)))
    assert found["status"].to_pylist() == ["done"] * 12 and not held


def test_the_watch_sees(tmp_path):
    (tmp_path / "a").write_bytes(b"x")
    (tmp_path / "b").write_bytes(b"x")
    tap = Tap()
    with opened(tmp_path / "a", tmp_path / "b") as seen:
        (tmp_path / "a").read_bytes()
        os.stat(tmp_path / "b")
        with socket.create_connection(("127.0.0.1", int(tap.url.rpartition(":")[2]))) as client:
            client.sendall(b"GET /x HTTP/1.1\r\n\r\n")
            assert client.recv(1) == b""
    tap.close()
    assert set(seen) == {tmp_path / "a"} and tap.lines == ["GET /x HTTP/1.1"]
