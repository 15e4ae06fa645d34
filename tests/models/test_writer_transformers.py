"""The transformers engine on a tiny random Qwen2."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, Qwen2ForCausalLM

from syncir_ray.errors import UserError
from syncir_ray.models import loading
from syncir_ray.models.answer import Answer, Failure
from syncir_ray.models.writer_transformers import TransformersWriter
from tests import small_models

TOKENS = 8  # of an answer
PROMPTS = ["a dog", "a much longer caption of a cat on a mat in grass", "b", "two birds", "a dog and a cat"]


@pytest.fixture(autouse=True)
def cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """fp32, where padding does not change a word; and the process gets its threads back."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return small_models.causal_lm(tmp_path)


def settings(folder: Path, name: str = "generation_config.json", **changes: object) -> None:
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def writer(folder: Path, batch: int = 2) -> TransformersWriter:
    return TransformersWriter(folder, batch, TOKENS, threads=1)


def answers(folder: Path, prompts: list[str], batch: int = 2) -> list[Answer]:
    results = writer(folder, batch)(prompts)
    return [result for result in results if isinstance(result, Answer)]


def test_a_batch_answers_as_each_prompt_alone_and_in_order(folder: Path) -> None:
    together, alone = answers(folder, PROMPTS, batch=3), writer(folder, batch=1)
    assert together == [alone([prompt])[0] for prompt in PROMPTS]
    assert len({answer.text for answer in together}) == len(PROMPTS)  # so that an order is there to be kept
    assert answers(folder, []) == []


def test_the_chat_template_is_used_where_there_is_one(folder: Path) -> None:
    def counts(texts: list[str]) -> list[int]:
        return [len(ids) for ids in tokenizer(texts).input_ids]

    tokenizer = AutoTokenizer.from_pretrained(folder)
    asked = [f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n" for prompt in PROMPTS]
    assert [a.tokens_in for a in answers(folder, PROMPTS)] == counts(asked)
    (folder / "chat_template.jinja").unlink()
    assert [a.tokens_in for a in answers(folder, PROMPTS)] == counts(PROMPTS)


def test_an_answer_as_long_as_allowed_is_cut_and_one_that_ends_is_not(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    (cut,) = answers(folder, PROMPTS[:1])
    assert cut.cut and cut.tokens_out == TOKENS
    model: Any = Qwen2ForCausalLM.from_pretrained(folder)
    ids = AutoTokenizer.from_pretrained(folder)(PROMPTS[0], return_tensors="pt").input_ids
    written = model.generate(ids, max_new_tokens=TOKENS, do_sample=False)[0, ids.shape[1] :].tolist()
    third = written[2]
    # What it says third anyway is an end now.
    settings(folder, eos_token_id=[model.config.eos_token_id, third])
    (whole,) = answers(folder, PROMPTS[:1])
    assert not whole.cut and whole.tokens_out == written.index(third) + 1
    # Beside longer answers, the padding after the end is not counted.
    assert answers(folder, PROMPTS, batch=5)[0] == whole


def test_published_sampling_settings_are_not_followed(folder: Path) -> None:
    greedy = writer(folder)(PROMPTS)
    settings(folder, do_sample=True, temperature=5.0, top_k=50, repetition_penalty=3.0, max_length=4)
    assert writer(folder)(PROMPTS) == greedy


def test_a_prompt_beyond_the_context_fails_alone(folder: Path) -> None:
    usual = answers(folder, PROMPTS, batch=1)
    longest = max(answer.tokens_in for answer in usual)
    settings(folder, "config.json", max_position_embeddings=longest + TOKENS)
    assert writer(folder, batch=1)(PROMPTS) == usual
    settings(folder, "config.json", max_position_embeddings=longest + TOKENS - 1)
    detail = f"{longest} tokens and {TOKENS} to answer; the model takes {longest + TOKENS - 1}"
    assert writer(folder)(PROMPTS) == [usual[0], Failure("prompt too long", detail), *usual[2:]]


def test_pickled_weights_are_not_opened(folder: Path) -> None:
    torch.save(Qwen2ForCausalLM.from_pretrained(folder).state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match="safetensors"):
        writer(folder)


def test_a_tokenizer_that_names_no_tokens(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = writer(folder)(PROMPTS)

    def nameless(folder: Path) -> Any:
        found = whole(folder)
        found.pad_token = found.eos_token = None  # Qwen2's own class would supply both again from a file
        return found

    whole = loading.tokenizer
    monkeypatch.setattr(loading, "tokenizer", nameless)
    assert writer(folder)(PROMPTS) == usual  # the model names the end
    settings(folder, eos_token_id=None)
    settings(folder, "config.json", eos_token_id=None)
    with pytest.raises(UserError, match="end-of-text"):
        writer(folder)
