"""What a query writer, whatever its engine, gives back for one prompt."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """A language model's answer, before `prompt.query_text` reads it."""

    text: str
    cut: bool
    """The engine stopped at its token limit: the text has no end."""
    tokens_in: int
    """Tokens of the prompt, chat template included; 0 where a server does not say."""
    tokens_out: int
    """Tokens of the answer, end-of-text token included; 0 where a server does not say."""


@dataclass(frozen=True)
class Failure:
    """Why one prompt got no answer; the prompts beside it are not touched."""

    reason: str
    """A short phrase from a small set, counted in the ledger."""
    detail: str
    """What was seen, at most `schemas.DETAIL` characters, never the key."""
