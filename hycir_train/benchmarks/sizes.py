"""How many queries and images the official splits have: what other numbers come from is another benchmark."""

from hycir_train.benchmarks.benchmark import Benchmark

# (name, split, category): queries, images
OFFICIAL = {
    ("cirr", "val", ""): (4_181, 2_297),
    ("cirr", "test1", ""): (4_148, 2_315),
    ("circo", "val", ""): (220, 123_403),
    ("circo", "test", ""): (800, 123_403),
    ("fashioniq", "val", "dress"): (2_017, 3_817),
    ("fashioniq", "val", "shirt"): (2_038, 6_346),
    ("fashioniq", "val", "toptee"): (1_961, 5_373),
}
# FashionIQ's galleries of references and targets only.
UNION = {"dress": 2_628, "shirt": 3_089, "toptee": 2_902}


def other(benchmark: Benchmark) -> str:
    """How a benchmark, as loaded, differs from the official split of its name; empty if it does not, or where the
    split's sizes are not known here."""
    official = OFFICIAL.get((benchmark.name, benchmark.split, benchmark.category))
    if official is None or benchmark.gallery is None:
        return ""
    queries, images = len(benchmark.queries), len(benchmark.gallery)
    if queries == official[0] and images in (official[1], UNION.get(benchmark.category)):
        return ""
    have, has = f"{queries:,} queries over {images:,} images", f"{official[0]:,} over {official[1]:,}"
    return f"{have}, where the official split has {has}"
