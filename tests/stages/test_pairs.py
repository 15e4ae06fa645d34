"""Groups and their nine pairs: by hand, against a slow plain form, and over a run on disk."""

import json
import os
from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np
import pytest

from syncir_ray import schemas
from syncir_ray.config import Pairs
from syncir_ray.run import Run, Unit
from syncir_ray.stages import index, pairs
from syncir_ray.stages.account import work
from tests import runs

CONFIG = Pairs(rows=4)


def flat(vectors):
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    return index


def beside(*kappas):
    """Vectors of two numbers: the seed (1, 0), then one of each of these similarities to it, exactly."""
    kappa = np.array([1, *kappas], np.float32)
    return np.stack([kappa, np.sqrt(1 - kappa.astype(np.float64) ** 2).astype(np.float32)], axis=1)


def group(*kappas, config=CONFIG):
    """The members of the seed's group, by the numbers of `kappas` from 1 on; None where there is none."""
    vectors = beside(*kappas)
    nearest = pairs.neighbours(flat(vectors), vectors[:1], np.array([0]), config)
    members, similarities, stands = pairs.groups(*nearest, config.gap)
    if not stands[0]:
        return None
    assert similarities[0] == pytest.approx([kappas[i - 1] for i in members[0]], abs=1e-7)
    return members[0].tolist()


# -- one group by hand --------------------------------------------------------------------------------------


def test_the_five_nearest_in_order_of_similarity():
    assert group(0.5, 0.9, 0.7, 0.8, 0.6, 0.4) == [2, 4, 3, 5, 1]


def test_near_duplicates_are_passed_over_from_094_on():
    # 0.94 exactly is one, the next smaller float32 is none
    below = float(np.nextafter(np.float32(0.94), np.float32(0)))
    assert group(0.94, 0.99, 0.8, 0.7, 0.6, 0.5, 0.4) == [3, 4, 5, 6, 7]
    assert group(below, 0.99, 0.8, 0.7, 0.6, 0.5, 0.4) == [1, 3, 4, 5, 6]


def test_a_gap_of_exactly_the_bound_is_not_enough():
    # in 512ths every difference is exact
    config = replace(CONFIG, gap=1 / 512)
    kappas = [k / 512 for k in (400, 399, 398, 397, 396, 395, 394, 393, 392)]
    assert group(*kappas, config=config) == [1, 3, 5, 7, 9]
    assert group(*kappas, config=replace(CONFIG, gap=0.99 / 512)) == [1, 2, 3, 4, 5]


def test_the_gap_is_to_the_last_one_taken_not_to_the_last_one_seen():
    # 0.8 taken; 0.799 and 0.7985 too near to it; 0.7975 is far enough from 0.8 though not from 0.7985
    assert group(0.8, 0.799, 0.7985, 0.7975, 0.7, 0.6, 0.5) == [1, 4, 5, 6, 7]


def test_four_are_no_group():
    assert group(0.8, 0.7, 0.6, 0.5) is None
    assert group(0.8, 0.7, 0.6, 0.5, 0.4999) is None


def test_only_the_next_twenty_count_and_they_are_counted_after_the_near_duplicates():
    crowd = [0.7 - 0.0001 * i for i in range(17)]  # of a crowd this dense the first is taken, and no other
    twenty = [0.9, 0.8, *crowd[:16], 0.3, 0.2]
    assert group(*twenty) == [1, 2, 3, 19, 20]
    assert group(0.9, 0.8, *crowd, 0.3, 0.2) is None  # 0.2 is the 21st
    assert group(0.99, 0.95, 0.94, *twenty) == [4, 5, 6, 22, 23]
    assert group(0.9, 0.8, *crowd, 0.3, 0.2, config=replace(CONFIG, neighbours=21)) == [1, 2, 3, 20, 21]


def test_the_seed_is_left_out_wherever_it_stands_and_its_twins_are_near_duplicates():
    vectors = beside(1, 1, 0.8, 0.7, 0.6, 0.5, 0.4)[[3, 1, 4, 0, 5, 6, 7, 2]]
    for own in (1, 3, 7):
        nearest = pairs.neighbours(flat(vectors), vectors[[own]], np.array([own]), CONFIG)
        assert pairs.groups(*nearest, CONFIG.gap)[0].tolist() == [[0, 2, 4, 5, 6]]
    # not by its similarity: with a bound above 1 it is still not its own neighbour
    nearest = pairs.neighbours(flat(vectors), vectors[[1]], np.array([1]), replace(CONFIG, duplicate=1.01))
    assert nearest[1][0, :7].tolist() == [3, 7, 0, 2, 4, 5, 6]


def test_ties_are_in_order_of_id():
    # 3 and 1, of equal similarity: the first id is taken, the other is no gap away
    assert group(0.8, 0.6, 0.8, 0.7, 0.6, 0.5, 0.4) == [1, 4, 2, 6, 7]


class Contrary:
    """An exact index that of equal similarities gives the last ids; faiss promises no order either."""

    def __init__(self, vectors):
        self.vectors, self.ntotal, self.looks = vectors, len(vectors), []

    def search(self, seeds, look):
        self.looks.append(look)
        similar = seeds @ self.vectors.T
        order = np.lexsort((-np.arange(self.ntotal) + np.zeros_like(similar), -similar), axis=1)[:, :look]
        return np.take_along_axis(similar, order, 1), order


@pytest.mark.parametrize("make", [flat, Contrary])
@pytest.mark.parametrize("tied", [70, 300])
def test_ties_across_the_end_of_the_search_are_in_order_of_id_too(tied, make):
    """Of the first 64 any may be left out that are as similar as the last one; the twenty are the first by id."""
    vectors = beside(*[0.5] * tied)
    similar, positions = pairs.neighbours(make(vectors), vectors[:1], np.array([0]), CONFIG)
    assert positions[0].tolist() == list(range(1, 21)) and set(similar[0].tolist()) == {0.5}


def test_ties_before_the_end_of_the_search_do_not_widen_it():
    index = Contrary(beside(*[0.8, 0.7] * 10, *[0.5] * 300))
    pairs.neighbours(index, index.vectors[:1], np.array([0]), CONFIG)
    assert index.looks == [64]


def test_no_seed_and_no_image():
    empty = np.empty((0, 2), np.float32)
    similar, positions = pairs.neighbours(flat(empty), empty, np.empty(0, np.int64), CONFIG)
    assert pairs.groups(similar, positions, 0.002)[0].shape == (0, 5)
    assert len(pairs.pairs(np.empty(0, np.uint64), np.empty((0, 5), np.uint64))["pair_id"]) == 0


# -- the nine pairs -----------------------------------------------------------------------------------------


def test_the_nine_pairs_are_those_of_cirr():
    path = Path(__file__).parents[3] / "shared/annotations/CIRR/captions/cap.rc2.val.json"
    if not path.exists():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{path} is not there")
    sets = [entry["img_set"] for entry in json.loads(path.read_text())]
    assert {(s["reference_rank"], s["target_rank"]) for s in sets} == set(pairs.NINE)
    assert len(set(pairs.NINE)) == 9


def test_a_repeated_pair_is_dropped_and_the_other_way_round_is_another():
    found = pairs.pairs(np.array([7, 8], np.uint64), np.array([[8, 1, 2, 3, 4], [7, 1, 2, 5, 6]], np.uint64))
    rows = list(zip(found["reference_id"].tolist(), found["target_id"].tolist(), strict=True))
    assert rows == [
        *[(7, 8), (8, 1), (1, 2), (2, 3), (3, 4), (4, 7), (7, 1), (7, 2), (7, 3)],
        *[(8, 7), (2, 5), (5, 6), (6, 8), (8, 2), (8, 5)],  # (7,1), (1,2) and (8,1) were there
    ]
    assert found["pair_id"].tolist() == list(range(15))
    assert found["seed_id"].tolist() == [7] * 9 + [8] * 6
    assert found["reference_rank"].tolist() == [0, 1, 2, 3, 4, 5, 0, 0, 0, 0, 3, 4, 5, 0, 0]
    assert found["target_rank"].tolist() == [1, 2, 3, 4, 5, 0, 2, 3, 4, 1, 4, 5, 0, 3, 4]


def test_max_seeds_are_evenly_spread():
    ids = np.array([3, 5, 8, 13, 21, 34, 55], np.uint64)
    assert pairs.choose(ids, None) is ids and pairs.choose(ids, 7) is ids and pairs.choose(ids, 99) is ids
    assert pairs.choose(ids, 3).tolist() == [3, 8, 21]
    assert pairs.choose(ids, 1).tolist() == [3]
    assert pairs.choose(ids[:0], 5).tolist() == []


# -- by hand, over a run on disk ----------------------------------------------------------------------------

# Images by the angle of their feature in degrees; None: failed. By hand, with near-duplicates less than 19.95
# degrees apart (cos 0.94), by letters:  a 0  b 25  c 43  d 60  e 80  f 95  g 120
ANGLES = [0, None, 25, 43, None, None, 60, 80, 95, None, 120]
A, B, C, D, E, F, G = 0, 2, 3, 6, 7, 8, 10
GROUPS = {
    A: [B, C, D, E, F],  # 25 45 60 80 95
    B: [A, D, E, F, G],  # 25 35 55 70 95; c is 18 away
    C: None,  # 37 43 52 77; b and d are 18 and 17 away
    D: None,  # 20 35, 35 again is no gap, 60, 60 again is none; c is 17 away
    E: [D, C, G, B, A],  # 20 37 40 55 80; f is 15 away
    F: [G, D, C, B, A],  # 25 35 52 70 95; e is 15 away
    G: [F, E, D, C, B],  # 25 40 60 77 95
}
# Nine of each group, less what an earlier group has.
PAIRS = [
    *[(A, B), (B, C), (C, D), (D, E), (E, F), (F, A), (A, C), (A, D), (A, E)],
    *[(B, A), (F, G), (G, B), (B, D), (B, E), (B, F)],  # not (A, D), (D, E), (E, F)
    *[(E, D), (D, C), (C, G), (E, C), (E, G), (E, B)],  # not (G, B), (B, A), (A, E)
    *[(G, D), (C, B), (A, F), (F, D), (F, C), (F, B)],  # not (F, G), (D, C), (B, A)
    *[(G, F), (F, E), (B, G), (G, E), (G, C)],  # not (E, D), (D, C), (C, B), (G, D)
]
REPEATED = 13


@pytest.fixture
def run(tmp_path):
    made = Run(str(tmp_path))
    radians = [None if a is None else np.deg2rad(a) for a in ANGLES]
    runs.featured(made, [None if r is None else (np.cos(r), np.sin(r)) for r in radians], rows=3)
    return made


def test_the_table_worked_out_by_hand(run):
    seal = runs.paired(run, CONFIG)
    groups = run.read_all("groups").to_pylist()
    assert [row["image_id"] for row in groups] == list(range(len(ANGLES)))
    for row in groups:
        seed, members = row["image_id"], row["members"]
        if ANGLES[seed] is None:
            assert (row["status"], row["reason"], members) == ("filtered", "no feature", None)
        elif GROUPS[seed] is None:
            assert (row["status"], row["reason"], members) == ("filtered", "too few neighbours", None)
        else:
            assert (row["status"], row["reason"], members) == ("done", None, GROUPS[seed])
            expected = [np.cos(np.deg2rad(ANGLES[seed] - ANGLES[m])) for m in members]
            assert row["similarities"] == pytest.approx(expected, abs=1e-3)
    table = run.read_all("pairs")
    assert list(zip(table["reference_id"].to_pylist(), table["target_id"].to_pylist(), strict=True)) == PAIRS
    assert table["pair_id"].to_pylist() == list(range(len(PAIRS)))
    assert table.schema.equals(schemas.PAIRS)
    assert seal.facts == {"groups": 5, "repeated": REPEATED} and len(PAIRS) + REPEATED == 9 * 5
    counts = run.need("groups").counts
    assert (counts.done, counts.filtered, counts.calls) == (5, {"no feature": 4, "too few neighbours": 2}, 7)


def test_fewer_seeds(run):
    runs.paired(run, replace(CONFIG, max_seeds=3))  # of seven: the 1st, 3rd and 5th
    reasons = dict(zip(*(run.read_all("groups")[c].to_pylist() for c in ("image_id", "reason")), strict=True))
    assert {i for i, r in reasons.items() if r == "beyond max_seeds"} == {B, D, F, G}
    assert reasons[A] is None and reasons[C] == "too few neighbours" and reasons[E] is None
    assert reasons[1] == "no feature"


def test_units_of_any_size_in_any_order_give_the_same_pairs(run, tmp_path):
    runs.paired(run, CONFIG)
    other = Run(str(tmp_path / "other"))
    vectors = [None if a is None else (np.cos(np.deg2rad(a)), np.sin(np.deg2rad(a))) for a in ANGLES]
    runs.featured(other, vectors, rows=11)
    runs.paired(other, CONFIG, [Unit(9, 2), Unit(2, 7), Unit(0, 2)])
    assert other.read_all("pairs").equals(run.read_all("pairs"))


def test_mining_a_unit_again_gives_the_same_rows(run):
    mine = pairs.Mine(run, CONFIG, 1)
    block = work(Unit(0, 11), range(11))
    columns = schemas.GROUPS.names
    assert mine(block).select(columns).equals(pairs.Mine(run, CONFIG, 1)(block).select(columns))


def test_a_run_without_one_feature_has_no_pairs(tmp_path):
    run = Run(str(tmp_path))
    runs.featured(run, [None] * 3)
    seal = runs.paired(run, CONFIG)
    assert seal.rows == 0 and run.need("groups").counts.filtered == {"no feature": 3}


# -- against a slow plain form ------------------------------------------------------------------------------


def slowly(kappa: np.ndarray, own: int, config: Pairs) -> list[int] | None:
    """METHODS.md, SynCir 2, for one seed, word for word."""
    others = [i for i in range(len(kappa)) if i != own]
    ranked = sorted(others, key=lambda i: (-kappa[i], i))
    nearest = [i for i in ranked if kappa[i] < config.duplicate][: config.neighbours]
    taken: list[int] = []
    for i in nearest:
        if len(taken) < 5 and (not taken or abs(kappa[i] - kappa[taken[-1]]) > config.gap):
            taken.append(i)
    return taken if len(taken) == 5 else None


class Watched:
    """An index that remembers how far it was asked to look."""

    def __init__(self, index):
        self.index, self.ntotal, self.looks = index, index.ntotal, []

    def search(self, seeds, look):
        self.looks.append((len(seeds), look))
        return self.index.search(seeds, look)


@pytest.mark.parametrize("seed", range(3))
def test_against_a_slow_plain_form(seed):
    """Clusters of whole numbers: every inner product is exact in float32, so ties are ties in both."""
    rng = np.random.default_rng(seed)
    # (images, how far from their centre): two so dense that near-duplicates fill 64 and 256, and wider ones
    clusters = [(300, 1), (100, 1), (120, 4), (60, 6), (20, 3), (4, 2)]
    parts = [8 * rng.choice([-1, 1], 16) + rng.integers(-w, w + 1, (n, 16)) for n, w in clusters]
    vectors = (rng.permutation(np.concatenate(parts)) / 32).astype(np.float32)
    exact = vectors.astype(np.float64) @ vectors.astype(np.float64).T
    config = replace(CONFIG, gap=1 / 512)
    index = Watched(flat(vectors))
    own = np.arange(len(vectors))
    members, similarities, stands = pairs.groups(*pairs.neighbours(index, vectors, own, config), config.gap)
    expected = [slowly(exact[i], i, config) for i in own]
    assert [m.tolist() if stood else None for m, stood in zip(members, stands, strict=True)] == expected
    for i in np.flatnonzero(stands):
        assert similarities[i].tolist() == exact[i, members[i]].tolist()
    assert [look for _, look in index.looks] == [64, 256, len(vectors)]
    assert 0 < stands.sum() < len(stands)
    duplicates = (exact >= config.duplicate).sum(1)
    assert (duplicates > 256).any() and ((duplicates > 64) & (duplicates < 200)).any() and (duplicates < 20).any()


# -- IVF ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """4,000 features in 200 clusters of 24 numbers, some images failed."""
    rng = np.random.default_rng(5)
    run = Run(str(tmp_path_factory.mktemp("large")))
    centres = rng.normal(size=(200, 24))
    vectors = centres[rng.integers(0, 200, 4000)] + 0.5 * rng.normal(size=(4000, 24))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    runs.featured(run, [None if i % 97 == 0 else v for i, v in enumerate(vectors)], rows=800)
    return run


def test_an_inverted_index_finds_the_neighbours_and_is_built_once(large, monkeypatch):
    exact, config = Pairs(rows=500), Pairs(rows=500, exact_up_to=1000)
    monkeypatch.setattr(index, "PROBES", 30)
    monkeypatch.setattr(index, "COMPONENTS", 12)
    pairs.prepare(large, exact, 1)
    address = Path(large.at("groups", index.INDEX))
    assert not address.exists()  # not needed: below the bound
    plain = pairs.Mine(large, exact, 1)
    pairs.prepare(large, config, 1)
    before = address.read_bytes()
    monkeypatch.setattr(index, "build", None)  # from now on it is read
    pairs.prepare(large, config, 1)
    inverted = pairs.Mine(large, config, 1)
    files = faiss.extract_index_ivf(inverted.index.index.base_index)
    assert address.read_bytes() == before and isinstance(inverted.index, index.Inverted)
    assert inverted.index.ntotal == len(inverted.ids) == 4000 - 42 and (files.nprobe, files.d) == (30, 12)
    assert files.nlist > 3 * 30  # a search does not look everywhere

    features = np.concatenate([f for _, f in index.pieces(large, large.need("features").units)])
    own = np.arange(0, len(features), 7)
    found = [pairs.neighbours(mine.index, features[own], own, config)[1] for mine in (plain, inverted)]
    same = [len(np.intersect1d(a, b)) for a, b in zip(*found, strict=True)]
    assert np.mean(same) / config.neighbours >= 0.9

    runs.stage(large, "groups", [Unit(0, 500)], [inverted], pairs.finish)
    again = pairs.Mine(large, config, 1)(work(Unit(0, 500), range(500)))
    assert again.select(schemas.GROUPS.names).equals(large.read("groups", Unit(0, 500)).cast(schemas.GROUPS))


def test_an_inverted_index_that_has_no_more_ends_the_search():
    """Of cells with few images a search comes back with less than it was asked for, however far it looks."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(400, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(8), 8, 10, faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    index.add(vectors)
    assert max(index.invlists.list_size(cell) for cell in range(10)) < pairs.FIRST_LOOK * 2
    watched = Watched(index)
    similar, positions = pairs.neighbours(watched, vectors, np.arange(400), replace(CONFIG, duplicate=0.5))
    # those in a cell of fewer than 64 were not asked for again
    small = np.isin(
        index.quantizer.search(vectors, 1)[1][:, 0], [c for c in range(10) if index.invlists.list_size(c) < 64]
    )
    assert small.any() and sum(seeds for seeds, look in watched.looks if look > 64) <= 2 * (~small).sum()
    assert ((positions < 0) == np.isneginf(similar)).all() and (positions < 0).any()


def test_the_sample_of_an_inverted_index_is_of_the_features():
    rows = np.arange(50, dtype=np.float32)[:, None]
    parts = [(rows[:0, 0], rows[:0]), (rows[:20, 0], rows[:20]), (rows[20:, 0], rows[20:])]
    sample = index.sample(iter(parts), 50, 30)[:, 0].tolist()
    assert len(sample) == len(set(sample)) == 30 and sample == sorted(sample) and sample[0] >= 0
    assert index.sample(iter(parts), 50, 50).tolist() == rows.tolist()
