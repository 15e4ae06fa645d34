"""Pools fitted to clusters: nothing may ask for more than there is, or Ray would wait for ever."""

from dataclasses import replace

import pytest

from syncir_ray.config import PRESETS, Config, Pool
from syncir_ray.placement import place

STAGES = ("features", "pairs", "captions", "queries", "triplets")


@pytest.mark.parametrize(
    ("cpus", "node"), [(1, 1), (2, 2), (3, 3), (8, 8), (64, 64), (100, 10), (128, 16), (8, 2)]
)
@pytest.mark.parametrize("preset", PRESETS)
def test_without_a_gpu_a_stage_fits_and_leaves_room_for_its_feeders(cpus, node, preset):
    placed = place(PRESETS[preset], cpus, 0, node)
    assert "no GPU" in placed.note and not placed.gpu
    for stage in STAGES:
        pool = getattr(placed.config, stage).pool
        assert pool.gpus == 0 and pool.cpus > 0
        assert pool.min * pool.cpus + placed.decode + 2 * placed.light <= cpus, stage
        assert pool.cpus < node and placed.threads(pool) <= node, stage


def test_a_writer_that_asks_a_server_takes_no_gpu():
    config = Config(queries=replace(Config().queries, engine="openai"))
    assert place(config, 64, 8, 64).config.queries.pool.gpus == 0


def test_a_pool_that_asks_for_no_gpu_stays_as_it_is():
    config = Config()
    mine = Pool(min=2, max=3, gpus=0, cpus=0.5, batch=7)
    config = replace(config, captions=replace(config.captions, pool=mine))
    assert place(config, 8, 0, 8).config.captions.pool == mine
    assert place(config, 8, 2, 8).config.captions.pool == mine


def test_with_gpus_the_pools_are_those_of_the_configuration():
    placed = place(Config(), 32, 4, 16)
    assert placed.gpu and placed.config.features == Config().features
    assert placed.config.pairs.pool.cpus <= 16
    assert placed.threads(placed.config.features.pool) == 1


def test_a_cluster_that_grows_gpus_is_asked_for_all_of_them_at_once():
    placed = place(Config(), 16, 0, 16, grows=True)
    assert placed.gpu and "brings nodes up" in placed.note
    assert placed.config.features.pool == replace(Config().features.pool, min=8)
    assert placed.config.pairs.pool.min == 1  # it asks for no GPU
