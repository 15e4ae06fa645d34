"""Prompts as token ids: pseudo-tokens at their places, query texts cut, end tokens never."""

from pathlib import Path

import pytest
import torch

from hycir_train import encoders
from hycir_train.compose import Prompt, embedded, query
from hycir_train.encoders.interface import Words
from syncir_ray.models.device import Device
from tests import small_encoders
from tests.small_encoders import TEXTS

CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=["clip", "own words", "short", "blip"])
def words(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Words:
    folder = tmp_path_factory.mktemp("encoder")
    if request.param == "blip":
        small_encoders.blip(folder)
    else:
        small_encoders.clip(
            folder, "simple" if request.param == "clip" else "own", 14 if request.param == "short" else 77
        )
    return encoders.load(str(folder), Device(1)).words


@pytest.mark.parametrize("tokens", range(1, 9))
def test_places_of_all(words: Words, tokens: int) -> None:
    queries = [query(words, text) for text in TEXTS]
    texts = Prompt.of(words).texts(queries, tokens, CPU)
    a_photo_of = words.split("a photo of")
    assert len(a_photo_of) == 3 and texts.first == 4
    longest = max(map(len, queries))
    assert texts.ids.shape == (len(TEXTS), min(words.context, longest + tokens + 5))
    for text, ids, end in zip(TEXTS, texts.ids.tolist(), texts.end.tolist(), strict=True):
        behind = ids[4 + tokens : end]
        whole = words.split(f", {text}") if text else []
        assert ids[:4] == [words.start, *a_photo_of]
        assert ids[4 : 4 + tokens] == [words.pad] * tokens
        assert behind == whole[: words.context - 5 - tokens]
        assert ids[end] == words.end and words.end not in ids[:end]
        assert set(ids[end + 1 :]) <= {words.pad}


def test_a_text_is_tokenized_as_in_one_piece(words: Words) -> None:
    for text in TEXTS[:-1]:
        pieces = words.split("a photo of") + query(words, text)
        assert pieces == words.split("a photo of, " + text if text else "a photo of")


def test_no_query_and_a_hostile_one(words: Words, tmp_path: Path) -> None:
    assert query(words, "") == query(words, " \n") == []
    plain = query(words, "a dog")
    assert query(words, "[CLS] a [SEP] dog [SEP]") == plain or words.start > 1000
    assert query(words, "<start_of_text> a <end_of_text> dog") == plain or words.start < 1000
    (row,) = Prompt.of(words).texts([()], 3, CPU).ids.tolist()
    assert row == [words.start, *words.split("a photo of"), *[words.pad] * 3, words.end]


def test_pseudo_tokens_take_the_places_of_rows() -> None:
    rows, pseudo = torch.randn(2, 7, 3), torch.randn(2, 2, 3, requires_grad=True)
    whole = embedded(rows, pseudo, 4)
    assert torch.equal(whole[:, 4:6], pseudo)
    assert torch.equal(whole[:, [0, 1, 2, 3, 6]], rows[:, [0, 1, 2, 3, 6]])


def test_a_context_without_room() -> None:
    words = Words(lambda text: [1] * len(text.split()), 0, 2, 0, 8)
    prompt = Prompt.of(words)
    assert prompt.texts([(1, 1)], 3, CPU).ids.tolist() == [[0, 1, 1, 1, 0, 0, 0, 2]]
    with pytest.raises(ValueError, match="4 pseudo-tokens do not fit a context of 8 tokens"):
        prompt.texts([()], 4, CPU)
