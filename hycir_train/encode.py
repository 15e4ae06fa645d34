"""What the workers of `embed` do: pixels to image features. torch is imported in the actors alone."""

import numpy as np
import pyarrow as pa

from hycir_train import encoders, schemas
from syncir_ray.stages.features import seen


class Encode:
    """Pixels of a unit -> image_id, embedding (width,) float16, status, reason, detail.

    Args:
        model: as `encoders.load` takes it.
        batch: images the encoder sees at once.
        threads: of the CPU, where there is no GPU.
    """

    def __init__(self, model: str, batch: int, threads: int) -> None:
        from syncir_ray.models.device import Device, Feed

        device = Device(threads)
        self.encoder = encoders.load(model, device)
        self.feed = Feed(device, self.encoder.preprocessing, batch)

    def __call__(self, table: pa.Table) -> pa.Table:
        resize, width = self.encoder.preprocessing.resize, self.encoder.feature_width
        return seen(table, resize, self.features, schemas.embeddings(width))

    def features(self, pixels: np.ndarray) -> np.ndarray:
        """(n, height, width, 3) uint8, n >= 1 -> (n, feature_width) float32, not normalised."""
        import torch

        with torch.inference_mode():
            # Results stay on the device until the last batch is under way: a copy back would wait for each.
            found = torch.cat([self.encoder.encode_image(batch) for batch in self.feed(pixels)])
        matrix: np.ndarray = found.float().cpu().numpy()
        return matrix
