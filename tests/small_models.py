"""Small random models of the real classes, saved as the folders users have. Seconds and a few MB in all."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import pytest
import timm
import torch
from timm.models import save_for_hf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessor,
    ConvNextImageProcessor,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    ResNetConfig,
    ResNetModel,
)
from transformers.utils import logging

from syncir_ray.models.device import Device
from syncir_ray.models.prompt import prompt

WORDS = (
    "a an the and of on in with is are two three red blue green black white small large dog cat bird horse car "
    "bus boat man woman child table chair tree grass street beach sky water ball hat standing sitting running "
    "change to instead add remove show make ##s ##ing . , ' -"
).split()
VOCAB = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS])}
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@contextmanager
def _seeded() -> Iterator[None]:
    """The same weights on every call, without touching the caller's random state; no progress bars."""
    logging.disable_progress_bar()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def in_half_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let models on the CPU take the type that they have on a GPU."""
    init = Device.__init__

    def halved(self: Device, threads: int, half: torch.dtype = torch.bfloat16) -> None:
        init(self, threads, half)
        self.dtype = half

    monkeypatch.setattr(Device, "__init__", halved)


def _tell_apart(model: torch.nn.Module, side: int) -> None:
    """Make batch norms centre what coloured blobs give: by default all images have one and the same feature."""
    for norm in (module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)):
        torch.nn.init.normal_(norm.weight, 1, 0.3)
        norm.momentum = None  # average, from here on
        norm.reset_running_stats()
    blobs = torch.nn.functional.interpolate(torch.randn(64, 3, 4, 4), (side, side), mode="bilinear")
    with torch.no_grad():
        model.train()(blobs)


def resnet(folder: Path, kind: Literal["timm", "transformers"] = "timm") -> Path:
    """A ResNet: timm's for 160 px (96 features), or transformers' for 64 px (64 features)."""
    with _seeded():
        if kind == "timm":
            model = timm.create_model("test_resnet", num_classes=10)
            _tell_apart(model, 160)
            save_for_hf(model, str(folder), safe_serialization=True)
            return folder
        config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16, 32, 64], depths=[1, 1, 1, 1])
        model = ResNetModel(config)
        _tell_apart(model, 64)
        model.save_pretrained(folder)
    ConvNextImageProcessor(size={"shortest_edge": 64}, crop_pct=0.875).save_pretrained(folder)
    return folder


def blip(folder: Path) -> Path:
    """A BLIP captioner of 2 + 2 layers for 32 px, which speaks `WORDS`."""
    layers = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = layers | {
        "vocab_size": len(VOCAB) + 1, "bos_token_id": len(VOCAB), "sep_token_id": VOCAB["[SEP]"],
        "eos_token_id": VOCAB["[PAD]"], "pad_token_id": VOCAB["[PAD]"], "encoder_hidden_size": 32,
        "max_position_embeddings": 64, "initializer_range": 1.0,
    }  # fmt: skip
    vision = layers | {"image_size": 32, "patch_size": 8, "initializer_range": 0.5}
    with _seeded():
        BlipForConditionalGeneration(BlipConfig(text_config=text, vision_config=vision)).save_pretrained(folder)
    BlipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    # On its own: saved within a BlipProcessor, the tokenizer would lose its settings.
    BertTokenizer(vocab=VOCAB, model_max_length=64).save_pretrained(folder)
    return folder


def bert(folder: Path) -> Path:
    """A BERT of 2 layers and width 32 with the word pieces of `WORDS`."""
    config = BertConfig(
        vocab_size=len(VOCAB), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=64, initializer_range=0.5,
    )  # fmt: skip
    with _seeded():
        BertModel(config).save_pretrained(folder)
    BertTokenizer(vocab=VOCAB, model_max_length=64).save_pretrained(folder)
    return folder


def sentence_transformer(folder: Path) -> Path:
    """`bert`, averaged and normalised, as a sentence-transformers folder."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    with TemporaryDirectory() as scratch:
        words = Transformer(str(bert(Path(scratch))))
    modules = [words, Pooling(words.get_embedding_dimension()), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder), create_model_card=False)
    return folder


def causal_lm(folder: Path) -> Path:
    """A Qwen2 of 2 layers, width 128, 4 heads and 2 key-value heads, with a chat template; vLLM loads it."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    text = [prompt(" ".join(WORDS[:20]), " ".join(WORDS[20:40]))] * 2 + [" " + word for word in WORDS] * 2
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=640, show_progress=False, special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    core.train_from_iterator(text, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token=special[0], eos_token=special[2], model_max_length=1024
    )
    tokenizer.chat_template = CHAT
    config = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=128, intermediate_size=256, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=1024, initializer_range=0.2,
        bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    with _seeded():
        Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
