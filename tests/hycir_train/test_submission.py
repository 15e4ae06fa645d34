"""Files that the official servers would reject are refused, with query and reason; what is written can be read."""

import json

import pytest

from hycir_train import submission
from hycir_train.benchmarks import circo, cirr, fashioniq
from syncir_ray.errors import UserError
from tests.hycir_train.files import circo_file, cirr_files, command, fashioniq_file, raw

# -- CIRR ---------------------------------------------------------------------------------------------------


def twice(document):
    document["12060"][2] = document["12060"][0]


def too_few(document):
    document["12060"].pop()


def too_many(document):
    document["12060"].append("dev-1028-1-img1")


def unknown(document):
    document["12060"][0] = "dev-nobody"


def of_another_split(document):
    document["12060"][0] = "test1-147-1-img1"


def with_extension(document):
    document["12060"][0] += ".png"


def a_number(document):
    document["12060"][0] = 7


def no_list(document):
    document["12060"] = "dev-nobody"


def missing(document):
    del document["12060"]


def extra(document):
    document["99999"] = document["12060"]


def no_version(document):
    del document["version"]


def wrong_version(document):
    document["version"] = "rc1"


def no_metric(document):
    del document["metric"]


def wrong_metric(document):
    document["metric"] = "recall@50"


BOTH = [
    (twice, "is there twice"),
    (too_many, "images; there have to be "),
    (too_few, "images; there have to be "),
    (unknown, '"dev-nobody" at rank 1 is not in the gallery of cirr val'),
    (of_another_split, '"test1-147-1-img1" at rank 1 is not in the gallery of cirr val'),
    (with_extension, ".png"),
    (a_number, "7 is no image name"),
    (no_list, '"dev-nobody" is not a list'),
    (missing, 'query "12060" is missing'),
    (extra, 'query "99999" is not of cirr val'),
    (no_version, 'has no "version"; CIRR wants "rc2"'),
    (wrong_version, '"version" is "rc1"; CIRR wants "rc2"'),
    (no_metric, 'has no "metric"; CIRR wants "recall" or "recall_subset"'),
    (wrong_metric, '"metric" is "recall@50"; CIRR wants'),
]


@pytest.fixture(scope="module")
def good(annotations, tmp_path_factory):
    """Both of CIRR's files as text, as they should be."""
    recall, subset, *_ = cirr_files(annotations, tmp_path_factory.mktemp("good"), "val", 7)
    return recall.read_text(), subset.read_text()


@pytest.mark.parametrize("change, reason", BOTH, ids=lambda value: getattr(value, "__name__", ""))
@pytest.mark.parametrize("which", ["recall", "recall_subset"])
def test_what_cirrs_server_would_reject(annotations, tmp_path, refused, good, which, change, reason):
    document = json.loads(good[which == "recall_subset"])
    change(document)
    path = tmp_path / "file.json"
    path.write_text(json.dumps(document))
    shown = refused(command(annotations, "cirr", path))
    assert shown.startswith(f"hycir: {path}: ") and reason in shown
    if change not in (extra, no_version, wrong_version, no_metric, wrong_metric):
        assert "query 12060: " in shown or '"12060"' in shown


def test_a_subset_ranking_that_strays(annotations, tmp_path, refused, good):
    path = tmp_path / "file.json"
    stranger = json.loads(good[1])["38762"][0]
    for change, reason in (
        (lambda names: ["dev-244-0-img0", *names[1:]], "is the reference; CIRR takes it out of the ranking"),
        (lambda names: [*names[:2], stranger], "at rank 3 is not one of the other five"),
    ):
        document = json.loads(good[1])
        document["12060"] = change(document["12060"])
        path.write_text(json.dumps(document))
        shown = refused(command(annotations, "cirr", path))
        assert "query 12060: " in shown and reason in shown


def test_a_ranking_that_holds_its_reference(annotations, tmp_path, refused, good):
    document, path = json.loads(good[0]), tmp_path / "file.json"
    document["12060"] = ["dev-244-0-img0", *document["12060"][:49]]
    path.write_text(json.dumps(document))
    shown = refused(command(annotations, "cirr", path))
    assert 'query 12060: "dev-244-0-img0" at rank 1 is the reference; CIRR takes it out of the ranking' in shown


def test_an_extension_is_named_as_such(annotations, tmp_path, refused, good):
    document, path = json.loads(good[0]), tmp_path / "file.json"
    name = document["12060"][0]
    with_extension(document)
    path.write_text(json.dumps(document))
    assert f'has an extension; the name is "{name}"' in refused(command(annotations, "cirr", path))


@pytest.mark.parametrize(
    "text, reason",
    [
        (b"", "not JSON"),
        (b'{"version": "rc2", ', "not JSON"),
        (b"\xff\xfe{}", "not JSON in UTF-8"),
        (b"\xef\xbb\xbf{}", "not JSON in UTF-8"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "not a JSON object"),
        (b"null", "not a JSON object"),
        (b'{"12060": [], "12062": [], "12060": []}', 'the key "12060" is there twice'),
        (b'{"metric": "recall", "metric": "recall_subset"}', 'the key "metric" is there twice'),
        (
            b'{"version": "rc2", "metric": "recall"}',
            'queries "12060", "12062", "12081" and 4,178 more are missing',
        ),
        (b'{"version": ["rc2"], "metric": "recall"}', '"version" is ["rc2"]; CIRR wants'),
        (b'{"version": "rc2", "metric": "recall", "1\\n2": []}', r'query "1\n2" is not of cirr val'),
    ],
)
def test_a_file_that_is_none(annotations, tmp_path, refused, text, reason):
    path = tmp_path / "file.json"
    path.write_bytes(text)
    assert reason in refused(command(annotations, "cirr", path))


@pytest.mark.parametrize(
    "place, value, reason",
    [
        (0, "271520", 'query 5: "271520" is no image id, a whole number'),
        (0, 271520.0, "query 5: 271520.0 is no image id"),
        (0, float("nan"), "query 5: NaN is no image id"),
        (0, True, "query 5: true is no image id"),
        (0, None, "query 5: null is no image id"),
        (3, 7, "query 5: 7 at rank 4 is not in the gallery of circo val"),
        (3, -271520, "query 5: -271520 at rank 4 is not in the gallery"),
        (3, 581_932, "query 5: 581932 at rank 4 is not in the gallery"),
        (slice(49, 50), [], "query 5: 49 images; there have to be 50"),
        (slice(50, 50), [9], "query 5: 51 images; there have to be 50"),
    ],
)
def test_what_circos_server_would_reject(annotations, tmp_path, refused, place, value, reason):
    path, document = circo_file(annotations, tmp_path, "val", 8)
    document["5"][place] = value
    path.write_text(json.dumps(document))
    assert reason in refused(command(annotations, "circo", path))


def test_circo_queries_and_repeats(annotations, tmp_path, refused):
    path, document = circo_file(annotations, tmp_path, "val", 9)
    arguments = command(annotations, "circo", path)
    path.write_text(json.dumps(document | {"5": [document["5"][0], *document["5"][:49]]}))
    assert f"query 5: {document['5'][0]} is there twice" in refused(arguments)
    path.write_text(json.dumps({key: value for key, value in document.items() if key != "5"}))
    assert 'query "5" is missing' in refused(arguments)
    for key in ("220", "05", "version"):
        path.write_text(json.dumps(document | {key: document["5"]}))
        assert f'query "{key}" is not of circo val; is the file for another split?' in refused(arguments)
    path.write_text(json.dumps(document)[:-1] + ', "5": []}')
    assert 'the key "5" is there twice' in refused(arguments)


def test_what_is_refused_of_fashioniq(annotations, tmp_path, refused):
    path, document = fashioniq_file(annotations, tmp_path, "dress", 10)
    arguments = command(annotations, "fashioniq", path, category="dress")
    for ranking, reason in (
        (document["3"][:49], "query 3: 49 images; there have to be at least 50"),
        ([*document["3"][:49], document["3"][0]], "is there twice"),
        (
            [*document["3"][:49], "B00000"],
            'query 3: "B00000" at rank 50 is not in the gallery of fashioniq val dress',
        ),
        ([f"{document['3'][0]}.jpg", *document["3"][1:]], f'the name is "{document["3"][0]}"'),
    ):
        path.write_text(json.dumps(document | {"3": ranking}))
        assert reason in refused(arguments)
    path.write_text(json.dumps(document))
    assert "not of fashioniq val toptee" in refused(command(annotations, "fashioniq", path, category="toptee"))
    assert "--category is missing: FashionIQ has dress, shirt, toptee" in refused(
        command(annotations, "fashioniq", path)
    )
    assert "only fashioniq has categories" in refused(command(annotations, "cirr", path, category="dress"))


def test_the_wrong_files(annotations, tmp_path, refused, good):
    recall, copy = tmp_path / "recall.json", tmp_path / "copy.json"
    recall.write_text(good[0])
    copy.write_text(good[0])
    assert f'{recall} and {copy} are both of metric "recall"' in refused(
        command(annotations, "cirr", recall, copy)
    )
    assert "--predictions is missing" in refused(command(annotations, "cirr"))
    assert "2 files; circo val has one file" in refused(command(annotations, "circo", recall, copy))
    assert f"{tmp_path / 'none'}: there is no such file" in refused(
        command(annotations, "cirr", tmp_path / "none")
    )
    assert "not a file" in refused(command(annotations, "cirr", tmp_path))
    assert "--split test: CIRR has val, test1" in refused(command(annotations, "cirr", recall, split="test"))
    assert "name the folder of the official CIRR repository" in refused(command(tmp_path, "cirr", recall))
    # a file for test1 scored as one for val
    assert "is the file for another split?" in refused(command(annotations, "cirr", recall, split="test1"))


# -- writing ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["recall", "recall_subset"])
def test_what_is_written_for_cirr_is_read_again(annotations, tmp_path, metric):
    document = cirr_files(annotations, tmp_path, "test1", 11)[2 + (metric == "recall_subset")]
    rankings = {key: value for key, value in document.items() if key not in ("version", "metric")}
    benchmark, path = cirr.load(str(annotations), "test1"), tmp_path / "out.json"
    submission.write(str(path), benchmark, rankings, metric)
    assert raw(path) == document and path.stat().st_size < 5_000_000
    read = submission.read(str(path), benchmark)
    assert read.metric == metric and list(read.rankings) == [query.id for query in benchmark.queries]
    assert {key: list(value) for key, value in read.rankings.items()} == rankings


def test_what_is_written_for_circo_and_fashioniq(annotations, tmp_path):
    out = tmp_path / "out.json"
    _, document = circo_file(annotations, tmp_path, "test", 12)
    names = {key: [str(i) for i in value] for key, value in document.items()}
    submission.write(str(out), circo.load(str(annotations), "test"), names)
    assert raw(out) == document
    _, document = fashioniq_file(annotations, tmp_path, "shirt", 12)
    submission.write(str(out), fashioniq.load(str(annotations), "shirt"), document)
    assert raw(out) == document


def test_nothing_is_written_that_would_be_refused(annotations, tmp_path):
    _, document = circo_file(annotations, tmp_path, "test", 13)
    names = {key: [str(i) for i in value] for key, value in document.items()}
    names["7"][1] = names["7"][0]
    with pytest.raises(UserError, match=r"query 7: .* is there twice"):
        submission.write(str(tmp_path / "out.json"), circo.load(str(annotations), "test"), names)
    assert not (tmp_path / "out.json").exists()
