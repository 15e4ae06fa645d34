"""What a language model is asked, and how its answer is read (HyCIR, "Query text generation")."""

import re

# Figure 3 after the two captions.
TASK = (
    "If source sentence describes a source picture and target sentence describes a target picture, "
    "the source picture and an instruction are used to find the target picture. "
    "The instruction should indicate the difference between source and target. "
    "It should be as short as possible. Show the instruction."
)

# "Instruction:", "The instruction is:", "Sure! Here's a short instruction to …:", "Answer:" where a line
# begins; or such a word alone on its line, as a heading. A numbered one ("Instruction 2:") is one of several,
# and "The instruction is to …:" is the instruction itself.
_LABEL = re.compile(
    r"^[ \t#>-]*(?:(?:sure|certainly|of course|okay)\b[^:\n]{0,20}?)?(?:here(?:['’]s| is)\s+)?"
    r"(?:(?:the|a|an|one|my|your)\s+)?"
    r"(?:(?:edit|editing|short|shortest|concise|brief|simple|final|possible)\s+)*"
    r"(?:instruction\b(?!\s*\d)(?!\s+(?:is|(?:can|could|would|should|will) be) to\b)"
    r"(?:[^:\n]{0,80}:|[ \t]*\n)"
    r"|(?:answer|query text)(?: is)?[ \t]*(?::|\n))"
    # "Sure, here you go:" alone on its line.
    r"|^(?:sure|certainly|of course|okay|here)\b[^:\n]{0,100}:[ \t]*\n",
    re.IGNORECASE | re.MULTILINE,
)
# The prompt given back: its captions, and its task. Small models do this instead of answering.
_ECHO = re.compile(
    r"^[ \t#>-]*(?:(?:the|a)\s+)?(?:source|target)\s+(?:sentence|caption|picture|image)(?:\s+is)?\s*:.*$"
    r"|(?:it|the (?:instruction|sentence|target sentence)) should be as short as possible\.?"
    r"|" + "|".join(re.escape(sentence) for sentence in re.split(r"(?<=\.) ", TASK)),
    re.IGNORECASE | re.MULTILINE,
)
_EXPLANATION = re.compile(
    r"^[ \t(*>-]*(?:explanation|reason|reasoning|rationale|note)\s*:|^(?:in )?this instruction\b",
    re.IGNORECASE | re.MULTILINE,
)
_REFUSAL = re.compile(
    r"(?:i['’]?m|i am) (?:very |really )?(?:sorry|unable to|not able to)\b|(?:i )?apologi[sz]e\b|sorry, "
    r"|my apologies|as an? (?:ai|artificial intelligence|(?:large )?language model)\b"
    r"|(?:unfortunately,? )?i (?:can['’]t|cannot|can not|won['’]t|will not)\b",
    re.IGNORECASE,
)
_FENCE = re.compile(r"^[ \t]*```\w*[ \t]*$", re.MULTILINE)
_BULLET = re.compile(r"^\s*(?:[-*•]|\d{1,2}[.)])\s+", re.MULTILINE)
_QUOTES = (('"', '"'), ("'", "'"), ("“", "”"), ("‘", "’"), ("«", "»"))


class BadAnswer(Exception):
    """An answer that holds no query text; `reason` is a short phrase, counted in the ledger."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def prompt(reference_caption: str, target_caption: str) -> str:
    """Figure 3 of the paper, word for word.

    The paper's text runs on in one paragraph. The two captions and the task stand on a line each here: most
    captions have no full stop, and on one line the next sentence would run on from them. White space within
    a caption becomes single spaces, so that a caption is one line.
    """
    reference, target = " ".join(reference_caption.split()), " ".join(target_caption.split())
    return f"Source sentence: {reference}\nTarget sentence: {target}\n{TASK}"


def messages(prompt: str, begin: str = "") -> list[dict[str, str]]:
    """The chat that asks for one query text; `begin` is how the answer is made to begin."""
    answer = [{"role": "assistant", "content": begin}] if begin else []
    return [{"role": "user", "content": prompt}, *answer]


def query_text(answer: str, cut: bool = False) -> str:
    """The instruction in a language model's answer, in the model's own words, on one line.

    Taken off: thinking aloud, labels, sentences of the prompt given back, explanations after the instruction,
    markdown bold, code marks and list marks, quotation marks around the whole. Of what is left, one paragraph
    must be it; after a label, the first paragraph is.

    Args:
        answer: what the model wrote.
        cut: the engine stopped at its token limit (finish reason `length`).

    Raises:
        BadAnswer: with the reason
            'answer too long' (cut: half an instruction is none),
            'empty answer',
            'refused' (the model says that it cannot), or
            'no instruction' (only the prompt given back, or paragraphs of which none is marked).
    """
    if cut:
        raise BadAnswer("answer too long")
    text = answer.rsplit("</think>", 1)[-1]  # reasoning models on a server that does not split it off
    text = _FENCE.sub("", text).replace("**", "").replace("`", "").replace("\r\n", "\n").strip()
    if not any(c.isalnum() for c in text):
        raise BadAnswer("empty answer")
    text = _ECHO.sub("", text)
    label = _LABEL.search(text)
    if label:
        text = text[label.end() :]
        if again := _LABEL.search(text):  # a lead-in, then the label; or a second label, which ends the first
            before = text[: again.start()].strip()
            text = before or text[again.end() :]
    if explanation := _EXPLANATION.search(text):
        text = text[: explanation.start()]
    paragraphs = [found for p in re.split(r"\n\s*\n", text) if (found := _plain(p))]
    if paragraphs and _REFUSAL.match(paragraphs[0]):
        raise BadAnswer("refused")
    if not paragraphs or (len(paragraphs) > 1 and not label) or paragraphs[0].startswith("<think>"):
        raise BadAnswer("no instruction")
    return paragraphs[0]


def _plain(paragraph: str) -> str:
    """One line without list marks and enclosing quotation marks; '' where no letter or digit is left."""
    text = " ".join(_BULLET.sub("", paragraph).split())
    for opening, closing in _QUOTES:
        inner = text.removesuffix(".").removeprefix(opening).removesuffix(closing)
        full_stop = "." if text.endswith(closing + ".") else ""
        # Quotes inside are not the ends of one quotation: "Stop" becomes "Go".
        if text == f"{opening}{inner}{closing}{full_stop}" and opening not in inner and closing not in inner:
            text = inner.strip() + ("" if inner.endswith((".", "!", "?")) else full_stop)
    return text if any(c.isalnum() for c in text) else ""
