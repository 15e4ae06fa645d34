"""One benchmark of an evaluation, with all that was found."""

from dataclasses import dataclass

from hycir_train.benchmarks.benchmark import Benchmark
from hycir_train.benchmarks.images import Images
from hycir_train.evaluation import paper
from hycir_train.evaluation.ranking import Rankings
from hycir_train.figures import Figures


@dataclass(frozen=True)
class Part:
    """One benchmark of an evaluation."""

    benchmark: Benchmark
    """Its queries that could be asked."""
    images: Images
    rankings: Rankings
    figures: Figures
    """{} where the right answers are not public."""
    other: str
    """How the annotations differ from the official split in numbers; empty: not at all."""
    left_out: tuple[str, ...]
    """Ids of the queries that name a missing image."""
    cut: int
    """Query texts that lost their end, as the prompt was longer than the encoder's context."""
    version: str
    """Of the annotations, by content."""
    content: str
    """Of the images, by names and sizes."""
    features: str
    """The `embed` directory of the gallery."""

    @property
    def key(self) -> str:
        """Its name beside the other parts of an evaluation."""
        return self.benchmark.category or self.benchmark.name


def cited(part: Part) -> tuple[tuple[paper.Row, ...], str]:
    """The paper's rows for it, and what they are of where that is another split; none of what is not official."""
    of = part.benchmark
    return ((), "") if of.world or part.other else paper.rows(of.name, of.split, of.category)
