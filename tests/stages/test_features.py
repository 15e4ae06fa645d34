"""Images to pixels, pixels to features, features to a matrix."""

import io
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from syncir_ray import schemas
from syncir_ray.images import Resize
from syncir_ray.run import Run, Unit
from syncir_ray.stages import features
from syncir_ray.stages.account import unit_of, with_unit, work
from syncir_ray.stages.pixels import Load, good, outcomes_of
from tests import runs

RESIZE = Resize(4, 6)


@pytest.fixture
def run(tmp_path):
    """Seven files, four of them no image that can be used."""
    folder = tmp_path / "images"
    folder.mkdir()
    for i in (0, 2, 6):
        Image.new("RGB", (20, 20), (40 * i, 0, 0)).save(folder / f"{i}.png")
    whole = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 60, 3), np.uint8)).save(whole, "JPEG")
    (folder / "1.jpg").write_bytes(whole.getvalue()[:900])
    (tmp_path / "secret.png").write_bytes((folder / "0.png").read_bytes())
    (folder / "4.png").symlink_to(tmp_path / "secret.png")
    (folder / "5.png").write_bytes(b"")
    made = Run(str(tmp_path / "run"))
    runs.manifest(made, ["0.png", "1.jpg", "2.png", "3.png", "4.png", "5.png", "6.png"], rows=3)
    return made


def load(run, *ids):
    return Load(run, str(run.root)[: -len("/run")] + "/images", RESIZE)(work(Unit(0, 7), ids))


def test_bad_images_are_rows_with_a_reason(run):
    table = load(run, *range(7))
    assert table["image_id"].to_pylist() == list(range(7))
    assert table["reason"].to_pylist() == [
        None,
        "truncated image",
        None,
        "no such file",
        "outside the source",
        "empty file",
        None,
    ]
    rows, pixels = good(table, RESIZE)
    assert rows.tolist() == [0, 2, 6]
    assert pixels.shape == (3, 4, 6, 3) and pixels[:, 0, 0, 0].tolist() == [0, 80, 240]
    assert outcomes_of(table)[1] == ("failed", "truncated image", None)


def test_some_images_of_a_unit_across_manifest_objects(run):
    table = load(run, 2, 6)
    assert table["image_id"].to_pylist() == [2, 6] and table["unit_items"].to_pylist() == [2, 2]
    assert good(table, RESIZE)[1][:, 0, 0, 0].tolist() == [80, 240]


def test_pixels_of_sliced_and_chunked_tables(run):
    table = load(run, *range(7))
    assert good(table.slice(2), RESIZE)[1][:, 0, 0, 0].tolist() == [80, 240]
    chunks = pa.concat_tables([table.slice(5), table.slice(1, 2)])
    rows, pixels = good(chunks, RESIZE)
    assert rows.tolist() == [1, 3] and pixels[:, 0, 0, 0].tolist() == [240, 80]


def test_the_same_bytes_whatever_the_number_of_readers(run, monkeypatch):
    alone = load(run, *range(7)).drop("ready")
    assert alone["bytes_read"][0].as_py() > 7 * 100 and set(alone["bytes_read"][1:].to_pylist()) == {0}
    monkeypatch.setattr("syncir_ray.stages.pixels.storage", SimpleNamespace(is_s3=lambda address: True))
    assert load(run, *range(7)).drop("ready").equals(alone)


class Model:
    """A feature of the mean colour; of pure black it makes no number, and too red is too much for it."""

    width = 3

    def __call__(self, pixels):
        means = pixels.mean((1, 2))
        if (means[:, 0] > 200).any():
            raise ValueError("too red")
        with np.errstate(invalid="ignore"):
            return means / np.linalg.norm(means, axis=1, keepdims=True)


def embed(table):
    stage = features.Embed.__new__(features.Embed)
    stage.resize, stage.model = RESIZE, Model()
    return stage(table)


def test_what_the_model_fails_on_is_a_row_with_a_reason(run):
    table = embed(load(run, *range(7)))
    assert dict(zip(table["image_id"].to_pylist(), table["reason"].to_pylist(), strict=True)) == {
        0: "feature is not finite",
        1: "truncated image",
        2: None,
        3: "no such file",
        4: "outside the source",
        5: "empty file",
        6: "model error",
    }
    assert table["detail"].to_pylist()[6] == "ValueError: too red"
    assert [f is None for f in table["feature"].to_pylist()] == [True, True, False, True, True, True, True]
    assert table["calls"].to_pylist()[0] == 3
    unit_table = table.select([f.name for f in schemas.features(3)])
    assert unit_table.schema.equals(schemas.features(3))


def test_a_unit_without_one_good_image(run):
    assert embed(load(run, 1, 3))["status"].to_pylist() == ["failed", "failed"]


def test_the_ledger_of_a_known_set(run):
    operators = [lambda block: load(run, *unit_of(block)[1].tolist()), embed]
    units = [Unit(0, 7)]
    runs.stage(run, "features", units, operators, features.finish)
    counts = run.close("features", "image_id", 7).counts
    assert counts.done == 1 and counts.rows == 7 and sum(counts.failed.values()) == 6
    # again: what was done stays, what failed is what it is now
    runs.stage(run, "features", units, operators, features.finish, lambda unit: np.array([1, 6]), again=True)
    again = run.close("features", "image_id", 7).counts
    assert (again.done, again.failed) == (counts.done, counts.failed)


# -- matrix -------------------------------------------------------------------------------------------------

VECTORS = [(1, 0), None, (0.6, 0.8), (0, 1), None, (0.8, -0.6), None]


def test_matrix_of_rows_that_have_a_feature():
    ids, found = features.matrix(runs.feature_rows(np.arange(7), VECTORS))
    assert ids.tolist() == [0, 2, 3, 5] and found.dtype == np.float32
    assert found == pytest.approx(np.array([v for v in VECTORS if v]), abs=1e-3)
    assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-6)


def test_matrix_of_sliced_and_chunked_tables():
    table = runs.feature_rows(np.arange(7), VECTORS)
    everything = dict(zip(*(part.tolist() for part in features.matrix(table)), strict=True))
    for start in range(8):
        for length in range(8 - start):
            for part in (
                table.slice(start, length),
                pa.concat_tables([table.slice(start, length), table.slice(0, start)]),
            ):
                ids, found = features.matrix(part)
                assert set(ids.tolist()) == set(part["image_id"].to_pylist()) & everything.keys()
                assert [everything[i] for i in ids.tolist()] == found.tolist()


def test_matrix_as_it_is_read_from_disk(tmp_path):
    run = Run(str(tmp_path))
    runs.featured(run, VECTORS, rows=3)
    read = run.read_all("features")
    assert features.matrix(read)[0].tolist() == [0, 2, 3, 5]
    assert (
        features.matrix(read)[1].tolist() == features.matrix(runs.feature_rows(np.arange(7), VECTORS))[1].tolist()
    )


def test_a_feature_of_zeros_stays_one():
    _, found = features.matrix(runs.feature_rows(np.arange(2), [(0, 0), (3, 4)]))
    assert found.tolist() == [[0, 0], pytest.approx([0.6, 0.8], abs=1e-6)]


def test_a_unit_whose_images_all_failed():
    table = with_unit(runs.feature_rows(np.arange(2), [None, None]), Unit(0, 2))
    assert features.matrix(table)[1].shape == (0, 2)
