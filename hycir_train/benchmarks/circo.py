"""CIRCO (Baldrati et al., ICCV 2023); the layout of github.com/miccunifi/CIRCO.

annotations/<split>.json, COCO2017_unlabeled/annotations/image_info_unlabeled2017.json; images in
COCO2017_unlabeled/unlabeled2017. An image's name here is its COCO id in decimals.
"""

from hycir_train.benchmarks import layout
from hycir_train.benchmarks.benchmark import Benchmark, Gallery, Query, sound
from syncir_ray import storage

SPLITS = ("val", "test")

IMAGE_INFO = "COCO2017_unlabeled/annotations/image_info_unlabeled2017.json"

# The first and the last file of unlabeled2017 in listings of it; between them lie the files of other splits too.
FIRST_ID, LAST_ID = 8, 581_931

ASPECTS = (
    "cardinality",
    "addition",
    "negation",
    "direct_addressing",
    "compare_change",
    "comparative_statement",
    "statement_with_conjunction",
    "spatial_relations_background",
    "viewpoint",
)


def load(annotations: str, split: str = "val") -> Benchmark:
    """The queries of a split, 220 (val, 1 to 14 ground truths each) or 800 (test), over the 123,403 images of COCO
    unlabeled2017.

    The list of the images is a download of its own; without it the gallery is None. The reference stays in the
    ranking.

    Raises:
        UserError: the annotations are not there or not whole, or there is no such split.
    """
    layout.known("split", split, SPLITS, "CIRCO")
    captions = f"annotations/{split}.json"
    home = layout.home(annotations, "CIRCO", captions)
    queries = layout.parsed(storage.join(home, captions), lambda entries: tuple(map(_query, entries)))
    info = storage.join(home, IMAGE_INFO)
    gallery = layout.parsed(info, _gallery) if storage.exists(info) else None
    return sound(Benchmark("circo", split, queries, gallery))


def _gallery(info: dict) -> Gallery:
    return {str(image["id"]): (image["file_name"],) for image in info["images"]}


def _query(entry: dict) -> Query:
    target = entry.get("target_img_id")
    return Query(
        id=str(entry["id"]),
        reference=str(entry["reference_img_id"]),
        texts=(entry["relative_caption"],),
        target=None if target is None else str(target),
        truths=tuple(str(truth) for truth in entry.get("gt_img_ids", ())),
        aspects=tuple(entry.get("semantic_aspects", ())),
        shared_concept=entry["shared_concept"],
    )
