"""Every stage's model at its real size, on random weights: does it run here, how fast, in how much memory.

    python scripts/gpu_check.py            on a GPU: bfloat16, the backbone in float16
    python scripts/gpu_check.py --quick    small batches, for a CPU: a minute on two cores

Needs torch, transformers and safetensors, no Ray and no download. The weights are random but the classes, the
folders and the code that loads and runs them are the pipeline's own. Random captions and answers run to their
full length, so those rates are a floor. The last line printed is one JSON object.
"""

import argparse
import gc
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
    BlipConfig,
    BlipForConditionalGeneration,
    Qwen2Config,
    Qwen2ForCausalLM,
    ResNetConfig,
    ResNetModel,
)

sys.path.insert(0, str(Path(__file__).parents[1]))  # runs from a checkout, installed or not

from syncir_ray.models.backbone import Backbone
from syncir_ray.models.captioner import Captioner
from syncir_ray.models.device import Device
from syncir_ray.models.loading import quiet
from syncir_ray.models.sentence import SentenceEncoder

VOCABULARY = 30522  # BERT's
MAX_TOKENS, BEAMS, PROMPT = 30, 3, 150  # as the paper preset captions; tokens of its prompt
RNG = np.random.default_rng(0)


def pixels_config(folder: Path, side: int) -> None:
    """A preprocessor_config.json for `side` pixels."""
    config = {"resample": 3, "image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28], "size": side}
    (folder / "preprocessor_config.json").write_text(json.dumps(config))


def words(folder: Path) -> list[str]:
    """A BERT tokenizer of made-up words beside the model in `folder`; its words."""
    made = [f"w{i}" for i in range(VOCABULARY - 5)]
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *made])}
    BertTokenizer(vocab=vocabulary, model_max_length=512).save_pretrained(folder)
    return made


def resnet152(folder: Path) -> str:
    """ResNet-152 for 224 pixels, with timm if there is a timm."""
    try:
        import timm
        from timm.models import save_for_hf
    except ImportError:
        ResNetModel(ResNetConfig(depths=[3, 8, 36, 3])).save_pretrained(folder)
        pixels_config(folder, 224)
        return "transformers"
    save_for_hf(timm.create_model("resnet152.tv_in1k"), str(folder), safe_serialization=True)
    return "timm"


def blip(folder: Path) -> None:
    """BLIP base with its captioner's text configuration, 384 pixels."""
    text = {"vocab_size": VOCABULARY + 2, "bos_token_id": VOCABULARY, "sep_token_id": 102}
    config = BlipConfig(text_config={**text, "encoder_hidden_size": 768}, vision_config={"image_size": 384})
    BlipForConditionalGeneration(config).save_pretrained(folder)
    pixels_config(folder, 384)
    words(folder)


def qwen() -> Any:
    """A Qwen2 of the size and shape of Qwen2.5-0.5B."""
    return Qwen2ForCausalLM(Qwen2Config(
        vocab_size=151936, hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14,
        num_key_value_heads=2, max_position_embeddings=2048, tie_word_embeddings=True, eos_token_id=None,
    ))  # fmt: skip


def measure(name: str, unit: str, run: Callable[[], int], quick: bool) -> dict[str, Any]:
    """Items a second of `run` (which says how many it did), after one run to warm up, and peak memory."""
    cuda = torch.cuda.is_available()
    run()
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    done = sum(run() for _ in range(1 if quick else 3))
    if cuda:
        torch.cuda.synchronize()
    rate = done / (time.perf_counter() - started)
    peak = (
        torch.cuda.max_memory_allocated() / 2**30
        if cuda
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    )
    whose = "" if cuda else " (of the process)"
    print(f"{name:32} {rate:10.1f} {unit}/s   peak {peak:6.2f} GiB{whose}", flush=True)
    return {"stage": name, "unit": unit, "per_second": round(rate, 2), "peak_gib": round(peak, 3)}


def check_features(folder: Path, batch: int, threads: int, quick: bool) -> dict[str, Any]:
    """The backbone; on a GPU also how far half precision turns its features from float32's."""
    kind = resnet152(folder)
    backbone = Backbone(folder, batch, threads)
    images = RNG.integers(0, 256, (batch * (2 if quick else 4), 224, 224, 3), np.uint8)
    result = measure(f"features: ResNet-152 ({kind})", "images", lambda: len(backbone(images)), quick)
    if torch.cuda.is_available():
        half = backbone(images[:8])
        torch.backends.cudnn.allow_tf32 = False
        backbone._model.float()
        backbone._feed.device.dtype = torch.float32
        result["cosine_to_float32"] = float((half * backbone(images[:8])).sum(1).min())
        print(f"{'':32} cosine to float32 at least {result['cosine_to_float32']:.6f}", flush=True)
    return result


def check_captions(folder: Path, batch: int, threads: int, quick: bool) -> dict[str, Any]:
    """The captioner."""
    blip(folder)
    captioner = Captioner(folder, batch, 5 if quick else MAX_TOKENS, BEAMS, threads)
    images = RNG.integers(0, 256, (batch * (1 if quick else 4), 384, 384, 3), np.uint8)
    return measure("captions: BLIP base", "images", lambda: len(captioner(images)), quick)


def check_triplets(folder: Path, batch: int, threads: int, quick: bool) -> dict[str, Any]:
    """The sentence encoder, on texts of 5 to 19 words."""
    BertModel(BertConfig()).save_pretrained(folder)
    made = words(folder)
    encoder = SentenceEncoder(folder, batch, threads)
    texts = [" ".join(RNG.choice(made, RNG.integers(5, 20))) for _ in range(batch * (2 if quick else 4))]
    return measure("triplets: BERT base", "texts", lambda: len(encoder(texts)), quick)


def check_queries(folder: Path, batch: int, threads: int, quick: bool) -> dict[str, Any]:
    """A language model with transformers' `generate`: where vLLM is absent. It is not saved: 1 GB."""
    device, tokens = Device(threads), 4 if quick else 64
    model = device.place(qwen())
    prompts = torch.from_numpy(RNG.integers(0, 1000, (batch, PROMPT))).to(device.torch)

    def answer() -> int:
        with torch.inference_mode():
            model.generate(
                input_ids=prompts, attention_mask=torch.ones_like(prompts), do_sample=False, max_new_tokens=tokens
            )
        return batch

    return measure(f"queries: Qwen2 0.5B, {tokens} tokens", "texts", answer, quick)


# Stage, its flag, the batch on a GPU, the batch of --quick.
STAGES = (
    (check_features, "images", 256, 4),
    (check_captions, "captions", 64, 2),
    (check_triplets, "texts", 256, 16),
    (check_queries, "prompts", 64, 1),
)


def main() -> None:
    """Run the stages one after the other, each model gone before the next comes."""
    parser = argparse.ArgumentParser(description="Run every stage's model at its real size on random weights.")
    parser.add_argument("--quick", action="store_true", help="small batches, one repeat")
    for check, flag, large, small in STAGES:
        stage = check.__name__.removeprefix("check_")
        parser.add_argument(f"--{flag}", type=int, help=f"batch of {stage} (default {large}; quick {small})")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    args = parser.parse_args()
    quiet()
    torch.manual_seed(0)
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {args.threads} threads"
    print(f"{name}; torch {torch.__version__}, transformers {transformers.__version__}", flush=True)
    results = []
    for check, flag, large, small in STAGES:
        batch = getattr(args, flag) or (small if args.quick else large)
        with tempfile.TemporaryDirectory() as folder:
            results.append({**check(Path(folder), batch, args.threads, args.quick), "batch": batch})
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    print(json.dumps({"device": name, "torch": torch.__version__, "quick": args.quick, "stages": results}))


if __name__ == "__main__":
    main()
