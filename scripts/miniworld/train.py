"""Train the models of the mini world from nothing but its renderer, and look how good they are on new scenes.

    python scripts/miniworld/train.py [--only captioner writer …] [--check] [--to FOLDER]

Two cores with bf16 matrix units need about an hour and a half for all six; `--check` only measures what is there.
The figures are kept beside the models, in figures.json. Seeds are fixed: the same machine gives the same models.
"""

import argparse
import json
import os
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from data import HELD_OUT, TRAIN, Seen, pair, scenes, seen

from syncir_ray.miniworld.judge import judge
from syncir_ray.miniworld.language import instruction
from syncir_ray.miniworld.scene import caption
from syncir_ray.models.prompt import prompt

FOLDER = Path(__file__).parents[2] / "syncir_ray" / "miniworld" / "models"
IMAGES, NEW = 60_000, 2_000
ORDER = ("backbone", "captioner", "blip", "clip", "sentence", "writer")


@cache
def train_set() -> Seen:
    return seen(IMAGES, TRAIN)


@cache
def held_out() -> Seen:
    """New renderings of scenes that are not among those of `train_set`."""
    known = set(scenes(IMAGES, TRAIN))
    found = seen(2 * NEW, HELD_OUT)
    new = [i for i, scene in enumerate(found.scenes) if scene not in known][:NEW]
    return Seen([found.scenes[i] for i in new], found.pixels[new])


def teach(name: str, folder: Path, to: Path) -> dict:
    """Train one model into `folder`; what its training says of itself."""
    if name == "backbone":
        from vision import backbone

        return backbone(train_set(), held_out(), folder)
    if name == "captioner":
        from blip import captioner

        return captioner(train_set(), held_out(), folder)
    if name == "blip":
        import blip

        return blip.retrieval(train_set(), to / "captioner", folder)
    if name == "clip":
        import clip

        return clip.retrieval(train_set(), held_out(), folder)
    if name == "sentence":
        from sentence import encoder

        return encoder(folder)
    from writer import language_model

    return language_model(folder)


def measure(name: str, folder: Path) -> dict[str, Any]:
    """Figures on scenes that training has not seen, through the code that the pipeline loads a model with."""
    threads = torch.get_num_threads()
    if name == "backbone":
        from data import facts

        from syncir_ray.models.backbone import Backbone

        held = held_out()
        vectors = np.asarray(Backbone(folder, 64, threads)(held.pixels[:1000].numpy()), np.float32)
        truth = facts(held.scenes[:1000])
        common, alike = (truth[:, None] == truth[None]).float().mean(2).numpy(), vectors @ vectors.T
        above = np.triu_indices(1000, 1)
        return {
            "correlation of cosine and share of facts in common": np.corrcoef(common[above], alike[above])[0, 1]
        }
    if name == "captioner":
        from syncir_ray.models.captioner import Captioner

        held = held_out()
        captions = Captioner(folder, 64, 40, 1, threads)(held.pixels.numpy())
        return {
            "captions exactly right": np.mean(
                [c == caption(s) for c, s in zip(captions, held.scenes, strict=True)]
            )
        }
    if name in ("blip", "clip"):
        image, text = retrieval_features(name, folder)
        return {"text-to-image R@1 by scene among 1,000": recall(image, text)}
    random = np.random.default_rng(HELD_OUT)
    if name == "sentence":
        from sentence import THRESHOLD, triple

        from syncir_ray.models.sentence import SentenceEncoder

        rows = [triple(random) for _ in range(1000)]
        e = SentenceEncoder(folder, 64, threads)([text for row in rows for text in row]).reshape(1000, 4, -1)
        right, false = (cosine(e[:, 0] + e[:, i], e[:, 3]) >= THRESHOLD for i in (1, 2))
        return {"right texts kept": right.mean(), "false texts dropped": 1 - false.mean()}
    from syncir_ray.models.writer_transformers import TransformersWriter

    pairs = [pair(random) for _ in range(1000)]
    answers = TransformersWriter(folder, 64, 64, threads)([prompt(caption(a), caption(b)) for a, b in pairs])
    texts = [getattr(answer, "text", "") for answer in answers]
    verdicts = [judge(a, text, b) for (a, b), text in zip(pairs, texts, strict=True)]
    exact = [instruction(a, b) == text for (a, b), text in zip(pairs, texts, strict=True)]
    return {
        "instructions true": verdicts.count("right") / 1000,
        "instructions incomplete": verdicts.count("incomplete") / 1000,
        "instructions word for word": np.mean(exact),
    }


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def retrieval_features(name: str, folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Normalised image and text features of 1,000 held-out scenes, (1000, d) each."""
    from torch.nn.functional import normalize

    held, rows = held_out(), np.arange(1000)
    texts = [caption(s) for s in held.scenes[:1000]]
    with torch.inference_mode():
        if name == "clip":
            import open_clip

            model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{folder}")
            tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(texts)
            model.eval()
            image, text = model.encode_image(held.batch(rows)), model.encode_text(tokens)
        else:
            from transformers import AutoTokenizer, BlipForImageTextRetrieval

            model = BlipForImageTextRetrieval.from_pretrained(folder, dtype=torch.float32).eval()
            tokens = AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
            image = model.vision_proj(model.vision_model(held.batch(rows)).last_hidden_state[:, 0])
            words = model.text_encoder(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask)
            text = model.text_proj(words.last_hidden_state[:, 0])
    return normalize(image, dim=1), normalize(text, dim=1)


def recall(image: torch.Tensor, text: torch.Tensor) -> float:
    """R@1: the first image shows the very scene that the text names."""
    scenes = held_out().scenes
    first = (text @ image.T).argmax(1).tolist()
    return float(np.mean([scenes[i] == scenes[j] for i, j in enumerate(first)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=ORDER, default=ORDER)
    parser.add_argument("--check", action="store_true", help="measure, do not train")
    parser.add_argument("--to", type=Path, default=FOLDER)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for name in options.only:
        folder: Path = options.to / name
        folder.mkdir(parents=True, exist_ok=True)
        said: dict[str, float] = {}
        if not options.check:
            began = time.monotonic()
            said = teach(name, folder, options.to)
            said["minutes"] = (time.monotonic() - began) / 60
        figures = {key: round(float(value), 4) for key, value in (said | measure(name, folder)).items()}
        print(f"{name:10} {json.dumps(figures)}", flush=True)
        kept = options.to / "figures.json"
        before = json.loads(kept.read_text()) if kept.exists() else {}
        before[name] = before.get(name, {}) | figures
        kept.write_text(json.dumps({k: before[k] for k in ORDER if k in before}, indent=1) + "\n")


if __name__ == "__main__":
    main()
