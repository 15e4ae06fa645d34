"""The mini world's benchmark as it is written: its truth by brute force, its groups, its files."""

import itertools
import json
from functools import partial

import numpy as np
import pytest
from PIL import Image

from hycir_train.benchmarks import circo, cirr
from hycir_train.benchmarks import images as files
from syncir_ray import storage
from syncir_ray.errors import UserError
from syncir_ray.miniworld.benchmark import IMAGES, write
from syncir_ray.miniworld.composed import composed
from syncir_ray.miniworld.judge import judge
from syncir_ray.miniworld.render import render
from syncir_ray.miniworld.scene import from_json
from tests.miniworld.plain import after, one_change, plain
from tests.miniworld.written import CIRCO, CIRR, QUERIES, SEED, annotations, contents, truth


def test_the_right_answers_are_all_that_satisfy_the_text(made):
    folder, _ = made
    shows = {row["id"]: row["scene"] for row in truth(folder)}
    for query in annotations(folder, CIRCO):
        reference = shows[query["reference_img_id"]]
        wanted = after(plain(reference), query["relative_caption"])
        truths = query["gt_img_ids"]
        assert truths[0] == query["target_img_id"] and len(set(truths)) == len(truths)
        assert {i for i, scene in shows.items() if plain(scene) == wanted} == set(truths)
        judged = partial(judge, from_json(reference), query["relative_caption"])
        right = {json.dumps(s) for s in shows.values() if judged(from_json(s)) == "right"}
        assert {i for i, scene in shows.items() if json.dumps(scene) in right} == set(truths)


def test_the_gallery_holds_what_is_easily_taken_for_a_right_answer(made):
    folder, benchmark = made
    shows = {row["id"]: plain(row["scene"]) for row in truth(folder)}
    for query in benchmark.queries:
        right = {image.id for image in query.truths}
        same = [i for i, scene in shows.items() if scene == shows[query.reference.id]]
        assert len(same) >= 2 and not right & set(same)
        near = [scene for i, scene in shows.items() if one_change(scene, shows[query.target.id])]
        assert any(scene != shows[query.reference.id] for scene in near)


def test_groups_are_six_similar_scenes_with_one_right_answer(made):
    folder, _ = made
    shows = {row["name"]: plain(row["scene"]) for row in truth(folder)}
    groups: dict[int, set[str]] = {}
    for query in annotations(folder, CIRR):
        group, reference, target = query["img_set"], query["reference"], query["target_hard"]
        members = group["members"]
        assert groups.setdefault(group["id"], set(members)) == set(members) and len(set(members)) == 6
        wanted = after(shows[reference], query["caption"])
        assert [name for name in members if shows[name] == wanted] == [target]
        assert len({json.dumps(shows[name], sort_keys=True) for name in members}) == 6
        assert {name for name, scene in shows.items() if scene == wanted} == query["target_soft"].keys()
        assert set(query["target_soft"].values()) == {1.0} and {reference, target} <= set(members)
        # each of them a change or two off the reference
        off = [name for name in members if one_change(shows[name], shows[reference])]
        further = {*members} - {*off, reference}
        assert len(off) >= 3 and all(any(one_change(shows[far], shows[name]) for name in off) for far in further)
        assert (target in off) == (" and " not in query["caption"]) == (group["target_rank"] < 3)
        assert group["reference_rank"] == 0 < group["target_rank"]
    assert sum(map(len, groups.values())) == len(set().union(*groups.values()))  # no image in two groups


def test_ids_are_unique_and_tell_nothing(made):
    folder, benchmark = made
    rows = truth(folder)
    assert [row["id"] for row in rows] == list(range(1, len(rows) + 1)) and len(
        {row["name"] for row in rows}
    ) == len(rows)
    circos, cirrs = (annotations(folder, n) for n in (CIRCO, CIRR))
    assert [q["id"] for q in circos] == [q["pairid"] for q in cirrs] == list(range(QUERIES))
    assert [q["relative_caption"] for q in circos] == [q["caption"] for q in cirrs]
    places = [query["img_set"]["members"].index(query["target_hard"]) for query in cirrs]
    assert len(set(places)) == 6
    neighbours = sum(a["scene"] == b["scene"] for a, b in itertools.pairwise(rows))
    assert neighbours < len(rows) / 10
    assert {image.id for query in benchmark.queries for image in query.members} <= {row["id"] for row in rows}


def test_the_same_arguments_write_the_same_bytes(made, tmp_path):
    folder, _ = made
    write(str(tmp_path / "again"), QUERIES, SEED)
    one, again = contents(folder), contents(tmp_path / "again")
    assert one == again
    assert composed(QUERIES, SEED) == composed(QUERIES, SEED)
    other = composed(QUERIES, SEED + 1)
    seen = {image.scene for image in other.images if len(image.scene.places) == 3}
    assert not seen & {image.scene for image in composed(QUERIES, SEED).images}


def test_files_are_the_renderings(made):
    folder, benchmark = made
    rows = truth(folder)
    for image, row in list(zip(benchmark.images, rows, strict=True))[::20]:
        assert from_json(row["scene"]) == image.scene and row["seed"] == image.seed
        with Image.open(folder / row["uri"]) as picture:
            assert np.array_equal(np.asarray(picture), render(image.scene, image.seed))
    assert len(list((folder / IMAGES).iterdir())) == len(rows)


def test_no_queries_are_refused(tmp_path):
    with pytest.raises(UserError, match="at least 1, not 0"):
        write(str(tmp_path), 0)
    assert not list(tmp_path.iterdir())


def test_on_s3(place):
    benchmark = write(place, 2)
    assert len(circo.load(place).queries) == len(cirr.load(place).queries) == 2
    assert not files.find(circo.load(place), storage.join(place, IMAGES)).missing
    assert len(storage.read(storage.join(place, "scenes.jsonl")).splitlines()) == len(benchmark.images)
