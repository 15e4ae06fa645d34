"""Folders, prefixes and tables: which rows are images, and why the others are none."""

import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from syncir_ray import storage
from syncir_ray.errors import UserError
from syncir_ray.stages.items import Item, relative
from tests.sources import found, put

# -- folders and prefixes ----------------------------------------------------------------------------------------


def test_a_folder_or_prefix(place):
    put(place, {"b.JPG": "", "a/c.png": "", "a/d/é 本.webp": "", "new\nline.jpg": "", "notes.txt": "", "a/e": ""})
    put(place, {".hidden.jpg": "", ".git/x.jpg": ""})
    items, rejects = found(place)
    assert items == {n: Item(n, n) for n in ("b.JPG", "a/c.png", "a/d/é 本.webp", "new\nline.jpg")}
    assert rejects == {n: (n, "filtered", "not an image's name") for n in ("notes.txt", "a/e")}


def test_a_folder_below_the_root(place):
    put(place, {"x/a.jpg": "", "x/y/b.jpg": "", "z.jpg": ""})
    items, _ = found(storage.join(place, "x"), place)
    assert set(items) == {"x/a.jpg", "x/y/b.jpg"}
    with pytest.raises(UserError, match=r"lies outside of --manifest.root"):
        found(storage.join(place, "x"), storage.join(place, "other"))


def test_links_in_a_folder(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "b.jpg").write_text("")
    (tmp_path / "in" / "a.jpg").write_text("")
    for name, target in {
        "good.jpg": "a.jpg",
        "bad.jpg": "../out/b.jpg",
        "gone.jpg": "x",
        "round.jpg": "round.jpg",
        "folder": "../out",
    }.items():
        (tmp_path / "in" / name).symlink_to(target)
    items, rejects = found(str(tmp_path / "in"))
    assert set(items) == {"a.jpg", "good.jpg"}
    assert set(rejects) == {"bad.jpg", "gone.jpg", "round.jpg", "folder"}
    assert {r[1:] for r in rejects.values()} == {("failed", "link to no file of the source")}


def test_a_name_that_is_no_text(tmp_path):
    for name in (b"\xff.jpg", b"\xff.tar", b"\xff.txt"):
        with open(os.path.join(os.fsencode(tmp_path), name), "wb"):
            pass
    (tmp_path / "a.jpg").write_text("")
    items, rejects = found(str(tmp_path))
    assert set(items) == {"a.jpg"}
    assert rejects == {n: (None, "failed", "name is not UTF-8") for n in ("?.jpg", "?.tar", "?.txt")}


def test_keys_that_only_s3_has(s3):
    place = s3("keys")
    put(place, {"a.jpg": "", "folder/": ""})
    items, _ = found(place)
    assert set(items) == {"a.jpg"}


def test_what_is_no_source(place, tmp_path):
    (tmp_path / "file.zip").write_text("")
    with pytest.raises(UserError, match=r"is a file of no known kind; name a folder, s3:// prefix, .parquet"):
        found(str(tmp_path / "file.zip"))
    with pytest.raises(UserError, match="no such folder"):
        found(str(tmp_path / "none"))
    for name, told in {"none.jsonl": "no such file", "none.tar": "no such tar"}.items():
        with pytest.raises(UserError, match=told):
            found(storage.join(place, name))


def test_a_folder_named_like_a_table(tmp_path):
    for name in ("x.csv", "x.tar"):
        put(str(tmp_path / name), {"a.jpg": ""})
        assert set(found(str(tmp_path / name))[0]) == {"a.jpg"}


# -- tables ------------------------------------------------------------------------------------------------------

ROWS = [
    ("a.jpg", "one"),
    ("sub/é.png", "  two \n lines "),
    ("b", None),
    ("./c.jpg", ""),
    ("sub/../d.jpg", 'a "q", b'),
]
WANTED = {
    "a.jpg": "one",
    "sub/é.png": "two lines",
    "b": None,
    "c.jpg": None,
    "d.jpg": 'a "q", b',
}


def table(kind: str, rows: list[tuple], columns: tuple[str, ...] = ("uri", "caption")) -> bytes:
    """A table file of one kind, with a column more that nobody asked for."""
    named = [dict(zip(columns, row, strict=True)) | {"other": 1} for row in rows]
    if kind == "parquet":
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(named), sink, row_group_size=2)
        return sink.getvalue().to_pybytes()
    if kind == "jsonl":
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in named).encode()
    import csv
    import io

    out = io.StringIO()
    writer = csv.DictWriter(out, ["other", *columns], delimiter="\t" if kind == "tsv" else ",")
    writer.writeheader()
    writer.writerows(named)
    return out.getvalue().encode("utf-8-sig")


@pytest.mark.parametrize("kind", ["parquet", "csv", "tsv", "jsonl"])
def test_tables(place, kind):
    put(place, {f"m.{kind}": table(kind, ROWS)})
    items, rejects = found(storage.join(place, f"m.{kind}"))
    assert {uri: item.caption for uri, item in items.items()} == WANTED and not rejects
    assert all(item == Item(uri, uri, caption=item.caption) for uri, item in items.items())


@pytest.mark.parametrize("kind", ["parquet", "csv", "tsv", "jsonl"])
def test_tables_without_captions_and_without_uri(tmp_path, kind):
    put(
        str(tmp_path),
        {f"m.{kind}": table(kind, [("a.jpg",)], ("uri",)), f"n.{kind}": table(kind, [("a",)], ("url",))},
    )
    items, _ = found(f"{tmp_path}/m.{kind}")
    assert items == {"a.jpg": Item("a.jpg", "a.jpg")}
    with pytest.raises(UserError, match=f"n.{kind}: no `uri` column; its columns are .*'url'") as error:
        found(f"{tmp_path}/n.{kind}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["parquet", "csv", "tsv", "jsonl"])
def test_uris_that_lead_outside(place, kind, tmp_path):
    (tmp_path / "away").mkdir()
    away = [
        "../a.jpg",
        "x/../../a.jpg",
        "/etc/passwd",
        "file:///etc/passwd",
        "https://host/a.jpg",
        "..",
        ".",
        "s3://",
    ]
    away += ["s3://other/a.jpg", f"{place}-sibling/a.jpg", f"{place}/../a.jpg", "a\\..\\..\\b.jpg"]
    if kind != "csv":
        away.append("a\0.jpg")
    inside = [f"{place}/deep/a.jpg", "..a.jpg", f"{place}/./b.jpg"]
    put(place, {f"m.{kind}": table(kind, [(uri, None) for uri in away + inside])})
    items, rejects = found(storage.join(place, f"m.{kind}"))
    assert set(items) == {"deep/a.jpg", "..a.jpg", "b.jpg"}
    assert sorted(r[0] for r in rejects.values()) == sorted(away)
    assert {r[1:] for r in rejects.values()} == {("failed", "outside the source")}


def test_the_root_may_be_elsewhere(place, tmp_path):
    put(place, {"m.jsonl": '{"uri": "/data/images/a.jpg"}\n{"uri": "b.jpg"}\n{"uri": "/data/c.jpg"}'})
    items, rejects = found(storage.join(place, "m.jsonl"), "/data/images")
    assert set(items) == {"a.jpg", "b.jpg"} and set(rejects) == {"line 3"}
    items, _ = found(storage.join(place, "m.jsonl"), "/")
    assert set(items) == {"data/images/a.jpg", "b.jpg", "data/c.jpg"}


@pytest.mark.parametrize(
    "uri, root, name",
    [
        ("a//b.jpg", "/r", "a/b.jpg"),
        ("a//b.jpg", "s3://b/r", "a//b.jpg"),  # on S3 these are two keys
        ("/r//a.jpg", "/r", "a.jpg"),
        ("s3://b/r/a.jpg", "s3://b/r/", "a.jpg"),
        ("s3://b/r/a.jpg", "/r", None),
        ("/a.jpg", "s3://b/r", None),
        ("a/b/../../c.jpg", "s3://b/r", "c.jpg"),
        ("a/..", "/r", None),
        ("./", "/r", None),
        ("~/a.jpg", "/r", "~/a.jpg"),
    ],
)
def test_relative(uri, root, name):
    assert relative(uri, root) == name


def test_broken_lines_of_json(tmp_path):
    lines = [b'{"uri": "a.jpg"', b"[1]", b'{"caption": "b"}', b"", b'{"uri": "c.jpg"}', b"\xff\xfe", b'{"uri": 3}']
    lines += [
        b'{"uri": ""}',
        b'{"uri": "\\ud800.jpg"}',
        b"[" * 5000,
        b'{"uri": "d.jpg", "caption": ["x"]}',
        b"   ",
    ]
    lines += [b'{"uri": "e.jpg", "caption": "\\udfff"}', b'{"uri": null}', b'{"n": ' + b"9" * 5000 + b"}"]
    (tmp_path / "m.jsonl").write_bytes(b"\n".join(lines))
    items, rejects = found(str(tmp_path / "m.jsonl"))
    assert items == {n: Item(n, n) for n in ("c.jpg", "d.jpg", "e.jpg")}
    reasons = {int(place.split()[1]): reason for place, (_, _, reason) in rejects.items()}
    broken, none = "broken line", "no uri"
    assert reasons == {
        1: broken, 2: none, 3: none, 6: broken, 7: none, 8: none, 9: "uri is not UTF-8", 10: broken, 14: none,
        15: broken,
    }  # fmt: skip
    assert {status for _, status, _ in rejects.values()} == {"failed"}


@pytest.mark.parametrize("kind, tab", [("csv", ","), ("tsv", "\t")])
def test_broken_lines_of_csv(tmp_path, kind, tab):
    lines = ["uri,caption", "a.jpg,one", "b.jpg", "c.jpg,two,three", "", ",four", 'd.jpg,"five', '"e.jpg"x,six']
    lines += ["f.jpg,seven", '"g.jpg","eight', 'nine"', 'h.jpg,"x" y', "i.jpg," + "z" * 200_000, "j.jpg,ten"]
    text = "\r\n".join(lines).replace(",", tab).encode() + b"\r\n\xff.jpg" + tab.encode() + b"eleven"
    (tmp_path / f"m.{kind}").write_bytes(text)
    items, rejects = found(f"{tmp_path}/m.{kind}")
    # the quote left open before `five` runs into the one before `e.jpg`, where it is found out: two broken lines
    assert {uri: item.caption for uri, item in items.items()} == {
        "a.jpg": "one", "f.jpg": "seven", "g.jpg": "eight nine", "j.jpg": "ten"
    }  # fmt: skip
    assert sorted(reason for _, _, reason in rejects.values()) == ["broken line"] * 6 + [
        "no uri",
        "uri is not UTF-8",
    ]


@pytest.mark.parametrize("rows", [40, 20_000])
def test_a_quote_left_open_costs_its_own_line(tmp_path, rows):
    lines = [f"{i:05}.jpg,a red thing" for i in range(rows)]
    lines[2] = '00002.jpg,"a red thing'
    (tmp_path / "m.csv").write_text("\n".join(["uri,caption", *lines]))
    items, rejects = found(f"{tmp_path}/m.csv")
    assert items.keys() == {f"{i:05}.jpg" for i in range(rows) if i != 2}
    assert rejects == {"line 4": (None, "failed", "broken line")}


@pytest.mark.parametrize("kind, data", [
    ("parquet", b""), ("parquet", b"PAR1 no PAR1"), ("parquet", b"x" * 100), ("csv", b""), ("tsv", b"\n"),
    ("csv", b'"uri'), ("csv", b"a,b\n"), ("jsonl", b"{}"), ("jsonl", b"x\n[]\n"), ("jsonl", b"\xff" * 100),
])  # fmt: skip
def test_tables_that_are_none(place, kind, data):
    put(place, {f"m.{kind}": data})
    with pytest.raises(UserError, match=f"m.{kind}: ") as error:
        found(storage.join(place, f"m.{kind}"))
    assert "\n" not in str(error.value)


def test_a_parquet_file_cut_in_the_middle(place):
    whole = table("parquet", [(f"{i}.jpg", "x" * i) for i in range(100)])
    put(place, {"a.parquet": whole[: len(whole) // 2], "b.parquet": whole[:40] + bytes(200) + whole[240:]})
    for name in ("a.parquet", "b.parquet"):
        with pytest.raises(UserError, match="not a whole Parquet file"):
            found(storage.join(place, name))


def test_columns_of_other_types(tmp_path):
    pq.write_table(pa.table({"uri": [1, 2], "caption": [1.5, None]}), tmp_path / "a.parquet")
    items, rejects = found(str(tmp_path / "a.parquet"))
    assert not items and rejects == {f"row {i}": (None, "failed", "no uri") for i in (1, 2)}
    uris = pa.array(["a.jpg", None], pa.large_string()).dictionary_encode()
    pq.write_table(pa.table({"uri": uris}), tmp_path / "b.parquet")
    assert set(found(str(tmp_path / "b.parquet"))[0]) == {"a.jpg"}
