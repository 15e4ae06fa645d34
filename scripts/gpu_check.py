"""Every stage's model at its real size, on random weights: does it run here, how fast, in how much memory.

    python scripts/gpu_check.py            on a GPU: bf16 (the backbone float16), some 40 s
    python scripts/gpu_check.py --quick    small batches, for a CPU

Needs torch, transformers and safetensors, no Ray and no download. The weights are random but the classes, the
folders and the code that loads and runs them are the pipeline's own. Random captions and answers run to their
full length, so those rates are a floor. The last line printed is one JSON object.
"""

import argparse
import gc
import json
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
    BertTokenizerFast,
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


def pixels_config(folder: Path, side: int, **more: Any) -> None:
    """A preprocessor_config.json for `side` pixels."""
    config = {"resample": 3, "image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28], **more}
    if "size" not in config:
        config["size"] = {"height": side, "width": side}
    (folder / "preprocessor_config.json").write_text(json.dumps(config))


def words(folder: Path, count: int = VOCABULARY) -> list[str]:
    """A BERT tokenizer of made-up words beside the model in `folder`; its words."""
    made = [f"w{i}" for i in range(count - 5)]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *made]
    BertTokenizerFast(vocab={word: i for i, word in enumerate(vocabulary)}, model_max_length=512).save_pretrained(folder)
    return made


def resnet152(folder: Path) -> str:
    """ResNet-152 for 224 pixels, with timm if there is a timm."""
    try:
        import timm
        from timm.models import save_for_hf
    except ImportError:
        ResNetModel(ResNetConfig(depths=[3, 8, 36, 3])).save_pretrained(folder)
        pixels_config(folder, 224, image_processor_type="ConvNextImageProcessor", size={"shortest_edge": 224})
        return "transformers"
    save_for_hf(timm.create_model("resnet152.tv_in1k"), str(folder), safe_serialization=True)
    return "timm"


def blip(folder: Path) -> None:
    """BLIP base with its captioner's text configuration, 384 pixels."""
    text = {"vocab_size": VOCABULARY + 2, "bos_token_id": VOCABULARY, "sep_token_id": 102, "encoder_hidden_size": 768}
    config = BlipConfig(text_config=text, vision_config={"image_size": 384})
    BlipForConditionalGeneration(config).save_pretrained(folder)
    pixels_config(folder, 384)
    words(folder)


def qwen() -> Any:
    """A Qwen2 of the size and shape of Qwen2.5-0.5B."""
    return Qwen2ForCausalLM(Qwen2Config(
        vocab_size=151936, hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14,
        num_key_value_heads=2, max_position_embeddings=2048, tie_word_embeddings=True, eos_token_id=None,
    ))  # fmt: skip


def measure(name: str, unit: str, run: Callable[[], int], repeats: int) -> dict[str, Any]:
    """Items a second of `run` (which says how many it did), after one run to warm up, and peak memory."""
    cuda = torch.cuda.is_available()
    run()
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    started, done = time.perf_counter(), 0
    for _ in range(repeats):
        done += run()
    if cuda:
        torch.cuda.synchronize()
    rate = done / (time.perf_counter() - started)
    peak = torch.cuda.max_memory_allocated() / 2**30 if cuda else _resident()
    print(f"{name:32} {rate:10.1f} {unit}/s   peak {peak:6.2f} GiB{'' if cuda else ' (of the process)'}", flush=True)
    return {"stage": name, "unit": unit, "per_second": round(rate, 2), "peak_gib": round(peak, 3)}


def _resident() -> float:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def free() -> None:
    """Give the last model's memory back before the next is measured."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def main() -> None:
    parser = argparse.ArgumentParser(description="Run every stage's model at its real size on random weights.")
    parser.add_argument("--quick", action="store_true", help="small batches, one repeat")
    parser.add_argument("--images", type=int, help="images the backbone sees at once (default 256; quick 4)")
    parser.add_argument("--captions", type=int, help="images captioned at once (default 64; quick 2)")
    parser.add_argument("--texts", type=int, help="texts embedded at once (default 256; quick 16)")
    parser.add_argument("--prompts", type=int, help="prompts answered at once (default 64; quick 1)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    args = parser.parse_args()
    images, captions, texts, prompts = (
        given or (small if args.quick else large)
        for given, small, large in (
            (args.images, 4, 256), (args.captions, 2, 64), (args.texts, 16, 256), (args.prompts, 1, 64)
        )
    )  # fmt: skip
    batches, repeats, tokens = (2, 1, 4) if args.quick else (4, 3, 64)
    quiet()
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    device = Device(args.threads)
    name = torch.cuda.get_device_name() if device.cuda else f"CPU, {args.threads} threads"
    print(f"{name}; torch {torch.__version__}, transformers {transformers.__version__}", flush=True)
    stages = []

    with tempfile.TemporaryDirectory() as scratch:
        folders = {stage: Path(scratch, stage) for stage in ("backbone", "captioner", "sentence")}
        for folder in folders.values():
            folder.mkdir()

        kind = resnet152(folders["backbone"])
        backbone = Backbone(folders["backbone"], images, args.threads)
        seen = rng.integers(0, 256, (images * batches, 224, 224, 3), np.uint8)
        stages.append(measure(f"features: ResNet-152 ({kind})", "images", lambda: len(backbone(seen)), repeats))
        half = backbone(seen[:8])
        if device.cuda:  # the same images and weights in float32, the convolutions' TF32 off
            torch.backends.cudnn.allow_tf32 = False
            backbone._model.float()
            backbone._feed.device.dtype = torch.float32
            agreement = float((half * backbone(seen[:8])).sum(1).min())
            print(f"{'':32} cosine of half precision to float32 at least {agreement:.6f}", flush=True)
            stages[-1]["cosine_to_float32"] = agreement
        del backbone
        free()

        blip(folders["captioner"])
        captioner = Captioner(folders["captioner"], captions, 5 if args.quick else MAX_TOKENS, BEAMS, args.threads)
        seen = rng.integers(0, 256, (captions * (1 if args.quick else batches), 384, 384, 3), np.uint8)
        stages.append(measure("captions: BLIP base", "images", lambda: len(captioner(seen)), repeats))
        del captioner
        free()

        BertModel(BertConfig()).save_pretrained(folders["sentence"])
        made = words(folders["sentence"])
        encoder = SentenceEncoder(folders["sentence"], texts, args.threads)
        said = [" ".join(rng.choice(made, rng.integers(5, 20))) for _ in range(texts * batches)]
        stages.append(measure("triplets: BERT base", "texts", lambda: len(encoder(said)), repeats))
        del encoder
        free()

    writer = device.place(qwen())
    asked = torch.from_numpy(rng.integers(0, 1000, (prompts, PROMPT))).to(device.torch)

    def answer() -> int:
        with torch.inference_mode():
            writer.generate(
                input_ids=asked, attention_mask=torch.ones_like(asked), do_sample=False, max_new_tokens=tokens
            )
        return len(asked)

    stages.append(measure(f"queries: Qwen2 0.5B, {tokens} tokens", "texts", answer, repeats))
    print(json.dumps({"device": name, "torch": torch.__version__, "quick": args.quick, "stages": stages}))


if __name__ == "__main__":
    main()
