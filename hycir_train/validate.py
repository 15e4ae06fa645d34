"""How good a mapping network is on triplets that were held out."""

import numpy as np
import torch
from torch.nn.functional import normalize

from hycir_train import metrics
from hycir_train.compose import query
from hycir_train.data import Data
from hycir_train.fast_text import Composer

BATCH = 256  # queries at once: the paper's batch of triplets fits, so this does
KS = (1, 10)


@torch.no_grad()
def validate(compose: Composer, data: Data) -> dict[str, float]:
    """R@1 and R@10, in percent, of the held-out queries among the held-out targets, each image once; the reference
    is left out of its ranking, as CIRR has it. {} where none are held out.

    `compose`: of a mapping network in evaluation mode.
    """
    device = compose.encoder.device.torch
    gallery, right = np.unique(data.held_out.targets, return_inverse=True)
    if not len(gallery):
        return {}
    targets = normalize(torch.from_numpy(data.images[gallery]).to(device).float(), dim=1)
    similarity = []
    for at in range(0, len(data.held_out), BATCH):
        part = data.held_out.take(np.arange(at, min(at + BATCH, len(data.held_out))))
        references = torch.from_numpy(data.images[part.references]).to(device).float()
        queries = [query(compose.encoder.words, text) for text in part.texts.to_pylist()]
        similarity.append((normalize(compose(references, queries), dim=1) @ targets.T).cpu().numpy())
    scores = np.concatenate(similarity)
    # A reference that is no target of another triplet is not in the gallery.
    place = np.searchsorted(gallery, data.held_out.references).clip(max=len(gallery) - 1)
    itself = (gallery[place] == data.held_out.references) & (place != right)
    scores[np.flatnonzero(itself), place[itself]] = -2.0  # below every cosine
    ranking = metrics.rank(scores, min(max(KS), len(gallery)))
    found = metrics.relevance(ranking, right[:, None])
    return {f"R@{k}": metrics.recall(found, min(k, len(gallery))) for k in KS}
