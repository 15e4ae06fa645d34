"""Tars: which rows are images, and why the others are none."""

import tarfile

import pytest

from syncir_ray import storage
from syncir_ray.errors import UserError
from syncir_ray.stages.items import Reject
from syncir_ray.stages.sources import find
from tests.sources import found, put
from tests.tars import special, tar

SHARD = tar(
    ("0001.jpg", b"image one"),
    ("0001.txt", b" one\n caption "),
    ("0002.json", b'{"caption": "two"}'),
    ("0002.seg.png", b"image two"),
    ("sub/0001.jpg", b"image three"),
    ("sub/0001.json", b"{"),
    ("0003.cls", b"7"),
    ("0004.webp", b""),
    ("0004.txt", b"\xff"),
    ("0005.txt", b"x" * 70_000),
)


@pytest.mark.parametrize("single", [True, False])
def test_tars(place, single):
    put(place, {"shards/s1.tar": SHARD, "shards/sub/s2.TAR": tar(("a.jpg", b"in two")), "shards/b.jpg": "plain"})
    images = storage.join(place, "shards")
    items, rejects = found(storage.join(images, "s1.tar") if single else images)
    contents = {
        uri: storage.read(storage.join(images, i.object), i.offset or 0, i.length) for uri, i in items.items()
    }
    wanted = {
        "s1.tar/0001.jpg": b"image one", "s1.tar/0002.seg.png": b"image two",
        "s1.tar/sub/0001.jpg": b"image three", "s1.tar/0004.webp": b"",
    }  # fmt: skip
    assert contents == wanted | ({} if single else {"sub/s2.TAR/a.jpg": b"in two", "b.jpg": b"plain"})
    captions = {uri: i.caption for uri, i in items.items() if i.caption}
    assert captions == {"s1.tar/0001.jpg": "one caption", "s1.tar/0002.seg.png": "two"}
    assert set(rejects) == {"s1.tar/0003.cls", "s1.tar/0005.txt"}
    # not looked into
    shallow = find(images, images, unpack=False)
    assert {r.uri for r in shallow} == {"s1.tar", "sub/s2.TAR", "b.jpg"}


def test_a_tar_below_the_root(place):
    put(place, {"x/s.tar": SHARD})
    items, _ = found(storage.join(place, "x", "s.tar"), place)
    assert "x/s.tar/0001.jpg" in items and items["x/s.tar/0001.jpg"].object == "x/s.tar"
    with pytest.raises(UserError, match=r"lies outside of --manifest.root"):
        found(storage.join(place, "x", "s.tar"), storage.join(place, "y"))


def test_members_that_are_no_plain_files(tmp_path):
    data = tar(
        ("a.jpg", b"a"),
        special("soft.jpg", tarfile.SYMTYPE, "/etc/passwd"),
        special("hard.jpg", tarfile.LNKTYPE, "a.jpg"),
        special("device.jpg", tarfile.CHRTYPE),
        special("pipe.jpg", tarfile.FIFOTYPE),
        special("folder", tarfile.DIRTYPE),
        ("../up.jpg", b"b"),
        ("/etc/abs.jpg", b"c"),
        ("b.jpg", b"d"),
    )
    put(str(tmp_path), {"s.tar": data})
    items, rejects = found(str(tmp_path / "s.tar"))
    assert set(items) == {"s.tar/a.jpg", "s.tar/b.jpg"}
    none, outside = ("failed", "not a plain file in its tar"), ("failed", "outside the source")
    assert {place: r[1:] for place, r in rejects.items()} == {
        "s.tar/soft.jpg": none, "s.tar/hard.jpg": none, "s.tar/device.jpg": none, "s.tar/pipe.jpg": none,
        "s.tar/../up.jpg": outside, "s.tar//etc/abs.jpg": outside,
    }  # fmt: skip


def test_names_in_tars(tmp_path):
    out = tmp_path / "s.tar"
    with tarfile.open(out, "w", format=tarfile.GNU_FORMAT, encoding="utf-8", errors="surrogateescape") as file:
        for name in ("\udcff.jpg", "é.jpg", "long" * 60 + ".jpg", "new\nline.jpg"):
            file.addfile(tarfile.TarInfo(name))
    items, rejects = found(str(out))
    assert set(items) == {"s.tar/é.jpg", "s.tar/" + "long" * 60 + ".jpg", "s.tar/new\nline.jpg"}
    assert rejects == {"s.tar/?.jpg": (None, "failed", "name is not UTF-8")}


FIVE = tar(*((f"{i}.jpg", bytes([i]) * 1000) for i in range(5)))  # 512 of header and 1024 of data each


@pytest.mark.parametrize(
    "data, whole",
    [
        (b"", 0),
        (b"no tar at all" * 100, 0),
        (b"\x1f\x8b" + FIVE, 0),
        (FIVE[:100], 0),
        (FIVE[: 3 * 1536 + 100], 3),  # in a header
        (FIVE[: 3 * 1536 + 512 + 100], 3),  # in an image
        (FIVE[: 3 * 1536] + b"\xff" * 512 + FIVE[3 * 1536 + 512 :], 3),  # a header overwritten
        (
            FIVE[: 3 * 1536 + 124] + b"77777777777\0" + FIVE[3 * 1536 + 136 :],
            3,
        ),  # a size, and with it the checksum
    ],
)
def test_broken_tars_give_what_was_before_and_say_so(place, data, whole):
    put(place, {"s.tar": data, "good.tar": FIVE})
    items, rejects = found(place)
    assert set(items) == {f"good.tar/{i}.jpg" for i in range(5)} | {f"s.tar/{i}.jpg" for i in range(whole)}
    assert rejects == {"s.tar": (None, "failed", "broken tar")}
    detail = next(r.detail for r in find(place, place) if isinstance(r, Reject))
    assert detail and detail.startswith(f"after {whole} images")


def test_a_tar_without_its_end_mark_and_an_empty_one_are_whole(tmp_path):
    put(str(tmp_path), {"s.tar": FIVE[: 5 * 1536], "empty.tar": tar()})
    items, rejects = found(str(tmp_path))
    assert len(items) == 5 and not rejects


def test_a_storage_that_is_away_is_no_broken_tar(tmp_path, monkeypatch):
    put(str(tmp_path), {"s.tar": FIVE})

    def away(uri: str) -> None:
        raise storage.Unreachable(f"{uri}: S3 does not answer")

    monkeypatch.setattr(storage, "reader", away)
    with pytest.raises(storage.Unreachable):
        found(str(tmp_path))
    with pytest.raises(storage.Unreachable):
        found(str(tmp_path / "m.jsonl"))
