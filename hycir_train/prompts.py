"""The prompts of composed queries, as text. "$" stands for the pseudo-tokens.

pic2word   a photo of [$ … $], {caption}          (Pic2Word, "Inference"; HyCIR)
searle     a photo of [$ … $] that {caption}      (SEARLE's published code)

Where what reference and target share is in the prompt (CIRCO), it stands between: "a photo of [$ … $], {shared
concept}, {caption}". No paper fixes a form for it; this one is ours.
"""

from typing import Literal

Lineage = Literal["pic2word", "searle"]

PHRASE = "a photo of"
LINKS: dict[Lineage, str] = {"pic2word": ", ", "searle": " that "}


def tail(caption: str, lineage: Lineage = "pic2word", concept: str = "") -> str:
    """What stands behind the pseudo-tokens; nothing of a blank caption, nor of a blank concept."""
    shared = f", {concept}" if concept.strip() else ""
    return shared + (f"{LINKS[lineage]}{caption}" if caption.strip() else "")


def template(tokens: int, lineage: Lineage, shared_concept: bool) -> str:
    """The whole prompt with its places, for people to read."""
    behind = tail("{caption}", lineage, "{shared concept}" if shared_concept else "")
    return f"{PHRASE} [{' '.join('$' * tokens)}]{behind}"
