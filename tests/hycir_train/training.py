"""Tables to train on, made without a pipeline: a run with triplets, and features of its images."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from hycir_train import embed, schemas
from hycir_train.data import Data, gather
from hycir_train.settings import Settings
from hycir_train.train import Plan
from syncir_ray import record
from syncir_ray.models import weights
from syncir_ray.run import Run, Unit
from syncir_ray.schemas import DONE, FILTERED, TRIPLETS
from syncir_ray.stages.account import account, done, failed
from tests import runs, small_encoders

IMAGES, WIDTH = 60, 24
MISSING = 7  # the image without a feature
WORDS = ("dog", "cat", "red", "blue", "large", "bus")
# A second in all; dropout, accumulation, clipping and a schedule are on, for a resumed run to get right.
SMALL = Settings(
    tokens=2, unlabelled_batch=16, triplet_batch=10, steps=12, learning_rate=1e-3, schedule="cosine", warm_up=3,
    clip=5.0, accumulate=2, held_out=12, checkpoint_every=4,
)  # fmt: skip


def options(settings: Settings) -> list[str]:
    """The settings as options of the command line."""
    values = vars(settings)
    return [part for name in values for part in (f"--{name.replace('_', '-')}", str(values[name]))]


def run(folder: Path, kept: int = 160) -> Run:
    """A run of 60 images and twice as many pairs, of which `kept` are triplets."""
    made = Run(str(folder))
    record.enter(made, runs.CONFIG, {})
    runs.manifest(made, [f"{i:03}.png" for i in range(IMAGES)], rows=40)
    random, count = np.random.default_rng(5), 2 * 160
    reference, step = np.divmod(random.permutation(IMAGES * (IMAGES - 1))[:count], IMAGES - 1)
    target = (reference + 1 + step) % IMAGES
    texts = [f"make it {WORDS[t % 6]}" + ", and add a hat" * (t % 3) for t in target]
    values = {
        "pair_id": np.arange(count), "reference_id": reference, "target_id": target, "query_text": texts,
        "reference_uri": [""] * count, "target_uri": [""] * count,
        "status": [DONE if i % 2 == 0 and i < 2 * kept else FILTERED for i in range(count)],
    }  # fmt: skip
    columns = {
        f.name: pa.array(values[f.name], f.type) if f.name in values else pa.nulls(count, f.type) for f in TRIPLETS
    }
    made.write("triplets", Unit(0, count), pa.table(columns, schema=TRIPLETS))
    made.close("triplets", "pair_id", count)
    return made


def features(folder: Path, of: Run, encoder: Path, seed: int = 1) -> Path:
    """What `embed` would make, of random features."""
    made = Run(str(folder))
    seal = of.need("manifest")
    source = embed.Source(of.root, "", seal=seal.id, total=seal.rows)
    config = embed.Config(source, embed.Embed(str(encoder)))
    record.enter(made, config, {"embed": weights.check(str(encoder))}, embed.KIND)
    matrix = np.random.default_rng(seed).normal(size=(IMAGES, WIDTH)).astype(np.float16)
    missing = np.arange(IMAGES) == MISSING
    column = pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1)), WIDTH, mask=pa.array(missing))
    outcomes = [failed("truncated image") if gone else done() for gone in missing]
    ids = pa.array(np.arange(IMAGES), pa.uint64())
    made.write(
        "embeddings",
        Unit(0, IMAGES),
        pa.table([ids, column, *account(outcomes)], schema=schemas.embeddings(WIDTH)),
    )
    made.close("embeddings", "image_id", IMAGES)
    return folder


def world(folder: Path) -> tuple[Run, Path]:
    """A run with its features in their place, and the encoder they are of."""
    encoder = small_encoders.clip(folder / "clip")
    made = run(folder / "run")
    features(folder / "run" / "embed", made, encoder)
    return made, encoder


def data(made: Run, settings: Settings) -> Data:
    found = embed.read(made.at("embed"))
    return gather(made, found, found, settings)


def plan(made: Run, encoder: Path, out: Path, settings: Settings) -> Plan:
    return Plan(
        str(out), str(encoder), str(encoder), weights.check(str(encoder)), settings, {"triplets": made.root}
    )
