"""How much faster a training step is than its plain form, and that it is the same step.

    python scripts/bench_training.py [--models ViT-B-32 ViT-L-14] [--unlabelled 64] [--repeats 5]

Both forms take one batch, `--unlabelled` images and half as many triplets (HyCIR has 512 : 256), to one Adam
step of the mapping network on L_ZS-CIR + L_triplet, at random weights, so that nothing is downloaded:

    plain   every image encoded in the step, every text at 77 tokens through open_clip's own transformer: what
            Pic2Word's public trainer does
    ours    features cached by `embed`, text through hycir_train.fast_text

Query texts are about as long as CIRR's: 12 tokens in the mean, from 7 to 20. Dropout is off in both, so that
losses and gradients can be compared. A GPU, if there is one, runs both in bfloat16. The ceiling is our step's
arithmetic, as torch counts it, at the rate of one large matrix product. It needs no Ray. The last line is one
JSON object.
"""

import argparse
import json
import logging
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parents[1]))  # runs from a checkout, installed or not

from hycir_train.compose import Prompt, Query, embedded, query
from hycir_train.encoders.clip import Clip
from hycir_train.encoders.preprocessing import MEAN, STD
from hycir_train.fast_text import Composer
from hycir_train.losses import Compose, triplet, zs_cir
from hycir_train.mapping import Mapping
from syncir_ray.images import Resize
from syncir_ray.models.device import Device
from syncir_ray.models.preprocessing import Preprocessing

TOKENS = 4  # pseudo-tokens, the paper's choice
ENCODED = 64  # images at once
UNLABELLED = {"ViT-B-32": 64, "ViT-L-14": 32}  # of a batch on a CPU: the plain form takes a minute or two
QUERIES = [
    "make the dog black and white and much larger",
    "show it from the side, without people",
    "add a second person on the left",
    "replace the cat with a brown dog",
    "same animal but running in the snow, seen from behind",
    "change the background to a beach at night",
    "remove the people and show the whole building",
    "the bottle is standing on a wooden table",
    "has two monkeys instead of one, both facing the camera",
    "make the sofa red and put a small lamp beside it",
    "instead of a bus show a yellow truck parked on the street",
    "change the bread to a cake and add a cup of coffee",
    "a close up of the bird with its wings open and a blue sky behind it",
    "put the same kind of dog on a leash next to a child in a green park",
    "replace the three buffalos with one horse that runs to the right of the frame on dry grass",
    "show fewer bottles, standing on a shelf, with a white label and no glass in front of them",
]


class Bench:
    """A CLIP with random weights, a mapping network, and one batch: both forms of a step on them."""

    def __init__(self, name: str, unlabelled: int, device: Device) -> None:
        torch.manual_seed(0)
        self.device, self.triplets = device, unlabelled // 2
        self.model: Any = open_clip.create_model(name)
        side = self.model.visual.image_size[0]
        seen = Preprocessing(Resize(side, side, resample="bicubic"), MEAN, STD)
        self.encoder = Clip(self.model, open_clip.get_tokenizer(name), seen, device)
        self.mapping = (
            Mapping(self.encoder.feature_width, self.encoder.token_width, TOKENS).to(device.torch).eval()
        )
        self.optimizer = torch.optim.Adam(self.mapping.parameters(), 1e-4)
        # The unlabelled images, the triplets' references, their targets.
        self.pixels = [
            torch.randn(n, 3, side, side, device=device.torch, dtype=device.dtype)
            for n in (unlabelled, self.triplets, self.triplets)
        ]
        self.queries = [query(self.encoder.words, QUERIES[i % len(QUERIES)]) for i in range(self.triplets)]
        self.prompt = Prompt.of(self.encoder.words)
        self.compose = Composer(self.encoder, self.mapping)

    @torch.no_grad()
    def features(self) -> list[Tensor]:
        """Of `pixels`: what `embed` caches."""
        return [
            torch.cat([self.encoder.encode_image(part) for part in pixels.split(ENCODED)]).float()
            for pixels in self.pixels
        ]

    def plain_compose(self, features: Tensor, queries: Sequence[Query] | None = None) -> Tensor:
        """What `compose` does, at 77 tokens and through the library's transformer."""
        texts = self.prompt.texts(queries or [()] * len(features), TOKENS, self.device.torch)
        ids = pad(texts.ids, (0, self.encoder.words.context - texts.ids.shape[1]))
        states = embedded(self.model.token_embedding(ids), self.mapping(features), texts.first)
        states = states + self.model.positional_embedding
        states = self.model.ln_final(self.model.transformer(states, attn_mask=self.model.attn_mask))
        read = states[torch.arange(len(ids), device=ids.device), texts.end]
        return (read @ self.model.text_projection).float()

    def backward(self, compose: Compose, features: list[Tensor]) -> Tensor:
        """The loss; its gradients are in the mapping network."""
        unlabelled, references, targets = features
        self.optimizer.zero_grad()
        loss = zs_cir(compose, unlabelled, self.encoder.scale)
        loss = loss + triplet(compose, references, self.queries, targets, self.encoder.scale)
        loss.backward()
        return loss.detach()

    def ours(self, features: list[Tensor]) -> None:
        self.backward(self.compose, features)
        self.optimizer.step()

    def plain(self) -> None:
        self.backward(self.plain_compose, self.features())
        self.optimizer.step()

    def differences(self, features: list[Tensor]) -> dict[str, float]:
        """Largest ones between the two forms, at the same weights."""
        loss, *found = self._loss_and_gradients(self.compose, features)
        expected_loss, *expected = self._loss_and_gradients(self.plain_compose, features)
        return {
            "loss": expected_loss.item(),
            "loss_difference": (loss - expected_loss).abs().item(),
            "gradient": max(one.abs().max().item() for one in expected),
            "gradient_difference": max(
                (one - other).abs().max().item() for one, other in zip(found, expected, strict=True)
            ),
        }

    def _loss_and_gradients(self, compose: Compose, features: list[Tensor]) -> list[Tensor]:
        loss = self.backward(compose, features)
        return [loss, *(weight.grad.clone() for weight in self.mapping.parameters() if weight.grad is not None)]


def seconds(
    device: Device,
    work: Callable[[], object],
    repeats: int,
    of: Callable[[list[float]], float] = statistics.median,
) -> float:
    """Of one call, in the median or what else `of` makes of all."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        if device.cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return of(times)


def matmul_rate(device: Device) -> float:
    """FLOP/s of one large matrix product, in the encoders' precision, at its fastest."""
    side = 8192 if device.cuda else 2048
    a, b = (torch.randn(side, side, device=device.torch, dtype=device.dtype) for _ in range(2))
    seconds(device, lambda: a @ b, 3)  # to warm up
    return 2 * side**3 / seconds(device, lambda: a @ b, 10, min)


def measure(name: str, unlabelled: int, repeats: int, device: Device) -> dict[str, float]:
    bench = Bench(name, unlabelled, device)
    samples, images = 3 * bench.triplets, 4 * bench.triplets
    bench.encoder.encode_image(bench.pixels[1][:4])  # to warm up
    features: list[Tensor] = []
    embedding = seconds(device, lambda: features.extend(bench.features()), 1)
    differences = bench.differences(features)
    ours = seconds(device, lambda: bench.ours(features), repeats)
    plain = seconds(device, bench.plain, 3 if device.cuda else 1)
    with FlopCounterMode(display=False) as counter:
        bench.ours(features)
    ceiling = samples * matmul_rate(device) / counter.get_total_flops()
    return {
        "unlabelled": unlabelled,
        "triplets": bench.triplets,
        "ours_samples_per_s": samples / ours,
        "plain_samples_per_s": samples / plain,
        "ratio": plain / ours,
        "embed_images_per_s": images / embedding,
        "ceiling_samples_per_s": ceiling,
        "of_ceiling": samples / ours / ceiling,
        **differences,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(UNLABELLED))
    parser.add_argument("--unlabelled", type=int, help="images a batch; 512 on a GPU, fewer on a CPU")
    parser.add_argument("--repeats", type=int, default=7, help="timed steps of ours")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    logging.disable(logging.WARNING)  # open_clip: that the weights are random
    device = Device(options.threads)
    machine = torch.cuda.get_device_name() if device.cuda else f"{options.threads} CPU threads"
    print(f"{machine}, {device.dtype}, torch {torch.__version__}", flush=True)
    result: dict[str, Any] = {"machine": machine, "torch": torch.__version__, "models": {}}
    for name in options.models:
        unlabelled = options.unlabelled or (512 if device.cuda else UNLABELLED.get(name, 32))
        found = measure(name, unlabelled, options.repeats, device)
        result["models"][name] = {key: float(f"{value:.4g}") for key, value in found.items()}
        print(
            f"{name}, batch {found['unlabelled']:.0f} + {found['triplets']:.0f}\n"
            f"  ours            {found['ours_samples_per_s']:10.2f} samples/s, "
            f"{found['of_ceiling']:.0%} of the ceiling, {found['ceiling_samples_per_s']:.1f}\n"
            f"  plain           {found['plain_samples_per_s']:10.2f} samples/s\n"
            f"  ratio           {found['ratio']:10.1f}\n"
            f"  embed, once     {found['embed_images_per_s']:10.2f} images/s\n"
            f"  largest difference of losses {found['loss_difference']:.1e} (of {found['loss']:.3f}), "
            f"of gradients {found['gradient_difference']:.1e} (of {found['gradient']:.1e})",
            flush=True,
        )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
