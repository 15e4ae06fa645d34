"""The mapping network: an image feature to n pseudo-tokens (Pic2Word; HyCIR, "Mapping network")."""

from torch import Tensor, nn

from hycir_train.settings import MOST, Settings
from syncir_ray.errors import UserError

HIDDEN = 512


class Mapping(nn.Module):
    """2 × [Linear to 512, Dropout 0.1, ReLU], Linear to n × token width: the only weights that are trained.

    Args:
        feature_width: length of the encoder's image features (ViT-L/14: 768).
        token_width: length of its token embeddings (ViT-L/14: 768).
        tokens: pseudo-tokens an image, 1 to 8; the paper's choice is 4.

    Raises:
        UserError: another number of tokens.
    """

    def __init__(
        self,
        feature_width: int,
        token_width: int,
        tokens: int = Settings.tokens,
        dropout: float = Settings.dropout,
    ) -> None:
        super().__init__()
        if not 1 <= tokens <= MOST:
            raise UserError(f"an image becomes 1 to {MOST} pseudo-tokens, not {tokens}")
        self.feature_width, self.token_width, self.tokens = feature_width, token_width, tokens
        self.layers = nn.Sequential(
            nn.Linear(feature_width, HIDDEN), nn.Dropout(dropout), nn.ReLU(),
            nn.Linear(HIDDEN, HIDDEN), nn.Dropout(dropout), nn.ReLU(),
            nn.Linear(HIDDEN, tokens * token_width),
        )  # fmt: skip

    def forward(self, features: Tensor) -> Tensor:
        """(b, feature_width) un-normalised image features -> (b, tokens, token_width)."""
        pseudo: Tensor = self.layers(features)
        return pseudo.unflatten(-1, (self.tokens, self.token_width))
