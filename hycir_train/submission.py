"""Files of rankings in the form that the official servers take: read, checked, written.

CIRR       {"version": "rc2", "metric": "recall", "<pairid>": [50 names]} and
           {"version": "rc2", "metric": "recall_subset", "<pairid>": [3 names]}; cirr.cecs.anu.edu.au
CIRCO      {"<query id>": [50 image ids]}; circo.micc.unifi.it
FashionIQ  {"<index of the query in the caption file>": [at least 50 names]}; there is no server and no official
           form

What a server would reject, or would take and score wrongly, is refused here, with the query and the reason.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hycir_train.benchmarks import circo
from hycir_train.benchmarks.benchmark import Benchmark, Metric, Query
from syncir_ray import storage
from syncir_ray.errors import UserError

HEADER = ("version", "metric")  # CIRR's two entries that are no query
VERSION = "rc2"
LENGTH = {"recall": 50, "recall_subset": 3}
CIRR_BYTES = 5 * 2**20  # "Maximum 5MB" (Test-split_server.md)
SHOWN = 3  # of the queries that are too many or too few, in a message
SUFFIXES = (".png", ".jpg", ".jpeg")


@dataclass(frozen=True)
class Submission:
    """What one file holds, checked."""

    metric: Metric
    """CIRR's word; the others have files of `recall` only."""
    rankings: dict[str, tuple[str, ...]]
    """Image names by query id, in the benchmark's order of queries; best first."""


def read(uri: str, benchmark: Benchmark) -> Submission:
    """The rankings in a file for this benchmark.

    Raises:
        UserError: the file is not there, or not one that can be scored; the query and the reason.
    """
    try:
        data = storage.read(storage.absolute(uri))
    except FileNotFoundError:
        raise UserError(f"{uri}: there is no such file") from None
    _fits(data, benchmark, uri)
    try:
        document = json.loads(data.decode(), object_pairs_hook=lambda pairs: _unrepeated(pairs, uri))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{uri}: not JSON in UTF-8 ({error})") from None
    return checked(document, benchmark, uri)


def write(
    uri: str, benchmark: Benchmark, rankings: Mapping[str, Sequence[str]], metric: Metric = "recall"
) -> None:
    """Write rankings, image names by query id, as an official file, after the same checks as `read`'s.

    Raises:
        UserError: a server would reject the file. Nothing is written.
    """
    document: dict[str, Any] = {"version": VERSION, "metric": metric} if benchmark.name == "cirr" else {}
    for query, names in rankings.items():
        document[query] = [int(name) for name in names] if benchmark.name == "circo" else list(names)
    checked(document, benchmark, uri)
    data = json.dumps(document, separators=(",", ":")).encode()
    _fits(data, benchmark, uri)
    storage.write(storage.absolute(uri), data)


def checked(document: Any, benchmark: Benchmark, where: str) -> Submission:
    """The rankings of a parsed file; `where` is its name in messages.

    Raises:
        UserError: a server would reject it, or score it wrongly.
    """
    if not isinstance(document, dict):
        raise UserError(f"{where}: not a JSON object of rankings by query")
    metric = _metric(document, where) if benchmark.name == "cirr" else "recall"
    rankings = {key: value for key, value in document.items() if not (benchmark.name == "cirr" and key in HEADER)}
    ids = {query.id for query in benchmark.queries}
    if foreign := [key for key in rankings if key not in ids]:
        raise UserError(f"{where}: {_few(foreign)} not of {benchmark.title}; is the file for another split?")
    if missing := [query.id for query in benchmark.queries if query.id not in rankings]:
        raise UserError(f"{where}: {_few(missing)} missing; each query of {benchmark.title} needs a ranking")
    found = {}
    for query in benchmark.queries:
        names = rankings[query.id]
        if reason := _wrong(names, query, benchmark, metric):
            raise UserError(f"{where}: query {query.id}: {reason}")
        found[query.id] = tuple(str(name) for name in names)
    return Submission(metric, found)


def _metric(document: dict, where: str) -> Metric:
    """Which of CIRR's two files it is, from its two special entries."""
    for key, values in {"version": (VERSION,), "metric": tuple(LENGTH)}.items():
        wanted = " or ".join(f'"{value}"' for value in values)
        if key not in document:
            raise UserError(f'{where}: has no "{key}"; CIRR wants {wanted}')
        if document[key] not in values:
            raise UserError(f'{where}: "{key}" is {_shown(document[key])}; CIRR wants {wanted}')
    return document["metric"]


def _wrong(names: Any, query: Query, benchmark: Benchmark, metric: Metric) -> str:
    """What is wrong with one ranking; empty if nothing is."""
    kind, word = (int, "image id, a whole number") if benchmark.name == "circo" else (str, "image name, a string")
    if not isinstance(names, list):
        return f"{_shown(names)} is not a list"
    for name in names:
        if type(name) is not kind:  # isinstance would let True pass for a number
            return f"{_shown(name)} is no {word}"
    length, more = LENGTH[metric], benchmark.name == "fashioniq"  # where nobody limits them
    if len(names) < length or (len(names) > length and not more):
        return f"{len(names)} images; there have to be {'at least ' if more else ''}{length}"
    for place, name in enumerate(map(str, names)):
        if reason := _foreign(name, query, benchmark, metric):
            return f"{_shown(names[place])} at rank {place + 1} {reason}"
    if len(set(names)) != len(names):
        again = next(name for place, name in enumerate(names) if name in names[:place])
        return f"{_shown(again)} is there twice; each image may be there once"
    return ""


def _foreign(name: str, query: Query, benchmark: Benchmark, metric: Metric) -> str:
    """Why an image may not be in this query's ranking; empty if it may."""
    if not _in_gallery(name, benchmark):
        bare = name.rsplit(".", 1)[0]
        if name.lower().endswith(SUFFIXES) and _in_gallery(bare, benchmark):
            return f'has an extension; the name is "{bare}"'
        return f"is not in the gallery of {benchmark.title}"
    if benchmark.name == "cirr" and name == query.reference:
        return "is the reference; CIRR takes it out of the ranking"
    if metric == "recall_subset" and name not in query.members:
        return "is not one of the other five of the reference's group"
    return ""


def _in_gallery(name: str, benchmark: Benchmark) -> bool:
    if benchmark.gallery is None:  # CIRCO, without the list of its images
        return circo.FIRST_ID <= int(name) <= circo.LAST_ID
    return name in benchmark.gallery


def _fits(data: bytes, benchmark: Benchmark, where: str) -> None:
    """Refuse what CIRR's server would not take. Only test1 is sent there."""
    if benchmark.name == "cirr" and benchmark.split == "test1" and len(data) > CIRR_BYTES:
        raise UserError(
            f"{where}: {len(data):,} bytes; CIRR's server takes at most 5 MB: write it without indents"
        )


def _unrepeated(pairs: list[tuple[str, Any]], where: str) -> dict[str, Any]:
    """The object of these pairs. Parsers keep the last of two equal keys in silence."""
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        again = next(key for place, key in enumerate(keys) if key in keys[:place])
        raise UserError(f"{where}: the key {_shown(again)} is there twice")
    return found


def _few(ids: list[str]) -> str:
    """`query "7" is`, or `queries "7", "8", "9" and 12 more are`."""
    if len(ids) == 1:
        return f"query {_shown(ids[0])} is"
    more = f" and {len(ids) - SHOWN:,} more" if len(ids) > SHOWN else ""
    return f"queries {', '.join(map(_shown, ids[:SHOWN]))}{more} are"


def _shown(value: Any) -> str:
    """A value as it stands in the file, cut where it is long."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:59] + "…"
