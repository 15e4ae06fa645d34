"""`score`: figures of a file of rankings, whoever's model made it. No model, no images, no Ray."""

import json
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from hycir_train import submission
from hycir_train.benchmarks import circo
from hycir_train.benchmarks.benchmark import Benchmark
from hycir_train.figures import Figures, figures
from hycir_train.submission import Submission
from syncir_ray.errors import UserError


def score(benchmark: Benchmark, predictions: Sequence[str], as_json: bool) -> None:
    """Check files of rankings and print their figures as a table; with `as_json` also as one JSON object of
    percentages, on the last line (`figures.py` has its keys). A split without public ground truth is checked only,
    and its object is empty.

    Raises:
        UserError: a file is not one that the benchmark's server would take; the query and the reason.
    """
    submissions = read(benchmark, predictions)
    if benchmark.gallery is None:
        print(
            f"not checked: whether every image id between {circo.FIRST_ID} and {circo.LAST_ID} is one of COCO "
            f"unlabeled2017; {circo.IMAGE_INFO} is not beside the annotations"
        )
    found: Figures = {}
    if benchmark.public:
        for each in sorted(submissions, key=lambda each: each.metric):
            found |= figures(benchmark, each.rankings, each.metric)
        show(benchmark, found)
    else:
        print(f"{', '.join(predictions)}: nothing wrong; {benchmark.title} has no public ground truth to score by")
    if as_json:
        print(json.dumps(found))


def read(benchmark: Benchmark, predictions: Sequence[str]) -> list[Submission]:
    """The files, of CIRR at most one of each metric, in any order; of the others one.

    Raises:
        UserError: there is none or one too many, or one is not as it should be.
    """
    if not predictions:
        raise UserError("--predictions is missing: name a file of rankings")
    if benchmark.name != "cirr" and len(predictions) > 1:
        raise UserError(f"--predictions: {len(predictions)} files; {benchmark.title} has one file of rankings")
    files: dict[str, str] = {}
    submissions = []
    for uri in predictions:
        each = submission.read(uri, benchmark)
        if each.metric in files:
            raise UserError(f'--predictions: {files[each.metric]} and {uri} are both of metric "{each.metric}"')
        files[each.metric] = uri
        submissions.append(each)
    return submissions


def show(benchmark: Benchmark, found: Figures) -> None:
    """Print figures as a table."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(f"{benchmark.title}, {len(benchmark.queries):,} queries")
    table.add_column("%", justify="right")
    for name, figure in found.items():
        rows = {name: figure} if isinstance(figure, float) else {f"{name} {a}": f for a, f in figure.items()}
        for row, value in rows.items():
            table.add_row(row, f"{value:.2f}")
    Console(highlight=False).print(table)
