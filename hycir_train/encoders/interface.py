"""What training, embedding and evaluation ask of a frozen dual encoder; `clip.py` and `blip.py` answer."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from syncir_ray.models.device import Device
from syncir_ray.models.preprocessing import Preprocessing

Past = list[tuple[Tensor, Tensor]]
"""Keys and values of a prefix, layer by layer, each (1, heads, tokens, width of a head)."""


@dataclass(frozen=True)
class Words:
    """How an encoder writes text as tokens."""

    split: Callable[[str], list[int]]
    """Text to token ids, uncut, without the start and end tokens that frame it."""
    start: int
    """Id of the token that begins every text."""
    end: int
    """Id of the token that ends every text."""
    pad: int
    """Id behind the end; no feature depends on it."""
    context: int
    """Longest text in tokens, start and end included."""


class Encoder(Protocol):
    """A frozen image encoder and a frozen text encoder into one space. No weight of it ever has a gradient."""

    device: Device
    preprocessing: Preprocessing
    words: Words
    feature_width: int
    """Length of an image or text feature."""
    token_width: int
    """Length of a token embedding, and so of a pseudo-token."""
    scale: float
    """What cosines are multiplied by in the contrastive losses: exp(logit_scale), or 1 / temperature."""

    def encode_image(self, pixels: Tensor) -> Tensor:
        """(b, 3, h, w) normalised pixels on the encoder's device -> (b, feature_width), not normalised."""
        ...

    def embed_tokens(self, ids: Tensor) -> Tensor:
        """(b, l) token ids -> (b, l, token_width), without positions."""
        ...

    def remember(self, ids: Tensor) -> Past | None:
        """What later tokens see of the (p,) tokens that begin every text; None where those see the later ones
        too, so that nothing can be known before."""
        ...

    def encode_tokens(self, embeddings: Tensor, end: Tensor, past: Past | None = None) -> Tensor:
        """Token embeddings -> text features, differentiable in the embeddings.

        Args:
            embeddings: (b, l, token_width), without positions; l + tokens of `past` <= `words.context`. Left as
                they are.
            end: (b,) where in `embeddings` each text's end token stands. A causal encoder reads the feature
                there; one that reads position 0 takes it for the length. What stands behind it has no effect.
            past: what `remember` gave for the tokens before `embeddings`.

        Returns:
            (b, feature_width), not normalised.
        """
        ...
