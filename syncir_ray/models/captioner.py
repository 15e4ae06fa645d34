"""Captions of images (HyCIR: one BLIP caption an image). torch is imported when a `Captioner` is built."""

from pathlib import Path

import numpy as np

from syncir_ray.images import Resize
from syncir_ray.models.preprocessing import read


def preprocessing(folder: Path) -> Resize:
    """How the captioner in `folder` wants its images resized; BLIP squashes to 384 x 384. Reads JSON only.

    Raises:
        UserError: the folder has no preprocessing that can be followed.
    """
    return read(folder).resize


class Captioner:
    """BLIP with beam search, which has no randomness.

    Args:
        folder: the local model folder (`weights.fetch`).
        batch: images captioned at once.
        max_tokens: longest caption in tokens, its end included.
        beams: beams kept; 1 is greedy.
        threads: CPU threads of torch, for the whole process.

    Raises:
        UserError: the folder does not load.
    """

    def __init__(self, folder: Path, batch: int, max_tokens: int, beams: int, threads: int) -> None:
        from transformers import BlipForConditionalGeneration

        from syncir_ray.models.device import Device, Feed
        from syncir_ray.models.loading import pretrained, tokenizer

        device = Device(threads)
        self._model = device.place(pretrained(BlipForConditionalGeneration, folder)[0])
        self._tokenizer = tokenizer(folder)
        self._feed = Feed(device, read(folder), batch)
        self._search = {"max_new_tokens": max_tokens, "num_beams": beams, "do_sample": False}

    def __call__(self, pixels: np.ndarray) -> list[str]:
        """(n, h, w, 3) uint8 RGB at the size of `preprocessing` -> n captions, without outer whitespace.

        A caption may be empty.

        Raises:
            ValueError: pixels of another shape or type.
        """
        import torch

        captions: list[str] = []
        with torch.inference_mode():
            for batch in self._feed(pixels):
                tokens = self._model.generate(pixel_values=batch, **self._search)
                captions += self._tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return [caption.strip() for caption in captions]
