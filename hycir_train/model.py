"""A trained model as a thing to use: loaded with one call, a query composed with another."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch.nn.functional import normalize

from hycir_train import encoders
from hycir_train.card import About, card
from hycir_train.compose import Query, query
from hycir_train.encoders.interface import Encoder
from hycir_train.fast_text import Composer
from hycir_train.mapping import Mapping
from syncir_ray import storage
from syncir_ray.errors import UserError
from syncir_ray.images import BadImage, decode
from syncir_ray.models import weights
from syncir_ray.models.device import Device, Feed
from syncir_ray.models.loading import first_line

Image = bytes | str | Path
"""An encoded image (JPEG, PNG, …), or the path or s3:// address of one."""

FORMAT = 1  # of the folder
SIZES = ("feature_width", "token_width", "tokens")  # what a Mapping is made of
BATCH = 64  # images or texts at once: fills a GPU, and holds 40 MB of normalised pixels at 224 px


class HyCIR:
    """A frozen encoder and the mapping network trained for it.

    Args:
        encoder: what composes.
        mapping: on the encoder's device; put into evaluation mode.
        name: the encoder's, as `encoders.load` takes it: so a saved model finds it again.
        revision: the encoder's, as `weights.check` gives it for `encoders.address(name)`.
        about: how the model came to be.
    """

    def __init__(
        self, encoder: Encoder, mapping: Mapping, name: str, revision: str, about: About | None = None
    ) -> None:
        self.encoder, self.mapping = encoder, mapping.eval()
        self.name, self.revision, self.about = name, revision, about or About()
        self._compose = Composer(encoder, mapping)
        self._feed = Feed(encoder.device, encoder.preprocessing, BATCH)

    # -- searching -----------------------------------------------------------------------------------------------

    def compose(self, images: Sequence[Image], texts: Sequence[str]) -> np.ndarray:
        """n reference images and n query texts -> (n, d) float32 of unit length, to search a `gallery` with.

        Raises:
            UserError: an image cannot be read, or there are not as many texts as images.
        """
        return self.compose_features(self.image_features(images), texts)

    def compose_features(self, features: np.ndarray, texts: Sequence[str]) -> np.ndarray:
        """As `compose`, of what `image_features` gave."""
        if len(features) != len(texts):
            raise UserError(f"{len(features)} images and {len(texts)} texts: each image is composed with one text")
        return self.compose_queries(features, [query(self.encoder.words, text) for text in texts])

    def compose_queries(self, features: np.ndarray, queries: Sequence[Query]) -> np.ndarray:
        """As `compose_features`, of texts that `compose.query` has tokenized, in whatever prompt; as many."""
        found = []
        with torch.inference_mode():
            for at in range(0, len(features), BATCH):
                images = torch.tensor(features[at : at + BATCH], device=self.encoder.device.torch).float()
                found.append(normalize(self._compose(images, queries[at : at + BATCH]), dim=1).cpu().numpy())
        return self._joined(found)

    def gallery(self, images: Sequence[Image]) -> np.ndarray:
        """n images -> (n, d) float32 of unit length: `compose(…) @ gallery(…).T` are the scores.

        Raises:
            UserError: an image cannot be read.
        """
        features: np.ndarray = normalize(torch.from_numpy(self.image_features(images)), dim=1).numpy()
        return features

    def image_features(self, images: Sequence[Image]) -> np.ndarray:
        """n images -> (n, d) float32, not normalised: what the mapping network takes.

        Raises:
            UserError: an image cannot be read.
        """
        found = []
        with torch.inference_mode():
            for at in range(0, len(images), BATCH):
                pixels = np.stack([self._pixels(image) for image in images[at : at + BATCH]])
                found += [self.encoder.encode_image(batch).float().cpu().numpy() for batch in self._feed(pixels)]
        return self._joined(found)

    def _joined(self, parts: list[np.ndarray]) -> np.ndarray:
        return np.concatenate([np.zeros((0, self.encoder.feature_width), np.float32), *parts])

    def _pixels(self, image: Image) -> np.ndarray:
        name = "an image given as bytes" if isinstance(image, bytes) else str(image)
        try:
            data = image if isinstance(image, bytes) else storage.read(storage.absolute(name))
            return decode(data, self.encoder.preprocessing.resize)
        except (BadImage, OSError) as error:
            raise UserError(f"{name}: {first_line(error)}") from None

    # -- the folder ----------------------------------------------------------------------------------------------

    def save(self, place: str | Path) -> None:
        """Write config.json, model.safetensors and README.md to a local or s3:// folder, replacing those there.

        Raises:
            UserError: the place cannot be written to.
        """
        sizes = {key: getattr(self.mapping, key) for key in SIZES}
        config = {
            "hycir": FORMAT, "encoder": self.name, "encoder_revision": self.revision, **sizes,
            "about": asdict(self.about),
        }  # fmt: skip
        readme = card(self.about, self.name, self.revision, self.mapping.tokens)
        tensors = {name: value.contiguous().cpu() for name, value in self.mapping.state_dict().items()}
        root = storage.absolute(str(place))
        storage.write(storage.join(root, "README.md"), readme.encode())
        storage.write(storage.join(root, "model.safetensors"), save(tensors))
        storage.write(storage.join(root, "config.json"), (json.dumps(config, indent=1) + "\n").encode())

    @classmethod
    def load(cls, model: str, encoder: str | None = None, threads: int | None = None) -> "HyCIR":
        """The model that `save` wrote, with its encoder.

        Args:
            model: a local or s3:// folder. It is read as it is now, and not by way of `weights.fetch`, which keeps
                copies of S3 folders: a model may be written where another was.
            encoder: where the encoder lies, if no longer where the model says; must be the same one.
            threads: CPU threads of torch, for the whole process; as they are if not given.

        Raises:
            UserError: it is no such model, or its encoder is not to be had or not the one it was trained with.
        """
        root = storage.absolute(model)
        config = _config(root)
        name = encoder or _same(model, config["encoder"], config["encoder_revision"])
        loaded = encoders.load(name, Device(threads or torch.get_num_threads()))
        mapping = Mapping(**{key: config[key] for key in SIZES})
        try:
            mapping.load_state_dict(load(storage.read(storage.join(root, "model.safetensors"))))
        except (OSError, RuntimeError, SafetensorError) as error:
            raise UserError(f"{model}: its weights do not load: {first_line(error)}") from None
        for key in ("feature_width", "token_width"):
            if config[key] != getattr(loaded, key):
                raise UserError(
                    f"{model}: made for an encoder with {key} {config[key]}; {name} has {getattr(loaded, key)}"
                )
        mapping.requires_grad_(False).to(loaded.device.torch)
        about = About(**config["about"])
        return cls(loaded, mapping, config["encoder"], config["encoder_revision"], about)


def _config(root: str) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads(storage.read(storage.join(root, "config.json")))
        version = config["hycir"]
    except (FileNotFoundError, ValueError, LookupError, TypeError):
        raise UserError(f"{root}: not a model that HyCIR.save wrote") from None
    except OSError as error:
        raise UserError(f"{root}: cannot be read: {first_line(error)}") from None
    if version != FORMAT:
        raise UserError(f"{root}: a model folder of version {version}; this program reads version {FORMAT}")
    return config


def _same(model: str, encoder: str, revision: str) -> str:
    """`encoder`, pinned to the revision the model was trained with."""
    encoder = encoders.address(encoder)
    try:
        if not storage.is_s3(encoder) and not weights.is_local(encoder):
            return f"{encoder.partition('@')[0]}@{revision}"
        found = weights.check(encoder)
    except UserError as error:
        raise UserError(f"{model}: its encoder is gone: {error}; say where it is with encoder=") from None
    if found != revision:
        raise UserError(
            f"{model}: its encoder {encoder} is not what it was trained with ({found}, not {revision}); "
            "say with encoder= where that one is"
        )
    return encoder
