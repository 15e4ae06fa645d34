"""A benchmark by its name, as the command line has it."""

from typing import Literal

from hycir_train.benchmarks import circo, cirr, fashioniq
from hycir_train.benchmarks.benchmark import Benchmark
from syncir_ray.errors import UserError

Name = Literal["cirr", "circo", "fashioniq"]


def load(name: Name, annotations: str, split: str, category: fashioniq.Category | None) -> Benchmark:
    """A split of a benchmark, read from its official files with the defaults of its own `load`.

    Raises:
        UserError: the files are not there or not whole, or there is no such split or category.
    """
    if name == "fashioniq":
        if category is None:
            raise UserError(f"--category is missing: FashionIQ has {', '.join(fashioniq.CATEGORIES)}")
        return fashioniq.load(annotations, category, split)
    if category is not None:
        raise UserError(f"--category {category}: only fashioniq has categories; leave it out for {name}")
    return cirr.load(annotations, split) if name == "cirr" else circo.load(annotations, split)
