"""The door to disk and S3: the same behaviour behind both, and errors in one line."""

import errno
import io
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from syncir_ray import disk, storage
from syncir_ray.errors import UserError

NAMES = ["plain.txt", "a/b/deep.bin", "žluťoučký kůň.jpg", "図書館/本.jpg", "line\nbreak.jpg", "a b+c%20&d#e?.jpg"]


def listed(address: str) -> dict[str, int]:
    return {entry.name: entry.size for entry in storage.list_files(address)}


def test_write_read_and_ranges(place):
    address = storage.join(place, "some", "object.bin")
    assert not storage.exists(address)
    with pytest.raises(FileNotFoundError):
        storage.read(address)
    with pytest.raises(FileNotFoundError):
        storage.size(address)
    storage.write(address, b"0123456789")
    assert storage.exists(address) and storage.size(address) == 10
    assert storage.read(address) == b"0123456789"
    assert storage.read(address, 3, 4) == b"3456"
    assert storage.read(address, 3) == b"3456789"
    assert storage.read(address, 4, 0) == b""
    storage.write(address, b"another")
    assert storage.read(address) == b"another"
    assert 0 <= storage.age(address) < 30
    with pytest.raises(FileNotFoundError):
        storage.age(storage.join(place, "nothing"))


@pytest.mark.parametrize("offset, length", [(5, 6), (9, 2), (10, 1), (50, 1)])
def test_a_range_past_the_end_is_an_error_unless_short(place, offset, length):
    address = storage.join(place, "object")
    storage.write(address, b"0123456789")
    with pytest.raises(OSError, match="ends before byte"):
        storage.read(address, offset, length)
    assert storage.read(address, offset, length, short=True) == b"0123456789"[offset : offset + length]
    storage.write(address, b"")
    assert storage.read(address) == b""
    assert storage.read(address, 0, 100, short=True) == b""


def test_reader_reads_and_seeks(place):
    address = storage.join(place, "object")
    data = bytes(range(256)) * 40
    storage.write(address, data)
    with io.BufferedReader(storage.reader(address), 1000) as file:
        assert file.read(3) == data[:3]
        file.seek(5000)
        assert file.read(2500) == data[5000:7500]
        file.seek(-10, io.SEEK_END)
        assert file.read() == data[-10:]
        file.seek(20_000)
        assert file.read() == b""
    with pytest.raises(FileNotFoundError):
        storage.reader(storage.join(place, "nothing"))


def test_create_has_one_winner(place):
    address = storage.join(place, "folder", "contested")
    start = threading.Barrier(16)

    def take(number: int) -> bool:
        start.wait()
        return storage.create(address, str(number).encode())

    with ThreadPoolExecutor(16) as takers:
        won = list(takers.map(take, range(16)))
    assert won.count(True) == 1
    assert storage.read(address) == str(won.index(True)).encode()
    assert not storage.create(address, b"later")
    assert set(listed(place)) == {"folder/contested"}


def test_create_on_a_disk_without_hard_links(tmp_path, monkeypatch):
    def link(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    assert disk.create(str(tmp_path / "a"), b"first")
    assert not disk.create(str(tmp_path / "a"), b"second")
    assert os.listdir(tmp_path) == ["a"] and (tmp_path / "a").read_bytes() == b"first"


def test_list_delete_and_names(place):
    assert listed(place) == {}
    for i, name in enumerate(NAMES):
        storage.write(storage.join(place, name), b"x" * i)
    storage.write(storage.join(place, ".hidden"), b"")
    storage.write(storage.join(place, ".folder", "a"), b"")
    storage.write(place + "-sibling/not-below", b"")
    assert listed(place) == {name: i for i, name in enumerate(NAMES)}
    assert listed(storage.join(place, "a")) == {"b/deep.bin": 1}
    for i, name in enumerate(NAMES):
        assert storage.read(storage.join(place, name)) == b"x" * i
    storage.delete(storage.join(place, NAMES[0]))
    storage.delete(storage.join(place, NAMES[0]))
    assert set(listed(place)) == set(NAMES[1:])


def test_list_more_than_a_page(s3):
    address = s3("pages")
    with ThreadPoolExecutor(16) as writers:
        list(writers.map(lambda i: storage.write(f"{address}/{i:04d}", b""), range(1100)))
    assert len(listed(address)) == 1100


def test_upload_and_download(place, tmp_path):
    there, back, address = tmp_path / "there", tmp_path / "sub" / "back", storage.join(place, "copy")
    there.write_bytes(b"some bytes" * 1000)
    storage.upload(there, address)
    storage.download(address, back)
    assert back.read_bytes() == there.read_bytes()
    assert os.listdir(tmp_path / "sub") == ["back"]
    with pytest.raises(FileNotFoundError):
        storage.download(storage.join(place, "nothing"), tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_large_objects_go_in_parts(s3, monkeypatch, tmp_path):
    address = s3("large")
    monkeypatch.setattr("syncir_ray.s3.MULTIPART", 2**20)
    data = os.urandom(20 * 2**20)
    storage.write(f"{address}/a", data)
    assert storage.read(f"{address}/a") == data
    (tmp_path / "file").write_bytes(data)
    storage.upload(tmp_path / "file", f"{address}/b")
    assert storage.read(f"{address}/b", 9 * 2**20, 100) == data[9 * 2**20 : 9 * 2**20 + 100]
    storage.download(f"{address}/b", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == data


def test_inside_and_contains(tmp_path):
    for name in ("a", "a/b", "..a", "a..b/c", "...", "a/.hidden"):
        assert storage.inside(name), name
    for name in ("", "/a", "..", "a/../../b", "../a", "a/..", "a\0b", "a\\..\\b"):
        assert not storage.inside(name), name
    root, out = tmp_path / "root", tmp_path / "root-other"
    root.mkdir()
    out.mkdir()
    (root / "a").write_text("")
    (out / "b").write_text("")
    (root / "good").symlink_to(root / "a")
    (root / "bad").symlink_to(out / "b")
    (root / "folder").symlink_to(out)
    for name, below in {
        "a": True,
        "good": True,
        "bad": False,
        "folder/b": False,
        "../root-other/b": False,
    }.items():
        assert storage.contains(str(root), f"{root}/{name}") is below, name
    assert storage.contains("/", str(root / "a"))
    assert storage.contains("s3://b/root", "s3://b/root/a")
    assert not storage.contains("s3://b/root", "s3://b/root-other/a")
    found = {entry.name: entry.astray for entry in storage.list_files(str(root))}
    assert found == {"a": False, "good": False, "bad": True, "folder": True}


def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a file"):
        storage.read(str(tmp_path / "pipe"))
    with pytest.raises(OSError, match="not a file"):
        storage.read(str(tmp_path))
    assert listed(str(tmp_path)) == {}


def test_a_place_that_cannot_be_written_is_told_in_a_line(tmp_path):
    (tmp_path / "file").write_text("")
    for address in (tmp_path / "file" / "below", tmp_path / "file" / "below" / "it", Path("/proc/here")):
        for write in (storage.write, storage.create):
            with pytest.raises((UserError, FileNotFoundError)) as error:
                write(str(address), b"")
            assert "\n" not in str(error.value)
    if os.getuid():  # root may do all
        (tmp_path / "shut").mkdir(mode=0)
        with pytest.raises(UserError, match="cannot be written"):
            storage.write(str(tmp_path / "shut" / "a"), b"")
        with pytest.raises(UserError, match="cannot be listed"):
            listed(str(tmp_path))


def test_prune_spares_a_folder_that_is_not_empty(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").write_text("")
    (tmp_path / "empty").mkdir()
    storage.prune(str(tmp_path / "full"))
    storage.prune(str(tmp_path / "empty"))
    storage.prune(str(tmp_path / "none"))
    assert os.listdir(tmp_path) == ["full"]
