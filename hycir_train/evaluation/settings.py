"""What an evaluation is of, and how it is done; all of it stands in the result file."""

from dataclasses import dataclass
from typing import Literal

from hycir_train.benchmarks.fashioniq import Category, Rule
from hycir_train.embed import ENCODER, POOL
from hycir_train.prompts import Lineage
from syncir_ray.config import Pool, check_pool
from syncir_ray.errors import UserError

Baseline = Literal["image-only", "text-only", "sum"]
Name = Literal["cirr", "circo", "fashioniq", "miniworld"]
Preprocessing = Literal["encoder", "padded"]

PAD = 1.25  # SEARLE's published code, "targetpad"


@dataclass(frozen=True)
class Settings:
    """Rank a benchmark's gallery for its queries with a model, or a baseline, and say how good that is."""

    benchmark: Name
    annotations: str
    """The benchmark's official folder, or the one it lies in; of miniworld what `syncir miniworld --benchmark`
    wrote. Local or s3://."""
    images: str = ""
    """Its images folder: img_raw (CIRR), unlabeled2017 (CIRCO), images (FashionIQ). miniworld has its own."""
    model: str = ""
    """Folder of a trained model, local or s3://."""
    baseline: Baseline | None = None
    """No model: the reference image's feature alone, the query text's alone, or the sum of both."""
    encoder: str = ""
    """Of a baseline (default: ViT-L-14:openai); of a model, where its encoder lies if no longer where it says."""
    split: str = "val"
    """CIRR: val, test1. CIRCO: val, test. FashionIQ: val, test."""
    category: Category | None = None
    """FashionIQ: one of its three. Default: all, and their mean."""
    gallery: Rule = "split"
    """FashionIQ: the images of the original split, or only references and targets (`union`)."""
    both_orders: bool = False
    """FashionIQ: the mean of "{a} and {b}" and "{b} and {a}", not the first alone."""
    shared_concept: bool = False
    """CIRCO: what reference and target have in common stands in the prompt."""
    prompt: Lineage = "pic2word"
    """pic2word: "a photo of [$], {caption}"; searle: "a photo of [$] that {caption}"."""
    preprocessing: Preprocessing = "encoder"
    """As the encoder says; or longer pictures first padded with black to sides of 1.25 : 1, as SEARLE does."""
    partial_gallery: bool = False
    """Go on where images are missing; every figure says so."""
    cache: str = "runs/galleries"
    """Where features of galleries are kept, by content and encoder; on a cluster, what all nodes see."""
    out: str = ""
    """Folder of result.json, result.md, rankings (submission files) and pictures. Default: nothing is written."""
    json: bool = False
    """Print the figures also as one JSON object, on the last line."""
    pool: Pool = POOL
    """The actors that hold the encoder while features are computed."""


def check(settings: Settings) -> None:
    """Refuse what does not go together, before anything is read.

    Raises:
        UserError: with what to leave out or to name.
    """
    name = settings.benchmark
    if bool(settings.model) == bool(settings.baseline):
        raise UserError("--model MODEL or --baseline image-only|text-only|sum: name one of the two")
    if not settings.images and name != "miniworld":
        raise UserError(f"--images is missing: name the folder of {name}'s images")
    only = {
        "category": (settings.category is not None, ("fashioniq",)),
        "gallery": (settings.gallery != "split", ("fashioniq",)),
        "both-orders": (settings.both_orders, ("fashioniq",)),
        "shared-concept": (settings.shared_concept, ("circo", "miniworld")),
    }
    for option, (given, benchmarks) in only.items():
        if given and name not in benchmarks:
            raise UserError(f"--{option}: {name} has none; only for {', '.join(benchmarks)}")
    if settings.baseline and settings.prompt != "pic2word":
        raise UserError(f"--prompt {settings.prompt}: a baseline has no prompt; the query text stands alone in it")
    check_pool(settings.pool, "--pool")


def encoder_of(settings: Settings) -> str:
    """The encoder of a baseline."""
    return settings.encoder or ENCODER
