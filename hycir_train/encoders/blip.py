"""BLIP by transformers: the two projections of `blip-itm-base-coco` (HyCIR, "Implementation details")."""

import math
from pathlib import Path
from typing import Any

from torch import Tensor, arange

from hycir_train.encoders.interface import Past, Words
from hycir_train.encoders.preprocessing import preprocessing
from syncir_ray.models.device import Device
from syncir_ray.models.loading import pretrained, tokenizer

LONGEST = 35  # tokens of a text, as BLIP was trained for retrieval
TEMPERATURE = 0.07  # BLIP's own before training


class Blip:
    """transformers' BlipForImageTextRetrieval as `interface.Encoder`.

    Both sides are the projection of position 0. The text encoder is bidirectional and is run without an image.

    The learned temperature of BLIP's contrastive loss is in none of transformers' checkpoints. In its place
    stands exp of `logit_scale_init_value` in the folder's config.json, which the published ones give as 2.6592:
    1 / 0.07, BLIP's value before training. Who knows a better one writes it there.

    Args:
        folder: the local model folder (`weights.fetch`), with its tokenizer.

    Raises:
        UserError: the folder does not load.
    """

    def __init__(self, folder: Path, device: Device) -> None:
        from transformers import BlipForImageTextRetrieval

        model = pretrained(BlipForImageTextRetrieval, folder)[0]
        self.device, self.preprocessing = device, preprocessing(folder)
        self.words = _words(tokenizer(folder), model.config.text_config.max_position_embeddings)
        self.scale = math.exp(getattr(model.config, "logit_scale_init_value", -math.log(TEMPERATURE)))
        self.feature_width = model.text_proj.out_features
        self.token_width = model.config.text_config.hidden_size
        self._model = device.place(model)

    def encode_image(self, pixels: Tensor) -> Tensor:
        features: Tensor = self._model.vision_proj(self._model.vision_model(pixels).last_hidden_state[:, 0])
        return features

    def embed_tokens(self, ids: Tensor) -> Tensor:
        embeddings: Tensor = self._model.get_input_embeddings()(ids)
        return embeddings

    def remember(self, ids: Tensor) -> None:
        return None

    def encode_tokens(self, embeddings: Tensor, end: Tensor, past: Past | None = None) -> Tensor:
        length = arange(embeddings.shape[1], device=end.device)
        states = self._model.text_encoder(
            inputs_embeds=embeddings.clone(),  # it adds positions in place
            attention_mask=(length <= end[:, None]).long(),
        ).last_hidden_state
        features: Tensor = self._model.text_proj(states[:, 0])
        return features


def _words(tokenizer: Any, longest: int) -> Words:
    return Words(
        lambda text: tokenizer(text, add_special_tokens=False).input_ids,
        tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id, min(LONGEST, longest),
    )  # fmt: skip
