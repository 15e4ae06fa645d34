"""Which figures each benchmark is given by, and how they are named in result files.

CIRR       recall@1, 5, 10, 50; recall_subset@1, 2, 3
CIRCO      recall@5, 10, 25, 50 by the one target; mAP@5, 10, 25, 50 over all ground truths; semantic_mAP@10, an
           object with a figure for each aspect: {"semantic_mAP@10": {"cardinality": 12.3, ...}, ...}
FashionIQ  recall@10, 50 of one category
"""

from collections.abc import Mapping, Sequence

import numpy as np

from hycir_train import metrics
from hycir_train.benchmarks.benchmark import Benchmark, Metric
from hycir_train.benchmarks.circo import ASPECTS

Figures = dict[str, float | dict[str, float]]
"""Name to percentage; where a figure is told by aspect, name to aspect to percentage."""

RECALL = {"cirr": (1, 5, 10, 50), "circo": (5, 10, 25, 50), "fashioniq": (10, 50)}
RECALL_SUBSET = (1, 2, 3)
PRECISION = (5, 10, 25, 50)
SEMANTIC = 10


def figures(benchmark: Benchmark, rankings: Mapping[str, Sequence[str]], metric: Metric = "recall") -> Figures:
    """The figures of a benchmark. `rankings`: image names by query id, best first, as in a submission file."""
    rows = [rankings[query.id] for query in benchmark.queries]
    shortest = min(map(len, rows))
    ranked = np.array([row[:shortest] for row in rows])
    relevant = metrics.relevance(ranked, [(query.target,) for query in benchmark.queries])
    ks = RECALL[benchmark.name] if metric == "recall" else RECALL_SUBSET
    found: Figures = {f"{metric}@{k}": metrics.recall(relevant, k) for k in ks}
    if benchmark.name == "circo":
        found |= _precisions(benchmark, ranked)
    return found


def _precisions(benchmark: Benchmark, ranked: np.ndarray) -> Figures:
    """CIRCO's figures over all ground truths; `ranked` (Q, K) image names."""
    truths = [query.truths for query in benchmark.queries]
    aspects = [query.aspects for query in benchmark.queries]
    relevant = metrics.relevance(ranked, truths)
    counts = np.array([len(right) for right in truths])
    found: Figures = {f"mAP@{k}": metrics.mean_average_precision(relevant, counts, k) for k in PRECISION}
    of_queries = metrics.average_precision(relevant, counts, SEMANTIC)
    return found | {f"semantic_mAP@{SEMANTIC}": metrics.mean_by_aspect(of_queries, aspects, ASPECTS)}
