"""The manifest: every image once, the same ids from the same source, every row accounted for."""

import io
import json
import os
import random

import pyarrow.parquet as pq
import pytest

from syncir_ray import images, schemas, storage
from syncir_ray.config import Manifest
from syncir_ray.errors import UserError
from syncir_ray.run import Run
from syncir_ray.stages import manifest
from syncir_ray.stages.manifest import build, look, read_image
from syncir_ray.stages.sources import default_root
from tests.tars import tar


def put(place: str, files: dict[str, bytes | str]) -> str:
    for name, data in files.items():
        storage.write(storage.join(place, name), data.encode() if isinstance(data, str) else data)
    return place


def config(source: str, rows: int = 3) -> Manifest:
    return Manifest(images=source, root=default_root(source), rows=rows)


@pytest.fixture
def run(place) -> Run:
    return Run(storage.join(place, "run"))


def test_sorted_by_uri_whatever_the_order(place, run, tmp_path):
    names = [f"{i % 7}/é{i:03d}.jpg" for i in range(20)]
    put(storage.join(place, "images"), {name: name for name in names})
    folder = storage.join(place, "images")
    seal = build(run, config(folder), False)
    assert seal.counts.done == seal.rows == 20 and len(seal.objects) == 7
    table = run.read_all("manifest")
    assert table.schema == schemas.MANIFEST
    assert table["uri"].to_pylist() == sorted(names) and table["image_id"].to_pylist() == list(range(20))
    random.Random(0).shuffle(names)
    put(folder, {"m.jsonl": "\n".join(json.dumps({"uri": f"{name}"}) for name in names)})
    other = Run(storage.join(place, "other"))
    build(other, config(storage.join(folder, "m.jsonl"), rows=100), False)
    assert other.read_all("manifest").equals(table)
    for row in table.to_pylist():
        assert read_image(folder, row) == row["uri"].encode()


def test_every_row_of_the_source_is_accounted_for(place, run):
    lines = ['{"uri": "b.jpg", "caption": "first"}', '{"uri": "a.jpg"}', '{"uri": "./b.jpg", "caption": "second"}']
    lines += ['{"uri": "b.jpg"}', "{", '{"caption": "x"}', "", '{"uri": "../c.jpg"}', '{"uri": "d.jpg"}']
    source = storage.join(put(place, {"m.jsonl": "\n".join(lines)}), "m.jsonl")
    seal = build(run, config(source), True)
    assert seal.counts.done == 3
    assert seal.counts.filtered == {"repeated uri": 2}
    assert seal.counts.failed == {"broken line": 1, "no uri": 1, "outside the source": 1}
    assert seal.facts == {"source_rows": 8} and seal.counts.rows == 8
    rows = run.read_all("manifest", ["uri", "caption"]).to_pylist()
    assert rows == [
        {"uri": "a.jpg", "caption": None},
        {"uri": "b.jpg", "caption": "first"},  # of the repeated the first stays
        {"uri": "d.jpg", "caption": None},
    ]
    rejected = pq.read_table(io.BytesIO(storage.read(run.at("manifest", "rejected.parquet")))).to_pylist()
    assert {
        "place": "line 5",
        "uri": None,
        "status": "failed",
        "reason": "broken line",
        "detail": "JSONDecodeError",
    } in (rejected)
    assert len(rejected) == 5


def test_tars_are_read_by_range(place, run):
    shards = {f"s{i}.tar": tar(*((f"{j}.jpg", f"image {i} {j}".encode()) for j in range(4))) for i in range(3)}
    put(storage.join(place, "in"), shards)
    root = storage.join(place, "in")
    assert build(run, config(root), False).counts.done == 12
    for row in run.read_all("manifest").to_pylist():
        shard, member = row["uri"].split("/")
        assert read_image(root, row) == f"image {shard[1]} {member[0]}".encode()


def test_a_repeated_member_of_a_tar(tmp_path):
    put(str(tmp_path / "in"), {"s.tar": tar(("a.jpg", b"first"), ("a.jpg", b"second"), ("b.jpg", b""))})
    run = Run(str(tmp_path / "run"))
    assert build(run, config(str(tmp_path / "in")), False).counts.filtered == {"repeated uri": 1}
    assert read_image(str(tmp_path / "in"), run.read_all("manifest").to_pylist()[0]) == b"first"


def test_a_source_without_any_image(place, run):
    empty = put(storage.join(place, "in"), {"notes.txt": "", "more.txt": "", "broken.tar": "x" * 600})
    with pytest.raises(UserError, match=r"no images there .not an image's name: 2, broken tar: 1.") as error:
        build(run, config(empty), False)
    assert empty in str(error.value) and "\n" not in str(error.value)
    for away in (storage.join(place, "nothing"),):
        if storage.is_s3(away):
            with pytest.raises(UserError, match="there is nothing there"):
                look(config(away))
    lines = '{"uri": "/elsewhere/a.jpg"}\n{"uri": "/elsewhere/b.jpg"}'
    outside = storage.join(put(place, {"m.jsonl": lines}), "m.jsonl")
    for call in (look, lambda c: build(run, c, False)):
        with pytest.raises(
            UserError, match=r"all 2 uris lie outside of .*'/elsewhere/a.jpg'; name .*--manifest.root"
        ):
            call(config(outside))
    assert run.units("manifest") == []


def test_captions_where_they_are_needed(place, run):
    source = storage.join(put(place, {"m.jsonl": '{"uri": "a.jpg", "caption": " "}'}), "m.jsonl")
    with pytest.raises(UserError, match=r"no captions there, and captions.source is `manifest`"):
        build(run, config(source), True)
    assert build(run, config(source), False).rows == 1


def test_look_reads_no_more_than_it_must(place, monkeypatch):
    put(place, {"s.tar": b"x" * 5000})
    read = []
    monkeypatch.setattr(storage, "reader", lambda uri: read.append(uri))
    look(config(place))
    assert not read
    with pytest.raises(UserError, match=r"there is nothing there|no such folder"):
        look(config(storage.join(place, "none")))


def test_images_that_cannot_be_read(place, monkeypatch):
    put(place, {"a.jpg": b"0123456789", "empty.jpg": b""})

    def row(name: str, offset: int | None = None, length: int | None = None) -> dict:
        return {"object": name, "offset": offset, "length": length}

    assert read_image(place, row("a.jpg")) == b"0123456789"
    assert read_image(place, row("a.jpg", 3, 4)) == b"3456"
    assert read_image(place, row("empty.jpg")) == b""
    assert read_image(place, row("a.jpg", 4, 0)) == b""
    cases = {"none.jpg": "no such file"}
    for name, reason in cases.items():
        with pytest.raises(images.BadImage, match=reason):
            read_image(place, row(name))
    with pytest.raises(images.BadImage, match="unreadable"):
        read_image(place, row("a.jpg", 5, 100))
    monkeypatch.setattr(manifest, "MAX_BYTES", 9)
    with pytest.raises(images.BadImage, match="file too large"):
        read_image(place, row("a.jpg"))
    with pytest.raises(images.BadImage, match="file too large"):
        read_image(place, row("a.jpg", 0, 10))
    assert read_image(place, row("a.jpg", 1, 9)) == b"123456789"


def test_links_pipes_and_folders_are_no_images(tmp_path):
    (tmp_path / "secret").write_text("secret")
    root = tmp_path / "in"
    root.mkdir()
    (root / "link.jpg").symlink_to(tmp_path / "secret")
    (root / "folder.jpg").mkdir()
    os.mkfifo(root / "pipe.jpg")
    for name, reason in {
        "link.jpg": "outside the source",
        "folder.jpg": "unreadable",
        "pipe.jpg": "unreadable",
        "x" * 300: "unreadable",
        "folder.jpg/a": "no such file",
    }.items():
        with pytest.raises(images.BadImage, match=reason):
            read_image(str(root), {"object": name, "offset": None, "length": None})


@pytest.mark.parametrize("error, raised", [
    (storage.Denied("x: S3 refused the key"), images.BadImage),  # this object alone
    (storage.Unreachable("x: S3 does not answer"), storage.Unreachable),  # says nothing about the image
    (UserError("x: S3 refused the key"), UserError),
    (OSError("ends before byte 3"), images.BadImage),
])  # fmt: skip
def test_a_storage_that_is_away_fails_no_image(tmp_path, monkeypatch, error, raised):
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(storage, "read", fail)
    with pytest.raises(raised):
        read_image(str(tmp_path), {"object": "a.jpg", "offset": None, "length": None})


def test_the_photographs(photos, tmp_path):
    source = str(photos / "coco" / "manifest.jsonl")
    run = Run(str(tmp_path / "run"))
    seal = build(run, config(source, rows=8192), True)
    rows = run.read_all("manifest").to_pylist()
    assert seal.counts.rows == seal.facts["source_rows"] == len(storage.read(source).splitlines())
    assert all(row["caption"] for row in rows) and [r["uri"] for r in rows] == sorted(r["uri"] for r in rows)
    assert read_image(default_root(source), rows[0])[:2] == b"\xff\xd8"
