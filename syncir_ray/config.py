"""What a run does (the method) and with what it does it (pools): frozen dataclasses and the presets.

Fields named in OPERATIONAL, the pools above all, never change what a run yields, so a run may be continued with
others. Every other field is part of the method: once its stage has begun it is fixed (`record.enter`).
"""

from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal, get_args, get_type_hints

import yaml

from syncir_ray import storage
from syncir_ray.errors import UserError

Preset = Literal["paper", "offline", "mini"]
Engine = Literal["vllm", "openai", "transformers"]

SEED = 0  # of what could be random: the cells of an IVF index, the engine's sampler (greedy anyway)


@dataclass(frozen=True)
class Pool:
    """The actors of one model. Where no GPU is, `placement.place` fits those that ask for one."""

    min: int = 1
    """Actors kept from the start of the stage to its end."""
    max: int = 8
    """Actors at most; Ray Data grows the pool while work waits. 8: one node of eight GPUs."""
    gpus: float = 1
    """GPUs of one actor."""
    cpus: float = 1
    """CPUs of one actor: beside a GPU it only feeds batches."""
    batch: int = 64
    """Items the model sees at once."""
    wait: float | None = None
    """Give up when none of the actors has had a node for so many minutes: the rest of the cluster costs money
    meanwhile. None: never; a node takes ten minutes, a scarce one may take a day."""


@dataclass(frozen=True)
class Manifest:
    images: str = ""
    """Folder, s3:// prefix, table (.parquet .csv .tsv .jsonl) with a `uri` column, .tar or folder of .tar."""
    root: str = ""
    """What the table's relative uris are relative to; nothing outside is read. Default: the table's folder."""
    rows: int = 8192
    """Rows of one manifest object: a unit of any later stage reads one or two of them."""


@dataclass(frozen=True)
class Features:
    """Pooled, L2-normalised features of an ImageNet network (HyCIR, "Image pair extraction")."""

    model: str = "timm/resnet152.tv_in1k"
    """timm or transformers image backbone: hub id (`id@revision`), folder, or s3:// folder."""
    rows: int = 256
    """Images of one unit: 256 × 224 × 224 × 3 bytes are 39 MB between decoding and the model."""
    pool: Pool = Pool(batch=64)


@dataclass(frozen=True)
class Pairs:
    """Groups of six similar images and their nine pairs (METHODS.md; CIRR, section 3)."""

    duplicate: float = 0.94
    """Neighbours at this cosine similarity or above are near-duplicates of the seed and are passed over."""
    gap: float = 0.002
    """A neighbour is taken when its similarity differs by more than this from the last one taken."""
    neighbours: int = 20
    """Neighbours after the near-duplicates among which the group is sought."""
    max_seeds: int | None = None
    """Seed at most this many groups, evenly spread over the images; None: every image seeds one."""
    exact_up_to: int = 200_000
    """Images up to which the search is exact; beyond, IVF with 4·√N cells."""
    rows: int = 4096
    """Seeds of one unit: large enough for a matrix product, small enough to be done again."""
    pool: Pool = Pool(max=4, gpus=0, cpus=4)


@dataclass(frozen=True)
class Captions:
    """One caption an image, for the images that are in a pair (HyCIR: BLIP)."""

    source: Literal["model", "manifest"] = "model"
    """`manifest`: the manifest's own `caption` column stands in for the captioner."""
    model: str = "Salesforce/blip-image-captioning-large"
    """The base model is published as a pickle only, which is never read."""
    max_tokens: int = 30
    """Longest caption in tokens; BLIP's captions of COCO are about ten."""
    beams: int = 3
    """Beam search width; 3 is what BLIP's own captioning code uses."""
    rows: int = 128
    """Images of one unit: 128 × 384 × 384 × 3 bytes are 57 MB between decoding and the model."""
    pool: Pool = Pool(batch=32)


@dataclass(frozen=True)
class Queries:
    """The query text of a pair, written by an LLM from the two captions (HyCIR, Figure 3)."""

    engine: Engine = "vllm"
    model: str = "Qwen/Qwen2.5-7B-Instruct"
    """Model folder or id; for `openai` the name that the server knows."""
    url: str = "http://127.0.0.1:8000/v1"
    """Server of the `openai` engine. Its key is read from OPENAI_API_KEY and never written anywhere."""
    begin: str = ""
    """Words that every answer is made to begin with: a small model that would repeat the prompt then goes on with
    an instruction. Engines vllm and transformers."""
    max_tokens: int = 64
    """Longest answer; the prompt asks for the shortest instruction."""
    max_length: int = 512
    """Context of the vLLM engine in tokens: the prompt of two captions is below 300."""
    tries: int = 4
    """How often the `openai` engine asks before a prompt has failed."""
    parallel: int = 64
    """Requests under way from one actor of the `openai` engine: a vLLM server batches what is in flight."""
    rows: int = 256
    """Prompts of one unit, and the batch handed to vLLM; eight units are under way at once."""
    pool: Pool = Pool(batch=256)


@dataclass(frozen=True)
class Triplets:
    """The filter in language space (HyCIR, "Data filter in language space")."""

    model: str = "google-bert/bert-base-uncased"
    """sentence-transformers folder, or a plain BERT whose last layer is averaged."""
    threshold: float = 0.7
    """Keep when cos(e_reference + e_query, e_target) is at least this."""
    normalize: bool = False
    """Normalise the embeddings before the sum."""
    pool: Pool = Pool(max=4, batch=64)


@dataclass(frozen=True)
class Config:
    manifest: Manifest = field(default_factory=Manifest)
    features: Features = field(default_factory=Features)
    pairs: Pairs = field(default_factory=Pairs)
    captions: Captions = field(default_factory=Captions)
    queries: Queries = field(default_factory=Queries)
    triplets: Triplets = field(default_factory=Triplets)


# What package indexes hold (scripts/build_weights.py); small units, so that little is lost on a laptop.
OFFLINE = Config(
    features=Features(model="weights/resnet-50", rows=64, pool=Pool(batch=16)),
    pairs=Pairs(rows=1024),
    captions=Captions(source="manifest", rows=4096),
    # SmolLM2 with 135 M parameters repeats the prompt when it is left to begin by itself.
    queries=Queries(model="weights/smollm2-135m-instruct", begin='Replace "', rows=64, pool=Pool(batch=32)),
    triplets=Triplets(model="weights/all-minilm-l6-v2", pool=Pool(max=4, batch=16)),
)
# The mini world's own models, a few MB each, on a laptop without a network (scripts/miniworld).
_MINI = "package:syncir_ray/miniworld/models/"
MINI = Config(
    features=Features(model=_MINI + "backbone", rows=64, pool=Pool(batch=64)),
    pairs=Pairs(rows=1024),
    captions=Captions(model=_MINI + "captioner", max_tokens=40, beams=1, rows=64, pool=Pool(batch=32)),
    queries=Queries(engine="transformers", model=_MINI + "writer", rows=128, pool=Pool(batch=64)),
    triplets=Triplets(model=_MINI + "sentence", pool=Pool(max=4, batch=64)),
)
PRESETS: dict[Preset, Config] = {"paper": Config(), "offline": OFFLINE, "mini": MINI}


def from_dict(base: Any, values: dict[str, Any], where: str = "") -> Any:
    """`base` with the nested `values` laid over it.

    Raises:
        UserError: an unknown key, or a value of another type than the field's.
    """
    hints = get_type_hints(type(base))
    known = {f.name: getattr(base, f.name) for f in fields(base)}
    changed = {}
    for key, value in values.items():
        name = f"{where}{key}"
        if key not in known:
            raise UserError(f"configuration: there is no field {name!r} (known here: {', '.join(known)})")
        if is_dataclass(known[key]):
            if value is None:  # a heading with nothing below it
                continue
            if not isinstance(value, dict):
                raise UserError(f"configuration: {name} holds fields, but got {value!r}")
            changed[key] = from_dict(known[key], value, f"{name}.")
        else:
            changed[key] = _checked(hints[key], value, name)
    return replace(base, **changed)


def _checked(hint: Any, value: Any, name: str) -> Any:
    kinds = get_args(hint) or (hint,)
    if isinstance(value, bool):
        good = bool in kinds
    elif isinstance(value, int) and float in kinds and abs(value) < 1e300:
        return float(value)
    else:
        good = any(
            value is None if k is type(None) else value == k if isinstance(k, str) else type(value) is k
            for k in kinds
        )
    if not good:
        raise UserError(f"configuration: {name} cannot be {value!r}")
    return value


def from_yaml(base: Config, path: str) -> Config:
    """`base` with the fields of a YAML file, local or s3://, laid over it.

    Raises:
        UserError: it cannot be read, is no YAML, or holds an unknown field or a value of a wrong type.
    """
    try:
        values = yaml.safe_load(storage.read(storage.absolute(path)).decode())
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:  # ValueError: no text, or no such date
        raise UserError(f"--config {path}: {' '.join(str(error).split())}") from None
    if values is None:
        return base
    if not isinstance(values, dict):
        raise UserError(f"--config {path}: expected a mapping of stages to fields")
    return from_dict(base, values)


# Fields that decide where and how hard a stage works, not what it yields.
OPERATIONAL = ("pool", "url", "tries", "parallel")


def method(config: Any) -> dict[str, dict[str, Any]]:
    """The fields that decide what a run yields, by stage."""
    return {
        stage: {name: value for name, value in section.items() if name not in OPERATIONAL}
        for stage, section in asdict(config).items()
    }


def check_pool(pool: Pool, name: str) -> None:
    """Refuse a pool that cannot be.

    Raises:
        UserError: with what it needs.
    """
    if not (1 <= pool.min <= pool.max and pool.batch >= 1 and pool.gpus >= 0 and pool.cpus > 0):
        raise UserError(f"{name}: needs 1 <= min <= max, batch >= 1, gpus >= 0, cpus > 0, not {pool}")
    if pool.wait is not None and not pool.wait > 0:
        raise UserError(f"{name}.wait is in minutes, above 0, not {pool.wait}")


def check(config: Config) -> None:
    """Refuse values that could only fail later.

    Raises:
        UserError: with the field and what it may be.
    """
    if not config.manifest.images:
        raise UserError("--images is missing: name a folder, an s3:// prefix, a table or tars")
    for stage in ("manifest", "features", "pairs", "captions", "queries", "triplets"):
        section = getattr(config, stage)
        if not getattr(section, "model", "any").strip():
            raise UserError(f"{stage}.model is empty: name a hub id, a folder or an s3:// folder")
        if getattr(section, "rows", 1) < 1:
            raise UserError(f"{stage}.rows must be at least 1, not {section.rows}")
        if hasattr(section, "pool"):
            check_pool(section.pool, f"{stage}.pool")
    if {"@", "?"} & set(config.queries.url):  # not quoted here, as it may hold a password; run.json would keep it
        raise UserError("queries.url: an address without a password or a query; a key belongs in OPENAI_API_KEY")
    if config.queries.begin and config.queries.engine == "openai":
        raise UserError("queries.begin: an OpenAI server cannot be told how to begin; --queries.begin ''")
    pairs = config.pairs
    if not (-1 <= pairs.duplicate <= 1.01 and pairs.gap >= 0 and pairs.neighbours >= 5):  # NaN is none of it
        raise UserError("pairs: duplicate is a cosine, gap is not negative, neighbours is at least 5")
    if not -1 <= config.triplets.threshold <= 1:
        raise UserError(f"triplets.threshold is a cosine, from -1 to 1, not {config.triplets.threshold}")
    if pairs.max_seeds is not None and pairs.max_seeds < 1:
        raise UserError(f"pairs.max_seeds must be at least 1, not {pairs.max_seeds}")
    if config.queries.max_length <= config.queries.max_tokens:
        raise UserError(
            f"queries.max_length ({config.queries.max_length}) holds the prompt and the answer: it must be above "
            f"queries.max_tokens ({config.queries.max_tokens})"
        )
    for name, value in (
        ("queries.max_tokens", config.queries.max_tokens),
        ("queries.tries", config.queries.tries),
        ("queries.parallel", config.queries.parallel),
        ("captions.max_tokens", config.captions.max_tokens),
        ("captions.beams", config.captions.beams),
        ("pairs.exact_up_to", config.pairs.exact_up_to),
    ):
        if value < 1:
            raise UserError(f"{name} must be at least 1, not {value}")
