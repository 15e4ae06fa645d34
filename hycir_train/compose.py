"""Prompts with pseudo-tokens, as token ids: "a photo of [$ … $]" and "a photo of [$ … $], [query text]".

(Pic2Word, "Inference"; HyCIR, "Hybrid training".) A text is made of pieces that are tokenized alone, so n
pseudo-tokens stand where they stand by construction, whatever the query text holds; it is cut where the
context ends, the end token never. CLIP's and BERT's tokenizers split at blanks and punctuation first, so the
pieces give the tokens that the whole would give.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hycir_train.encoders.interface import Words
from hycir_train.prompts import PHRASE, Lineage, tail

Query = Sequence[int]
"""Token ids of ", [query text]", uncut; none: the prompt without a query."""


def query(words: Words, text: str, lineage: Lineage = "pic2word", concept: str = "") -> list[int]:
    """A query text's token ids, with the comma before it (`prompts.tail`); none for a blank text."""
    behind = tail(text, lineage, concept)
    ids = words.split(behind) if behind else []
    return [i for i in ids if i not in (words.start, words.end)]  # written out in the text: a tokenizer reads them


@dataclass(frozen=True)
class Texts:
    """A batch of prompts of one shape."""

    ids: Tensor
    """(b, l) int64, padded behind the end tokens; at the pseudo-tokens' places the padding id."""
    first: int
    """Where the first of n pseudo-tokens stands, in every text; the last stands at first + n - 1."""
    end: Tensor
    """(b,) int64: where each end token stands."""


@dataclass(frozen=True)
class Prompt:
    """What is the same in every prompt of an encoder."""

    words: Words
    head: tuple[int, ...]
    """Token ids of what stands before the pseudo-tokens, the start token first."""

    @classmethod
    def of(cls, words: Words) -> "Prompt":
        return cls(words, (words.start, *words.split(PHRASE)))

    def length(self, query: Query, tokens: int) -> int:
        """Tokens of a prompt with `tokens` pseudo-tokens, start and end included."""
        return min(len(self.head) + tokens + len(query) + 1, self.words.context)

    def texts(self, queries: Sequence[Query], tokens: int, device: torch.device) -> Texts:
        """Prompts with these queries, as long as the longest of them.

        Raises:
            ValueError: the context has no room for `tokens` pseudo-tokens.
        """
        room = self.words.context - len(self.head) - tokens - 1
        if room < 0:
            raise ValueError(f"{tokens} pseudo-tokens do not fit a context of {self.words.context} tokens")
        longest = max(self.length(query, tokens) for query in queries)
        rows = [[*self.head, *[self.words.pad] * tokens, *query[:room], self.words.end] for query in queries]
        padded = [row + [self.words.pad] * (longest - len(row)) for row in rows]
        ends = [len(row) - 1 for row in rows]
        return Texts(torch.tensor(padded, device=device), len(self.head), torch.tensor(ends, device=device))


def embedded(embeddings: Tensor, pseudo: Tensor, first: int) -> Tensor:
    """(b, l, w) token embeddings with (b, n, w) pseudo-tokens in place of rows first … first + n - 1."""
    behind = first + pseudo.shape[1]
    return torch.cat([embeddings[:, :first], pseudo.to(embeddings.dtype), embeddings[:, behind:]], 1)
