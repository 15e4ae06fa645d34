"""What would mislead if it were not said: a sentence each, wherever the figures stand."""

from collections.abc import Iterator, Mapping
from typing import Any

from hycir_train.evaluation.part import Part, cited
from hycir_train.evaluation.ranking import CLOSE
from hycir_train.evaluation.settings import PAD, Settings


def of_part(part: Part) -> Iterator[str]:
    """Of one benchmark: what of it was not there, or is not what its name says."""
    of = part.benchmark
    if part.images.partial:
        yield f"{of.title}: PARTIAL, compares with nobody's: {part.images.partial}"
    if part.left_out:
        out, total = len(part.left_out), len(part.left_out) + len(of.queries)
        yield f"{of.title}: {out:,} of {total:,} queries name a missing image and are left out"
    if part.cut:
        yield f"{of.title}: {part.cut:,} query texts are longer than the encoder's context and were cut"
    if part.rankings.close:
        yield (
            f"{of.title}: of {part.rankings.close:,} queries another image is within {CLOSE:g} of a right answer; "
            "equal ones stand in the gallery's order, others may change places on another machine"
        )
    if of.world:
        yield f"{of.title}: rendered scenes in the form of {of.name.upper()}, not its photographs"
    elif part.other:
        yield f"{of.title}: not the official split, compares with nobody's: {part.other}"
    elif not of.public:
        yield f"{of.title}: its right answers are not public; the server gives the figures"
    elif cited(part)[1]:
        yield f"{of.title}: the paper has figures of the test split only, which has other queries"


def of_method(settings: Settings, about: Mapping[str, Any]) -> Iterator[str]:
    """Of how it was done: what differs from how models are trained here, or from most published figures."""
    now, then = about.get("encoder_revision"), about.get("trained_with")
    if then and now != then:
        yield (
            f"the encoder is {now}, the model was trained with {then}: another one, or the same in a storage of "
            "another kind"
        )
    if settings.model and settings.prompt != "pic2word":
        yield f"prompt {settings.prompt}: models are trained with pic2word's here"
    if settings.preprocessing == "padded":
        yield f"pictures padded to {PAD:g} : 1, the reference images too; models are trained without that here"
    if settings.gallery == "union":
        yield "gallery union: fewer images than the original split has, so figures are higher"
    if settings.both_orders:
        yield "both orders of the two captions are averaged; most published figures take one"
    if settings.shared_concept:
        yield "the shared concept is in the prompt, which most published figures leave out"
