"""What a training yields: these fields, its tables, and nothing else, however many workers there are."""

from dataclasses import dataclass
from typing import Literal

from syncir_ray.errors import UserError

MOST = 8  # pseudo-word tokens; HyCIR, Table 4, sweeps 1 to 8


@dataclass(frozen=True)
class Settings:
    """Defaults are the paper's where it has one (HyCIR, "Implementation Details")."""

    tokens: int = 4
    """Pseudo-word tokens an image becomes, 1 to 8."""
    unlabelled_batch: int = 512
    """Unlabelled images a step, of all workers together."""
    triplet_batch: int = 256
    """Triplets a step, of all workers together."""
    zs_cir_weight: float = 1.0
    """Of L_ZS-CIR. 0 leaves it out: no unlabelled image is looked at."""
    triplet_weight: float = 1.0
    """Of L_triplet. 0 leaves it out."""
    steps: int = 10_000
    """The paper does not say. So many see CC3M's 2.9 M images 1.8 times and 650k triplets 3.9 times."""
    optimizer: Literal["adam", "adamw"] = "adam"
    """adamw: Pic2Word's, betas 0.9 and 0.98, eps 1e-6, weight decay 0.1 on all but biases."""
    learning_rate: float = 1e-4
    warm_up: int = 0
    """Steps in which the learning rate rises from 0. Pic2Word: 10,000."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Of the learning rate after the warm-up; cosine falls to 0 at the last step."""
    clip: float = 0.0
    """Largest length of a gradient; longer ones are shortened to it. 0: as they are."""
    accumulate: int = 1
    """Parts that a batch is computed in, one after the other, to save memory; negatives are those of a part."""
    dropout: float = 0.1
    """Of the mapping network (Pic2Word)."""
    held_out: int = 1000
    """Triplets kept from training, a tenth of all at most, to choose the best checkpoint by. 0: the last is it."""
    checkpoint_every: int = 500
    """Steps between checkpoints, each of which is tried on the held-out triplets."""
    seed: int = 0
    """Of the first weights, the batches, the dropout and what is held out."""

    @property
    def batches(self) -> dict[str, int]:
        """Rows a step of the streams that have a loss."""
        sizes = {"unlabelled": self.unlabelled_batch, "triplets": self.triplet_batch}
        weights = {"unlabelled": self.zs_cir_weight, "triplets": self.triplet_weight}
        return {stream: size for stream, size in sizes.items() if weights[stream]}

    @property
    def samples(self) -> int:
        """Rows a step, of all streams."""
        return sum(self.batches.values())


def check(settings: Settings) -> None:
    """Refuse values that could only fail later.

    Raises:
        UserError: with the option and what it may be.
    """
    if not 1 <= settings.tokens <= MOST:
        raise UserError(f"--tokens {settings.tokens}: an image becomes 1 to {MOST} pseudo-tokens")
    least = {
        "unlabelled_batch": 1, "triplet_batch": 1, "steps": 1, "accumulate": 1, "checkpoint_every": 1,
        "warm_up": 0, "held_out": 0, "zs_cir_weight": 0, "triplet_weight": 0, "clip": 0, "seed": 0,
    }  # fmt: skip
    for name, low in least.items():
        if not getattr(settings, name) >= low:  # NaN is not
            raise UserError(f"--{name.replace('_', '-')} {getattr(settings, name)}: must be at least {low}")
    if not settings.learning_rate > 0:
        raise UserError(f"--learning-rate {settings.learning_rate}: must be above 0")
    if not 0 <= settings.dropout < 1:
        raise UserError(f"--dropout {settings.dropout}: must be from 0 to below 1")
    if not settings.batches:
        raise UserError("--zs-cir-weight and --triplet-weight are both 0: there is nothing to learn")
    for stream, size in settings.batches.items():
        if size < 2 * settings.accumulate:
            raise UserError(
                f"a batch of {size} {stream} in {settings.accumulate} parts: "
                "each part needs two rows or more, or there are no negatives"
            )
