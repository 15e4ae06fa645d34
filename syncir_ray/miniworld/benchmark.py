"""A benchmark of composed retrieval in the mini world, with scenes of its own, in the layouts of two others:

CIRCO/annotations/val.json                                          queries, with all right answers
CIRCO/COCO2017_unlabeled/annotations/image_info_unlabeled2017.json  the gallery
CIRCO/COCO2017_unlabeled/unlabeled2017/000000000001.png …           its images
CIRR/captions/cap.rc2.val.json                                      the same queries, with one target and a group
CIRR/image_splits/split.rc2.val.json                                its gallery: the images of all groups
scenes.jsonl                                                        the truth: what each image shows

In CIRR's form one target is right, so its gallery has one image of a group's scene, where CIRCO's has them all.
"""

import json
from collections.abc import Sequence
from typing import Any

from syncir_ray import storage
from syncir_ray.miniworld.composed import Composed, Image, Query, composed
from syncir_ray.miniworld.language import kinds
from syncir_ray.miniworld.render import SIDE, render
from syncir_ray.miniworld.scene import Scene, to_json
from syncir_ray.miniworld.world import SCENES, png

# The images folder of both forms. One, so that features are computed once; CIRR's list of files is relative to it.
IMAGES = "CIRCO/COCO2017_unlabeled/unlabeled2017"

SEED = 2  # of the one that figures are told of

# What CIRCO calls these changes (its semantic aspects; of cardinality and viewpoint no text speaks here).
ASPECTS = {
    "colour": "direct_addressing",
    "shape": "compare_change",
    "size": "comparative_statement",
    "place": "spatial_relations_background",
    "add": "addition",
    "remove": "negation",
    "background": "spatial_relations_background",
}
CONJUNCTION = "statement_with_conjunction"


def write(folder: str, queries: int = 200, seed: int = SEED) -> Composed:
    """Render a benchmark below a folder, local or s3://, and write its annotations; the same arguments, the same
    bytes.

    Of the loaders, `annotations` is the folder itself, and the images folder is IMAGES below it. Submission files
    rank 50 images; fewer than twenty queries have too small a gallery for that.

    Raises:
        UserError: no queries are asked for.
    """
    benchmark = composed(queries, seed)
    for image in benchmark.images:
        storage.write(storage.join(folder, IMAGES, image.file), png(render(image.scene, image.seed)))
    for name, text in _texts(benchmark).items():
        storage.write(storage.join(folder, name), text.encode())
    return benchmark


def _texts(benchmark: Composed) -> dict[str, str]:
    """The text files by name."""
    gallery = {
        "info": {"description": "The mini world: rendered scenes, listed as COCO lists its photographs."},
        "licenses": [],
        "images": [{"file_name": i.file, "height": SIDE, "width": SIDE, "id": i.id} for i in benchmark.images],
    }
    numbered = list(enumerate(benchmark.queries))
    return {
        "CIRCO/annotations/val.json": _json([_circo(number, query) for number, query in numbered]),
        "CIRCO/COCO2017_unlabeled/annotations/image_info_unlabeled2017.json": _json(gallery),
        "CIRR/captions/cap.rc2.val.json": _json([_cirr(number, query) for number, query in numbered]),
        "CIRR/image_splits/split.rc2.val.json": _json({i.name: f"./{i.file}" for i in _grouped(benchmark)}),
        SCENES: "".join(f"{json.dumps(_truth(image))}\n" for image in benchmark.images),
    }


def _grouped(benchmark: Composed) -> list[Image]:
    """The images of all groups, by id."""
    return sorted({image for query in benchmark.queries for image in query.members}, key=lambda image: image.id)


def _json(data: Any) -> str:
    return json.dumps(data, indent=1) + "\n"


def _truth(image: Image) -> dict[str, Any]:
    """As the demo's table has it, and the image's two names."""
    uri = f"{IMAGES}/{image.file}"
    return {"uri": uri, "scene": to_json(image.scene), "id": image.id, "name": image.name, "seed": image.seed}


def _circo(number: int, query: Query) -> dict[str, Any]:
    """An entry of CIRCO's annotations."""
    scenes = query.reference.scene, query.target.scene
    aspects = [ASPECTS[kind] for kind in kinds(*scenes)] + [CONJUNCTION] * (" and " in query.text)
    return {
        "reference_img_id": query.reference.id,
        "target_img_id": query.target.id,
        "relative_caption": query.text,
        "shared_concept": shared(*scenes),
        "gt_img_ids": [image.id for image in query.truths],
        "id": number,
        "semantic_aspects": list(dict.fromkeys(aspects)),
    }


def shared(a: Scene, b: Scene) -> str:
    """What two scenes have in common, in words: objects, wherever they stand, and the background."""
    left = [thing for thing in b.at if thing]
    things = []
    for thing in a.at:
        if thing and thing in left:
            left.remove(thing)
            things.append(f"a {thing}")
    ground = f" on {a.background}" if a.background == b.background else ""
    return (" and ".join(things) or "shapes") + ground


def _cirr(number: int, query: Query) -> dict[str, Any]:
    """An entry of CIRR's captions. Members stand by id: their ranks would tell the target."""
    return {
        "pairid": number,
        "reference": query.reference.name,
        "target_hard": query.target.name,
        "target_soft": dict.fromkeys(_names(query.truths), 1.0),
        "caption": query.text,
        "img_set": {
            "id": query.group,
            "members": _names(sorted(query.members, key=lambda image: image.id)),
            "reference_rank": query.members.index(query.reference),
            "target_rank": query.members.index(query.target),
        },
    }


def _names(images: Sequence[Image]) -> list[str]:
    return [image.name for image in images]
