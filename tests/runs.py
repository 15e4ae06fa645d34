"""Runs on disk made by the stages' own callables, one unit after the other, without Ray and without a model."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from syncir_ray import record, schemas
from syncir_ray.config import Captions, Config, Features, Manifest, Pairs, Queries, Triplets
from syncir_ray.models.answer import Answer, Failure
from syncir_ray.run import Run, Seal, Unit, split
from syncir_ray.stages import captions, features, pairs, queries, triplets
from syncir_ray.stages.account import account, done, failed, spend, unit_of, with_unit, work
from syncir_ray.stages.commit import Commit, Finish

Operator = Callable[[pa.Table], pa.Table]


def every(unit: Unit) -> np.ndarray:
    """All ids of a unit."""
    return np.arange(unit.start, unit.stop, dtype=np.uint64)


def stage(
    run: Run,
    table: str,
    units: Sequence[Unit],
    operators: Sequence[Operator],
    finish: Finish,
    ids: Callable[[Unit], np.ndarray] = every,
    again: bool = False,
) -> None:
    """What `Job.stage` does with these units, in this process; not sealed."""
    commit = Commit(run, table, finish, again)
    for unit in units:
        asked = ids(unit)
        if not len(asked):
            commit.nothing(unit)
            continue
        block = work(unit, asked)
        for operator in operators:
            block = operator(block)
        commit(block)


def manifest(run: Run, uris: Sequence[str], texts: Sequence[str | None] | None = None, rows: int = 5) -> Seal:
    """A sealed manifest of whole files."""
    for unit in split(len(uris), rows):
        part = slice(unit.start, unit.stop)
        columns = {
            "image_id": every(unit),
            "uri": list(uris[part]),
            "object": list(uris[part]),
            "offset": [None] * unit.count,
            "length": [None] * unit.count,
            "caption": list(texts[part]) if texts else [None] * unit.count,
        }
        run.write("manifest", unit, pa.table(columns, schema=schemas.MANIFEST))
    return run.close("manifest", "image_id", len(uris), facts={"source_rows": len(uris)})


def featured(run: Run, vectors: Sequence[Sequence[float] | None] | np.ndarray, rows: int = 4) -> Seal:
    """A sealed feature table; an image without a vector has failed."""

    def embed(block: pa.Table) -> pa.Table:
        unit, ids = unit_of(block)
        return spend(with_unit(feature_rows(ids, [vectors[int(i)] for i in ids]), unit), 0.0, len(ids))

    stage(run, "features", split(len(vectors), rows), [embed], features.finish)
    return run.close("features", "image_id", len(vectors))


def feature_rows(ids: np.ndarray, vectors: Sequence[Sequence[float] | None]) -> pa.Table:
    """Rows of a feature table."""
    width = len(next(v for v in vectors if v is not None)) if any(v is not None for v in vectors) else 2
    missing = np.array([v is None for v in vectors])
    values = np.array([np.zeros(width) if v is None else v for v in vectors], np.float16)
    column = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), width, mask=pa.array(missing))
    outcomes = [failed("truncated image") if v is None else done() for v in vectors]
    return pa.table([pa.array(ids, pa.uint64()), column, *account(outcomes)], schema=schemas.features(width))


def paired(run: Run, config: Pairs, units: Sequence[Unit] | None = None) -> Seal:
    """The groups of a run with features, and its pairs, sealed."""
    images = run.need("features").rows
    mine = pairs.Mine(run, config, 1)
    stage(run, "groups", units or split(images, config.rows), [mine], pairs.finish)
    run.close("groups", "image_id", images)
    return pairs.number(run, config.rows)


def captioned(run: Run, rows: int) -> Seal:
    """The manifest's captions of the images that are in a pair, sealed."""
    images = run.need("manifest").rows
    wanted = captions.in_pairs(run.read_all("pairs", ["reference_id", "target_id"]), images)
    ids = lambda unit: unit.start + np.flatnonzero(wanted[unit.start : unit.stop])  # noqa: E731
    stage(run, "captions", split(images, rows), [captions.Copy(run)], captions.finish, ids)
    return run.close("captions", "image_id", images)


def write(block: pa.Table, answer: Callable[[str], Answer | Failure | Exception]) -> pa.Table:
    """What `queries.Write` makes of a block, with `answer` for a model."""
    texts = [queries.answered(answer(prompt)) for prompt in block["prompt"].to_pylist()]
    return spend(queries._texts(block, texts), 0.5, len(texts))


def queried(run: Run, rows: int, answer: Callable[[str], Answer | Failure | Exception]) -> Seal:
    """Prompts and query texts, sealed."""
    prompts = run.seal("prompts") or queries.lay_out(run, rows)
    last = prompts.facts["prompts"]
    stage(
        run,
        "queries",
        prompts.units,
        [queries.Ask(run), lambda block: write(block, answer)],
        queries.finish,
        lambda unit: every(unit) if unit.start < last else np.empty(0, np.uint64),
    )
    return run.close("queries", "pair_id", run.need("pairs").rows)


def judged(run: Run, config: Triplets, embed: Callable[[list[str]], np.ndarray]) -> Seal:
    """The triplet table, sealed."""
    units = run.need("queries").units
    ids = lambda unit: run.read("prompts", unit, ["pair_id"])["pair_id"].to_numpy()  # noqa: E731
    stage(run, "triplets", units, [filter_of(run, config, embed)], triplets.finish, ids)
    return run.close("triplets", "pair_id", run.need("pairs").rows)


def filter_of(run: Run, config: Triplets, embed: Callable[[list[str]], np.ndarray]) -> triplets.Filter:
    """The triplets stage's own callable, with `embed` for a model."""
    made = triplets.Filter.__new__(triplets.Filter)
    made.run, made.config, made.embed = run, config, triplets.Memory(embed)
    return made


# -- a whole run ----------------------------------------------------------------------------------------------

IMAGES = 24
BROKEN = 5  # the image that has no feature
CONFIG = Config(
    features=Features(rows=4),
    pairs=Pairs(rows=7),
    captions=Captions(source="manifest", rows=9),
    queries=Queries(engine="openai", rows=16),
)


def answer(prompt: str) -> Answer | Failure | Exception:
    """An instruction for most prompts; some are refused, cut or too much for the model."""
    kind = sum(prompt.encode()) % 10
    if kind == 0:
        return Failure("refused by the server", "HTTP 400")
    if kind == 1:
        return ValueError("too long for the model")
    words = prompt.split("Target sentence: ")[1].splitlines()[0]
    return Answer(f"Instruction: change it to {words}", kind == 2, 90, 9)


def embed(texts: list[str]) -> np.ndarray:
    """Counts of letters, in 26 numbers: texts of the same words are alike."""
    counts = [[text.lower().count(chr(97 + i)) for i in range(26)] for text in texts]
    return np.array(counts, np.float32).reshape(len(texts), 26)


def finished(folder: Path, threshold: float = 0.7, vector: np.ndarray | None = None) -> Run:
    """A finished run of 24 small photographs: image 5 has no feature, images 6, 7, 10 and 11 the same caption,
    image 8 has none, and the file of image 9 is gone.

    Args:
        vector: a feature of image 5 after all.
    """
    rng = np.random.default_rng(3)
    images = folder / "images"
    images.mkdir(parents=True)
    uris = [f"photo {i:02}.jpg" for i in range(IMAGES)]
    for i, uri in enumerate(uris):
        if i != 9:
            Image.new("RGB", (12, 8), (10 * i, 250 - 10 * i, 90)).save(images / uri)
    things = ("dog", "red bicycle", "bowl of soup", "train", "cat", "wooden boat", "zebra")
    texts: list[str | None] = [f"a {things[i % 7]} beside {i} other things" for i in range(IMAGES)]
    texts[6] = texts[10] = texts[11] = texts[7]
    texts[8] = None
    run = Run(str(folder / "run"))
    config = replace(
        CONFIG, manifest=Manifest(images=str(images), root=str(images)), triplets=Triplets(threshold=threshold)
    )
    record.enter(run, config, {})
    manifest(run, uris, texts)
    vectors = rng.normal(size=(IMAGES, 6))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    featured(run, [vector if i == BROKEN else vectors[i] for i in range(IMAGES)], config.features.rows)
    paired(run, config.pairs)
    captioned(run, config.captions.rows)
    queried(run, config.queries.rows, answer)
    judged(run, config.triplets, embed)
    return run
