"""The prompt, word for word, and what is read out of a table of answers."""

from contextlib import suppress

import pytest

from syncir_ray.models.prompt import BadAnswer, prompt, query_text

DOG = "Replace the dog with a cat."


def test_prompt_is_figure_3() -> None:
    # Copied from the paper by hand, not from the code.
    figure = (
        "Source sentence: a dog Target sentence: a cat on a mat If source sentence describes a source "
        "picture and target sentence describes a target picture, the source picture and an instruction "
        "are used to find the target picture. The instruction should indicate the difference between "
        "source and target. It should be as short as possible. Show the instruction."
    )
    asked = prompt("a dog", "a cat on a mat")
    assert asked.split() == figure.split()
    assert [line.split(":")[0] for line in asked.splitlines()[:2]] == ["Source sentence", "Target sentence"]
    assert len(asked.splitlines()) == 3


def test_a_caption_is_one_line() -> None:
    assert prompt(" a dog\n\nand  a {cat} ", "b") == prompt("a dog and a {cat}", "b")


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (DOG, DOG),
        (f"  {DOG}\n", DOG),
        (f'"{DOG}"', DOG),
        ('"Replace the dog with a cat".', DOG),
        (f"“{DOG}”", DOG),
        (f"'{DOG}'", DOG),
        ('"Stop" becomes "Go"', '"Stop" becomes "Go"'),
        ("'Don't' becomes 'do'", "'Don't' becomes 'do'"),
        (f"Instruction: {DOG}", DOG),
        (f"instruction : {DOG}", DOG),
        (f"The instruction is: {DOG}", DOG),
        (f'The instruction should be: "{DOG}"', DOG),
        (f"**Instruction:** {DOG}", DOG),
        (f"**Instruction**: {DOG}", DOG),
        (f"### Instruction\n{DOG}", DOG),
        (f"Answer: {DOG}", DOG),
        (f"**{DOG}**", DOG),
        (f"`{DOG}`", DOG),
        (f"```text\n{DOG}\n```", DOG),
        (f"- {DOG}", DOG),
        ("Replace **the dog** with `a cat`.", DOG),
        ("Replace the dog\nwith a cat.", DOG),
        ("1. Remove the dog.\n2. Add a cat.", "Remove the dog. Add a cat."),
        ("Instruction 1: Remove.\nInstruction 2: Add.", "Instruction 1: Remove. Instruction 2: Add."),
        (f"Instruction: {DOG}\nInstruction: {DOG}", DOG),
        (f"Sure! Here's the instruction:\n\n{DOG}", DOG),
        (f"Sure, here you go:\n\n**Instruction:** {DOG}", DOG),
        (f"Here is a short instruction to find the target picture: {DOG}", DOG),
        (f"{DOG}\n\nExplanation: the source has a dog.", DOG),
        (f"{DOG}\n\nThis instruction names the difference.", DOG),
        (f"{DOG}\n(Note: both show an animal.)", DOG),
        (f"Instruction: {DOG}\n\nThe rest of the picture stays the same.", DOG),
        (f"Source sentence: a dog\nTarget sentence: a cat\nInstruction: {DOG}", DOG),
        (f"Source sentence: a dog\nTarget sentence: a cat\n\n{DOG}", DOG),
        (f"Source sentence: a dog\nInstruction: {DOG}\r\n\r\nThe source picture shows a dog.", DOG),
        (f"{DOG} The instruction should be as short as possible.", DOG),
        (f"<think>\nA dog, a cat.\n\nSo.\n</think>\n\n{DOG}", DOG),
        (f"A dog, a cat.</think>{DOG}", DOG),
        # Nothing to take off, though it looks so.
        ("The instruction is to replace the dog.", "The instruction is to replace the dog."),
        ("The instruction is to add a sign: STOP", "The instruction is to add a sign: STOP"),
        ("Change the following: dog to cat", "Change the following: dog to cat"),
        ("Make it say: I'm sorry", "Make it say: I'm sorry"),
        ("Answer the phone: the man picks it up", "Answer the phone: the man picks it up"),
        ("Note the cat", "Note the cat"),
        ("Sorry sight instead of a dog", "Sorry sight instead of a dog"),
        ("a cat", "a cat"),
        ("将狗换成猫", "将狗换成猫"),
        ("3", "3"),
    ],
)
def test_kept(answer: str, text: str) -> None:
    assert query_text(answer) == text
    assert query_text(text) == text  # reading it again takes nothing more off


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("", "empty answer"),
        (" \n\t", "empty answer"),
        ('""', "empty answer"),
        ("...", "empty answer"),
        ("```\n```", "empty answer"),
        ("<think>A dog.</think>", "empty answer"),
        ("I'm sorry, but I can't help with that.", "refused"),
        ("I’m sorry, I cannot see pictures.", "refused"),
        ("Sorry, I need more.", "refused"),
        ("As an AI language model, I cannot see pictures.", "refused"),
        ("Unfortunately, I can't do this.", "refused"),
        ("I cannot find a difference.\n\nPlease give me other sentences.", "refused"),
        ("Instruction: I'm unable to help.", "refused"),
        ("Both show an animal.\n\nOne is a dog.\n\nThe other one is a cat.", "no instruction"),
        ("The instruction should be as short as possible.", "no instruction"),
        ("Source sentence: a dog\nTarget sentence: a cat", "no instruction"),
        (
            "A source sentence: a dog. Target sentence: a cat.\nThe instruction should be as short as possible.",
            "no instruction",
        ),
        ("Instruction:", "no instruction"),
        ('Instruction: ""', "no instruction"),
        (prompt("a dog", "a cat"), "no instruction"),
        ("Explanation: the dog is gone.", "no instruction"),
        ("<think>A dog, a cat.", "no instruction"),
    ],
)
def test_not_kept(answer: str, reason: str) -> None:
    with pytest.raises(BadAnswer, match=rf"^{reason}$") as caught:
        query_text(answer)
    assert caught.value.reason == reason


@pytest.mark.parametrize("answer", [DOG, "", "I'm sorry, but"])
def test_a_cut_answer_is_no_instruction(answer: str) -> None:
    with pytest.raises(BadAnswer, match=r"^answer too long$"):
        query_text(answer, cut=True)


def test_a_long_odd_answer_is_read_quickly() -> None:
    # A regular expression that tries everything would take minutes here.
    for odd in ("instruction ", "the ", "short ", "\n", " ", "\n ", "> ", "```\n", "here is\n", '"'):
        for end in ("", "x", "\nx\n\nx"):
            with suppress(BadAnswer):
                query_text("x" + odd * 10_000 + end)
                query_text(odd * 10_000 + end)
