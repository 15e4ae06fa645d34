"""`embed` through the command line, on real Ray, with small encoders of the real classes."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from hycir_train import embed, encoders
from hycir_train.cli import main
from hycir_train.embed import Embedded, read
from syncir_ray import cli, record, storage
from syncir_ray.errors import UserError
from syncir_ray.images import decode
from syncir_ray.lease import hold
from syncir_ray.models import weights
from syncir_ray.models.device import Device
from syncir_ray.run import Run, Unit
from tests import runs, small_encoders, world

IMAGES = world.GOOD + len(world.BAD)
ROWS = 8


def command(source: object, encoder: object, out: object = "", *more: str) -> list[str]:
    place = ["--out", str(out)] if out else []
    return ["embed", "--images", str(source), "--encoder", str(encoder), "--rows", str(ROWS), *place, *more]


def embedded(*arguments: object) -> int:
    """The exit status of an `embed` command, run in this process."""
    with pytest.raises(SystemExit) as ended:
        main(command(*arguments))  # type: ignore[arg-type]
    return int(ended.value.code or 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("embed")


@pytest.fixture(scope="module")
def source(folder) -> Path:
    return world.images(folder / "images")


@pytest.fixture(scope="module")
def clip(folder) -> Path:
    return small_encoders.clip(folder / "clip")


@pytest.fixture(scope="module")
def finished(folder, source, clip, ray_session) -> Run:
    """The directory that the other tests look at."""
    assert embedded(source, clip, folder / "out") == 0
    return Run(str(folder / "out"))


def by_hand(encoder: Path, root: Path, names: list[str]) -> np.ndarray:
    """The features of readable images, from the encoder itself."""
    model = encoders.load(str(encoder), Device(1))
    wanted = model.preprocessing
    pixels = np.stack([decode((root / name).read_bytes(), wanted.resize) for name in names])
    normal = torch.from_numpy((pixels / 255 - wanted.mean) / wanted.std).permute(0, 3, 1, 2).float()
    with torch.inference_mode():
        return model.encode_image(normal).numpy()


def uris(run: Run) -> list[str]:
    return [row["uri"] for row in run.read_all("manifest").to_pylist()]


def same(a: Embedded, b: Embedded) -> bool:
    return np.array_equal(a.matrix, b.matrix) and np.array_equal(a.there, b.there) and a.revision == b.revision


# -- what comes out ------------------------------------------------------------------------------------------


def test_every_image_is_accounted_for(finished, clip, capsys):
    counts = finished.need("embeddings").counts
    assert (counts.done, counts.failed) == (world.GOOD, {reason: 1 for reason in world.BAD.values()})
    assert finished.need("manifest").counts.filtered == {"not an image's name": 1}
    found, names = read(finished.root), uris(finished)
    assert [name for name, there in zip(names, found.there, strict=True) if not there] == sorted(world.BAD)
    assert not found.matrix[~found.there].any() and found.matrix[found.there].any(axis=1).all()
    assert (found.encoder, found.revision) == (str(clip), weights.check(str(clip)))
    assert found.width == found.matrix.shape[1] == 24 and found.matrix.dtype == np.float16
    assert found.manifest == finished.need("manifest").id
    about = record.need(finished, embed.KIND)
    assert about["kind"] == "embed" and {"ray", "torch", "open_clip_torch"} <= about["packages"].keys()
    with pytest.raises(SystemExit) as ended:
        main(["status", finished.root])
    told = capsys.readouterr().out
    assert ended.value.code == 0 and "every row is done, filtered, failed or missing" in told
    line = next(line for line in told.splitlines() if line.startswith("embed"))
    assert line.split()[:8] == ["embed", "48", "images", "44", "0", "4", "0", "sealed"]


def test_the_features_are_the_encoders_own(finished, clip, source):
    found, names = read(finished.root), uris(finished)
    good = [name for name, there in zip(names, found.there, strict=True) if there]
    expected = by_hand(clip, source, good)
    assert not np.allclose(np.linalg.norm(expected, axis=1), 1, atol=0.1)  # they are not normalised
    np.testing.assert_allclose(found.matrix[found.there], expected, rtol=2e-3, atol=2e-3)  # float16


def test_a_run_is_embedded_beside_it_by_its_own_manifest(tmp_path, ray_session, refused, capsys):
    run, blip = runs.finished(tmp_path), small_encoders.blip(tmp_path / "blip")
    assert embedded(run.root, blip) == 0
    found = read(run.at("embed"))
    assert found.manifest == run.need("manifest").id and not Run(run.at("embed")).seal("manifest")
    assert np.flatnonzero(~found.there).tolist() == [9]  # its file is gone
    good = [name for i, name in enumerate(uris(run)) if i != 9]
    expected = by_hand(blip, tmp_path / "images", good)
    np.testing.assert_allclose(found.matrix[found.there], expected, rtol=2e-3, atol=2e-3)
    # the run is made anew at the same place: its ids may be others
    shutil.rmtree(run.at("manifest"))
    runs.manifest(run, uris_of(tmp_path))
    capsys.readouterr()
    told = refused(command(run.root, blip))
    assert f"manifest.seal was '{found.manifest}', now '" in told and "manifest.total was 24, now 23" in told


def uris_of(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "images").iterdir())


def test_on_s3_and_failed_images_done_again(finished, clip, source, s3):
    images, out = s3("images"), s3("embed")
    for entry in storage.list_files(str(source)):
        storage.upload(source / entry.name, storage.join(images, entry.name))
    mended = "image-003.jpg"
    storage.write(storage.join(images, mended), (source / mended).read_bytes()[:500])
    assert embedded(images, clip, out) == 0
    found, whole = read(out), read(finished.root)
    other = np.array([name != mended for name in uris(finished)])
    assert np.array_equal(found.matrix[other], whole.matrix[other]) and not found.there[~other].any()
    storage.upload(source / mended, storage.join(images, mended))
    assert embedded(images, clip, out, "--retry-failed") == 0
    found = read(out)
    assert np.array_equal(found.matrix[other], whole.matrix[other]) and np.array_equal(found.there, whole.there)
    # alone in its batch, it may differ in the last bit
    np.testing.assert_allclose(found.matrix[~other], whole.matrix[~other], rtol=2e-3, atol=1e-3)


# -- going on ------------------------------------------------------------------------------------------------


def test_the_same_command_again_computes_nothing(finished, clip, source, capsys, monkeypatch):
    monkeypatch.setattr("syncir_ray.session.start", None)  # Ray is not even asked for
    before = finished.need("embeddings")
    assert embedded(source, clip, finished.root) == 0
    assert finished.need("embeddings") == before and "finished before" in capsys.readouterr().out


def test_what_a_killed_driver_leaves_is_continued(finished, clip, source, tmp_path):
    shutil.copytree(finished.root, tmp_path / "out")
    run = Run(str(tmp_path / "out"))
    Path(run.at("embeddings", "sealed.json")).unlink()
    for unit in run.units("embeddings")[1::2]:
        Path(run.at("embeddings", unit.name)).unlink()
    with pytest.raises(UserError, match=r"not finished; `python -m hycir_train embed --images .* continues"):
        read(run.root)
    kept = {unit: stamp(run, unit) for unit in run.units("embeddings")}
    assert embedded(source, clip, run.root) == 0
    assert same(read(run.root), read(finished.root))
    assert kept and {unit: stamp(run, unit) for unit in kept} == kept  # what was finished was not written again
    assert run.need("embeddings").counts.rows == IMAGES


def stamp(run: Run, unit: Unit) -> int:
    return Path(run.at("embeddings", unit.name)).stat().st_mtime_ns


# -- what is refused -----------------------------------------------------------------------------------------


def test_another_encoder_or_source_is_refused(finished, clip, source, tmp_path, refused):
    other = small_encoders.clip(tmp_path / "other", "own")
    told = refused(command(source, other, finished.root))
    assert f"embed.model was {clip} (sha256:" in told and f"now {other} (sha256:" in told
    assert "use the old values or another --out" in told
    elsewhere = shutil.copytree(source, tmp_path / "elsewhere")
    told = refused(command(elsewhere, clip, finished.root))
    assert f"manifest.images was '{source}', now '{elsewhere}'" in told
    moved = shutil.copytree(clip, tmp_path / "moved")  # the same one in another place
    assert embedded(source, moved, finished.root) == 0


def test_a_second_driver_is_refused(finished, clip, source, refused):
    with hold(finished):
        assert "another driver writes here" in refused(command(source, clip, finished.root))


def test_what_is_no_source_or_no_place(finished, clip, source, tmp_path, refused, capsys):
    assert "--out is missing" in refused(command(source, clip))
    assert "no such folder" in refused(command(tmp_path / "none", clip, tmp_path / "out"))
    assert "no such folder" in refused(command(source, tmp_path / "none", tmp_path / "out"))
    assert "--rows must be at least 1" in refused([*command(source, clip, tmp_path / "out"), "--rows", "0"])
    assert "--pool: needs" in refused(command(source, clip, tmp_path / "out", "--pool.min", "0"))
    assert not (tmp_path / "out").exists()
    run = runs.finished(tmp_path / "run")
    assert "made by `synthesize`, not by `embed`" in refused(command(source, clip, run.root))
    assert "made by `embed`, not by `synthesize`" in refused(command(finished.root, clip, tmp_path / "out"))
    shutil.rmtree(run.at("manifest"))
    assert "manifest: not finished; run `synthesize`" in refused(command(run.root, clip))
    with pytest.raises(SystemExit) as ended:
        cli.main(["status", finished.root])
    assert ended.value.code == 2 and "made by `embed`" in capsys.readouterr().err


def test_what_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match=r"no image features here .no run.json.; `python -m hycir_train embed"):
        read(str(tmp_path / "none"))
    run = runs.finished(tmp_path)
    with pytest.raises(UserError, match="made by `synthesize`, not by `embed`"):
        read(run.root)
