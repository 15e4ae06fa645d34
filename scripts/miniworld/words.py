"""The tokenizers: a token a word, or nearly. Every word of captions, query texts and the prompt is known."""

import re
from pathlib import Path
from typing import Any

from syncir_ray.miniworld.scene import BACKGROUNDS, COLOURS, PLACES, SHAPES, SIZES
from syncir_ray.models.prompt import TASK, prompt

FRAME = (  # of captions, query texts and prompts to a CLIP
    "a an the at on in of and with photo image picture that , . * $ : ' \" - "
    "make turn into replace move to add remove change background"
).split()


def vocabulary() -> list[str]:
    """Every word once, in a fixed order."""
    named = " ".join([*SIZES, *COLOURS, *SHAPES, *PLACES, *BACKGROUNDS]).split()
    return list(dict.fromkeys([*FRAME, *named]))


def bert(folder: Path, longest: int) -> Any:
    """A BertTokenizer of BLIP, CLIP and the sentence encoder. [SEP] is the last: open_clip reads a text there."""
    from transformers import BertTokenizer

    words = ["[PAD]", "[UNK]", "[CLS]", "[MASK]", *vocabulary(), "[SEP]"]
    tokenizer = BertTokenizer(vocab={word: i for i, word in enumerate(words)}, model_max_length=longest)
    tokenizer.save_pretrained(folder)
    return tokenizer


CHAT = (
    "{% for message in messages %}<{{ message.role }}> {{ message.content }} {% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
# What always comes whole is one token: a prompt is then 70 tokens and not 190, and a small model learns it sooner.
# The task's last two sentences stay words: behind both captions, they are where the model compares them.
PHRASES = [
    "source sentence:", "target sentence:", "change the background to",
    *(f"{word} {place}" for place in PLACES for word in ("at the", "to the", "the")),
    *(sentence for sentence in re.findall(r"\S[^.,]*[.,]", TASK.lower())[:3]),
]  # fmt: skip


def writer(folder: Path) -> Any:
    """A PreTrainedTokenizerFast of the language model: lower case; a token a word, a mark or one of PHRASES."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<unk>", "<end>", "<user>", "<assistant>"]
    pieces = "|".join([*(re.escape(phrase).replace("\\ ", " ") for phrase in PHRASES), r"[^\s.,:;]+", "[.,:;]"])
    split = pre_tokenizers.Split(Regex(pieces), "removed", invert=True)
    lower = normalizers.Lowercase()
    asked = [piece for piece, _ in split.pre_tokenize_str(lower.normalize_str(prompt("", "")))]
    words = list(dict.fromkeys([*special, *vocabulary(), *PHRASES, *asked]))
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    core.normalizer, core.pre_tokenizer = lower, split
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        unk_token="<unk>",
        eos_token="<end>",
        additional_special_tokens=["<user>", "<assistant>"],
        model_max_length=512,
    )
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(folder)
    return tokenizer
