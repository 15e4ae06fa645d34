"""Which encoder a name means, and which kind lies in a folder. torch is imported for open_clip's names only."""

import json
import re
from pathlib import Path
from typing import Literal

from syncir_ray.errors import UserError

OPEN_CLIP = "open_clip_config.json"


def address(model: str) -> str:
    """Where the weights of an encoder lie, as `weights.check` and `weights.fetch` take it.

    A name and a tag of open_clip's own list, `ViT-L-14:openai`, is the hub repository that open_clip itself
    would ask; any other name is given back as it is. Asked through `weights`, it can only be safetensors.

    Raises:
        UserError: open_clip has no such name.
    """
    if not re.fullmatch(r"[\w.-]+:[\w.-]+", model) or Path(model).exists():
        return model
    import open_clip

    name, tag = model.split(":")
    listed = open_clip.get_pretrained_cfg(name, tag)
    if not listed:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(name))
        known = f"its tags are {tags}" if tags else "open_clip.list_pretrained() lists the names"
        raise UserError(f"{model}: not a model of open_clip; {known}")
    return "/".join(listed["hf_hub"].split("/")[:2])  # of `org/name/`, or `org/name/file`


def kind(folder: Path) -> Literal["clip", "blip"]:
    """Which class loads the encoder in `folder`.

    Raises:
        UserError: it is neither.
    """
    if (folder / OPEN_CLIP).is_file():  # first: a hub folder may have a config.json of timm's beside it
        return "clip"
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if config["model_type"] == "blip":
            return "blip"
    except (OSError, ValueError, LookupError, TypeError):
        pass
    raise UserError(f"{folder}: neither a CLIP (it has no {OPEN_CLIP}) nor a BLIP of transformers")
