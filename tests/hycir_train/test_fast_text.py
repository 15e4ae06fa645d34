"""The fast text path against the plain form: the library's own tokenizer and encoder at the full context."""

from collections.abc import Callable
from pathlib import Path

import open_clip
import pytest
import torch
from torch import Tensor
from transformers import AutoTokenizer, BlipForImageTextRetrieval

from hycir_train import encoders
from hycir_train.compose import query
from hycir_train.fast_text import Composer
from hycir_train.losses import triplet, zs_cir
from hycir_train.mapping import Mapping
from syncir_ray.models.device import Device
from tests import small_encoders, small_models
from tests.small_encoders import TEXTS

Plain = Callable[[Tensor, list[str]], Tensor]

PLACEHOLDER = "bus"  # a token in every vocabulary, in no text before its pseudo-tokens
ALMOST = {"rtol": 1e-5, "atol": 1e-5}


def plain_clip(folder: Path) -> Plain:
    """77 tokens a text, as Pic2Word's public trainer has them."""
    model = open_clip.create_model(f"local-dir:{folder}").eval().requires_grad_(False)
    tokenize = open_clip.get_tokenizer(f"local-dir:{folder}")
    text = getattr(model, "text", model)

    def encode(pseudo: Tensor, texts: list[str]) -> Tensor:
        ids = tokenize(texts)
        states = in_place(text.token_embedding(ids), pseudo) + text.positional_embedding
        states = text.ln_final(text.transformer(states, attn_mask=text.attn_mask))
        return states[torch.arange(len(ids)), ids.argmax(1)] @ text.text_projection

    return encode


def plain_blip(folder: Path) -> Plain:
    """35 tokens a text, padded and masked."""
    model = BlipForImageTextRetrieval.from_pretrained(folder).eval().requires_grad_(False)
    tokenize = AutoTokenizer.from_pretrained(folder)

    def encode(pseudo: Tensor, texts: list[str]) -> Tensor:
        words = tokenize(texts, padding="max_length", truncation=True, max_length=35, return_tensors="pt")
        states = in_place(model.get_input_embeddings()(words.input_ids), pseudo)
        out = model.text_encoder(inputs_embeds=states, attention_mask=words.attention_mask)
        return model.text_proj(out.last_hidden_state[:, 0])

    return encode


def in_place(states: Tensor, pseudo: Tensor) -> Tensor:
    """Pseudo-tokens behind "[start] a photo of"."""
    return torch.cat([states[:, :4], pseudo, states[:, 4 + pseudo.shape[1] :]], 1)


def prompts(texts: list[str], tokens: int) -> list[str]:
    head = "a photo of " + " ".join([PLACEHOLDER] * tokens)
    return [f"{head}, {text}" if text else head for text in texts]


@pytest.fixture(scope="module", params=["clip", "own words", "scaled layers", "blip"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoder")
    if request.param == "blip":
        return small_encoders.blip(folder)
    if request.param == "own words":
        return small_encoders.clip(folder, "own", 40, quick_gelu=True)
    if request.param == "scaled layers":
        return small_encoders.clip(folder, custom=True, text={"ls_init_value": 0.3})
    return small_encoders.clip(folder)


@pytest.mark.parametrize("tokens", range(1, 9))
def test_features_and_gradients_are_those_of_the_plain_form(folder: Path, tokens: int) -> None:
    torch.manual_seed(tokens)
    encoder = encoders.load(str(folder), Device(1))
    plain = plain_blip(folder) if (folder / "config.json").exists() else plain_clip(folder)
    mapping = Mapping(encoder.feature_width, encoder.token_width, tokens).eval()
    compose = Composer(encoder, mapping)
    images, targets = torch.randn(2, len(TEXTS), encoder.feature_width)
    queries = [query(encoder.words, text) for text in TEXTS]

    def slow(features: Tensor, queries: object = None) -> Tensor:
        texts = TEXTS if queries else [""] * len(features)
        return plain(mapping(features), prompts(texts, tokens))

    torch.testing.assert_close(compose(images), slow(images), **ALMOST)
    torch.testing.assert_close(compose(images, queries), slow(images, queries), **ALMOST)
    found = []
    for form in (compose, slow):
        mapping.zero_grad()
        loss = zs_cir(form, images, encoder.scale) + triplet(form, images, queries, targets, encoder.scale)
        loss.backward()
        found.append([loss.detach(), *(weight.grad for weight in mapping.parameters())])
    for fast, expected in zip(*found, strict=True):
        largest = expected.abs().max().item()  # gradients reach 20 here; most entries are far below
        assert largest > 1e-3
        torch.testing.assert_close(fast, expected, rtol=0, atol=1e-5 * largest)


def test_rows_do_not_depend_on_their_neighbours(folder: Path) -> None:
    encoder = encoders.load(str(folder), Device(1))
    compose = Composer(encoder, Mapping(encoder.feature_width, encoder.token_width).eval())
    images = torch.randn(len(TEXTS), encoder.feature_width)
    queries = [query(encoder.words, text) for text in TEXTS]
    whole = compose(images, queries)
    for row in range(len(TEXTS)):
        torch.testing.assert_close(compose(images[[row]], [queries[row]])[0], whole[row], **ALMOST)


def test_training_leaves_the_encoder_as_it_is_to_the_bit(folder: Path) -> None:
    encoder = encoders.load(str(folder), Device(1))
    before = {name: value.clone() for name, value in encoder._model.state_dict().items()}
    mapping = Mapping(encoder.feature_width, encoder.token_width)
    compose = Composer(encoder, mapping)
    optimizer = torch.optim.Adam(mapping.parameters(), 1e-3)
    queries = [query(encoder.words, text) for text in TEXTS]
    images, losses = torch.randn(len(TEXTS), encoder.feature_width), []
    for _ in range(20):
        loss = zs_cir(compose, images, encoder.scale) + triplet(
            compose, images, queries, images.flip(0), encoder.scale
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    after = encoder._model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert not any(weight.requires_grad or weight.grad is not None for weight in encoder._model.parameters())


def test_half_precision_as_on_a_gpu(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    images, found = torch.randn(len(TEXTS), 24), []
    mapping = Mapping(24, 32).eval()
    for half in (False, True):
        if half:
            small_models.in_half_precision(monkeypatch)
        encoder = encoders.load(str(folder), Device(1))
        assert encoder.scale == pytest.approx(1 / 0.07, rel=1e-3)
        mapping.zero_grad()
        queries = [query(encoder.words, text) for text in TEXTS]
        features = Composer(encoder, mapping)(images, queries)
        assert features.dtype == torch.float32
        features.sum().backward()
        found.append((features, mapping.layers[0].weight.grad))
    for exact, rounded in zip(*found, strict=True):
        assert torch.cosine_similarity(exact.flatten(), rounded.flatten(), 0) > 0.97
        assert not torch.equal(exact, rounded)
