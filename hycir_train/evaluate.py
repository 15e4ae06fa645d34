"""`evaluate`: a model, or a baseline, on a benchmark. Top to bottom: which images are there, their features, the
composed queries, rankings, figures, and what the figures are of."""

import json
import shlex
from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
import torch

from hycir_train import submission
from hycir_train.benchmarks.benchmark import Benchmark
from hycir_train.benchmarks.images import find, whole
from hycir_train.benchmarks.sizes import other
from hycir_train.evaluation import parts
from hycir_train.evaluation.gallery import Features, Gallery, features
from hycir_train.evaluation.methods import Method, method, of_queries, unit
from hycir_train.evaluation.part import Part
from hycir_train.evaluation.ranking import rank
from hycir_train.evaluation.result import Result
from hycir_train.evaluation.settings import PAD, Settings, check
from hycir_train.evaluation.show import markdown, show
from hycir_train.figures import Figures, figures
from hycir_train.pictures import build
from hycir_train.pictures.plot import Point, only, points
from syncir_ray import record, storage
from syncir_ray.errors import UserError


def evaluate(settings: Settings, again: Sequence[str]) -> None:
    """Print figures, and write result.json, result.md, rankings and pictures where `out` says so.

    Args:
        again: the command line itself, for the result and for going on where features are not finished.

    Raises:
        UserError: what does not go together or is not there; images are missing and that was not allowed.
        SystemExit: the features failed, which has been told.
    """
    check(settings)
    benchmarks, folder = parts.load(settings)
    if not settings.out and (closed := [of.title for of in benchmarks if not of.public]):
        raise UserError(f"--out is missing: {closed[0]} is scored by its server, which wants a file of rankings")
    images = [find(of, folder, settings.partial_gallery) for of in benchmarks]
    how = method(settings, torch.get_num_threads())
    pad = PAD if settings.preprocessing == "padded" else 0.0
    known = features(images, folder, how.encoder, how.revision, pad, settings.cache, settings.pool, again)
    found = tuple(
        _part(settings, how, of, known.of(there), known, folder)
        for of, there in zip(benchmarks, images, strict=True)
    )
    result = Result(
        settings,
        settings.baseline or settings.model.rstrip("/").rpartition("/")[2],
        {**how.about, "encoder": how.encoder, "encoder_revision": how.revision},
        found,
        shlex.join(again),
        record.packages(),
        datetime.now(UTC).isoformat(timespec="seconds"),
    )
    show(result)
    if settings.out:
        _write(result)
    if settings.json:
        print(json.dumps(result.figures))


def _part(
    settings: Settings, how: Method, benchmark: Benchmark, gallery: Gallery, known: Features, folder: str
) -> Part:
    try:
        whole(gallery.images, folder, settings.partial_gallery)
    except UserError as error:
        raise UserError(f"{error}; `python -m hycir_train status {known.place}` says why") from None
    asked, left_out = parts.answerable(benchmark, gallery.images)
    places = {name: place for place, name in enumerate(gallery.names)}
    references = gallery.features[[places[query.reference] for query in asked.queries]]
    composed = of_queries(how, references, asked.queries, settings.shared_concept)
    rankings = rank(asked, gallery.names, unit(gallery.features.astype(np.float32)), composed)
    scored: Figures = {}
    if benchmark.public:
        scored = figures(asked, rankings.whole)
        if rankings.subset:
            scored |= figures(asked, rankings.subset, "recall_subset")
    lengths = [
        max(how.tokens(text, query.shared_concept if settings.shared_concept else "") for text in query.texts)
        for query in asked.queries
    ]
    return Part(
        asked,
        gallery.images,
        rankings,
        scored,
        other(benchmark),
        left_out,
        sum(length > how.context for length in lengths),
        parts.version(benchmark),
        known.content,
        known.place,
    )


def _write(result: Result) -> None:
    """The files of a result, below its `out`."""
    out = storage.absolute(result.settings.out)
    for part in result.parts:
        name = part.benchmark.title.replace(" ", "-") + ("-partial" if part.images.missing else "")
        rankings = {"recall": part.rankings.whole, "recall_subset": part.rankings.subset}
        for metric, ranked in rankings.items():
            if ranked:
                of_metric = f"-{metric}" if part.rankings.subset else ""
                place = storage.join(out, f"{name}{of_metric}.json")
                submission.write(place, part.benchmark, ranked, metric)  # type: ignore[arg-type]
                print(f"rankings  {place}")
    shown = [part for part in result.parts if part.benchmark.world == "" or part.benchmark.name == "circo"]
    ranked_parts = [build.Ranked(p.benchmark, p.rankings.whole, p.images, p.figures) for p in shown]
    page = storage.join(out, "pictures.html")
    print(f"pictures  {build.write(ranked_parts, page, f'{result.label} on {result.title}', _curves(result))}")
    storage.write(storage.join(out, "result.md"), markdown(result).encode())
    document = storage.join(out, "result.json")
    storage.write(document, (json.dumps(result.document(), indent=1) + "\n").encode())
    print(f"result    {document}")


def _curves(result: Result) -> dict[str, list[Point]]:
    """What the model reached on held-out triplets while it was trained, if its folder has the log."""
    if not result.settings.model:
        return {}
    try:
        log = storage.read(storage.join(storage.absolute(result.settings.model), "log.jsonl")).decode()
    except FileNotFoundError:
        return {}
    found = only(points(json.loads(line) for line in log.splitlines()), "R@")
    return {"Held-out triplets while training, %": found} if found else {}
