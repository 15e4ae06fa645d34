"""The demo's images: the same for a seed, readable as a manifest, near-duplicates and neighbours among them."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from syncir_ray import cli
from syncir_ray.miniworld.render import SIDE
from syncir_ray.miniworld.scene import apart, from_json
from syncir_ray.miniworld.world import DEMO, collection


def world(folder: Path, *options: str) -> dict[str, bytes]:
    cli.main(["miniworld", "--out", str(folder), "--images", "70", *options])
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.*")}


def test_the_same_seed_renders_the_same_files(tmp_path, capsys):
    one, again, other = (
        world(tmp_path / seed / n, "--seed", seed) for n, seed in (("a", "0"), ("b", "0"), ("c", "1"))
    )
    assert one == again and len(one) == len(other) and not set(one.values()) & set(other.values())
    assert str(tmp_path / "0" / "a" / "scenes.jsonl") in capsys.readouterr().out
    rows = [json.loads(line) for line in one["scenes.jsonl"].splitlines()]
    assert len(rows) == 70 and {row["uri"] for row in rows} == one.keys() - {"scenes.jsonl"}
    assert all(from_json(row["scene"]).places for row in rows)
    with Image.open(tmp_path / "0" / "a" / rows[0]["uri"]) as image:
        assert image.size == (SIDE, SIDE) and image.mode == "RGB"


def test_a_collection_has_neighbours_and_a_few_duplicates():
    scenes = collection(400, np.random.default_rng([DEMO, 5]))
    counts = Counter(scenes)
    assert 5 <= sum(n - 1 for n in counts.values()) <= 60
    fifth = [sorted(apart(a, b) for b in counts if b != a)[4] for a in counts]
    assert np.median(fifth) <= 4


def test_s3(s3, tmp_path):
    from syncir_ray import storage

    out = s3("world")
    cli.main(["miniworld", "--out", out, "--images", "5"])
    assert storage.read(storage.join(out, "scenes.jsonl")).count(b"\n") == 5


@pytest.mark.parametrize("images", ["0", "-3"])
def test_no_images_is_refused(images, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["miniworld", "--out", str(tmp_path), "--images", images])
    assert ended.value.code == 2 and "--images" in capsys.readouterr().err
