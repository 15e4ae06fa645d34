"""Sentence embeddings against a mean taken by hand, and against sentence-transformers itself."""

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Pooling, Transformer
from transformers import AutoModel, AutoTokenizer

from syncir_ray.errors import UserError
from syncir_ray.models.sentence import SentenceEncoder
from tests import small_models

TEXTS = [
    "a red dog standing on the beach",
    "two cats",
    "",
    "change the dog to a cat and remove the hat, show a blue bus in the street instead",
    "zebra",
    "two cats",
    "a man and a woman sitting at a table with a ball . " * 20,  # beyond the 64 tokens of the model
]


def by_hand(folder: Path) -> np.ndarray:
    """One text at a time: no padding, no mask."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    rows = []
    with torch.inference_mode():
        for text in TEXTS:
            tokens = tokenizer(text, return_tensors="pt", truncation=True, max_length=64)
            rows.append(model(**tokens).last_hidden_state[0].mean(0).numpy())
    return np.stack(rows)


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_a_plain_bert_is_averaged(batch: int, tmp_path: Path) -> None:
    folder = small_models.bert(tmp_path)
    found = SentenceEncoder(folder, batch, threads=1)(TEXTS)
    assert found.dtype == np.float32 and found.shape == (len(TEXTS), 32)
    np.testing.assert_allclose(found, by_hand(folder), atol=1e-5)
    assert not np.allclose(np.linalg.norm(found, axis=1), 1, atol=0.1)
    np.testing.assert_array_equal(found[1], found[5])
    assert np.abs(found[0] - found[3]).max() > 0.1  # the vocabulary is real: texts are not all [UNK]


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_a_sentence_transformers_folder_does_as_it_says(batch: int, tmp_path: Path) -> None:
    folder = small_models.sentence_transformer(tmp_path / "st")
    found = SentenceEncoder(folder, batch, threads=1)(TEXTS)
    assert found.dtype == np.float32
    mean = by_hand(small_models.bert(tmp_path / "plain"))
    np.testing.assert_allclose(found, mean / np.linalg.norm(mean, axis=1, keepdims=True), atol=1e-5)


def test_half_precision_is_close(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = small_models.bert(tmp_path / "b"), small_models.sentence_transformer(tmp_path / "s")
    whole = [SentenceEncoder(folder, 3, threads=1)(TEXTS) for folder in folders]
    small_models.in_half_precision(monkeypatch)
    for folder, expected in zip(folders, whole, strict=True):
        found = SentenceEncoder(folder, 3, threads=1)(TEXTS)
        assert found.dtype == np.float32
        cosines = (found * expected).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
        assert cosines.min() > 0.999


def test_no_texts(tmp_path: Path) -> None:
    for folder in (small_models.bert(tmp_path / "b"), small_models.sentence_transformer(tmp_path / "s")):
        assert SentenceEncoder(folder, 4, threads=1)([]).shape == (0, 32)


def test_a_masked_language_model_does_without_its_pooler(tmp_path: Path) -> None:
    folder = small_models.bert(tmp_path)
    expected = by_hand(folder)
    state = load_file(folder / "model.safetensors")
    save_file(
        {k: v for k, v in state.items() if "pooler" not in k}, folder / "model.safetensors", {"format": "pt"}
    )
    np.testing.assert_allclose(SentenceEncoder(folder, 4, threads=1)(TEXTS), expected, atol=1e-5)
    del state["embeddings.word_embeddings.weight"]
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"lacks embeddings.word_embeddings.weight"):
        SentenceEncoder(folder, 4, threads=1)


class Bomb:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.mark),)


def test_no_module_is_unpickled(tmp_path: Path) -> None:
    plain, folder, mark = small_models.bert(tmp_path / "plain"), tmp_path / "st", tmp_path / "unpickled"
    words = Transformer(str(plain))
    SentenceTransformer(modules=[words, Pooling(32), Dense(32, 8)], device="cpu").save(
        str(folder), create_model_card=False
    )
    assert SentenceEncoder(folder, 4, threads=1)(TEXTS).shape == (len(TEXTS), 8)
    (folder / "2_Dense" / "model.safetensors").unlink()
    (folder / "2_Dense" / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(mark)))
    with pytest.raises(UserError, match=r"2_Dense: has pytorch_model.bin but no model.safetensors"):
        SentenceEncoder(folder, 4, threads=1)
    assert not mark.exists()


def test_no_code_of_a_model_is_run(tmp_path: Path) -> None:
    folder, mark = small_models.sentence_transformer(tmp_path / "st"), tmp_path / "run"
    (folder / "own.py").write_text(f"import os\nos.mkdir({str(mark)!r})\nclass Own: pass\n")
    modules = json.loads((folder / "modules.json").read_text())
    modules[-1]["type"] = "own.Own"
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(UserError, match="does not load with sentence-transformers"):
        SentenceEncoder(folder, 4, threads=1)
    plain = small_models.bert(tmp_path / "plain")
    (plain / "own.py").write_text((folder / "own.py").read_text())
    config = json.loads((plain / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModel": "own.Own"}}
    (plain / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="does not load as AutoModel"):
        SentenceEncoder(plain, 4, threads=1)
    assert not mark.exists()


def test_nothing_is_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for folder in (small_models.bert(tmp_path / "b"), small_models.sentence_transformer(tmp_path / "s")):
        capfd.readouterr()
        SentenceEncoder(folder, 4, threads=1)(TEXTS)
        assert capfd.readouterr() == ("", "")
