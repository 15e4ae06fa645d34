"""The triplets as JSON lines in the manner of CIRR's caption files (cap.rc2.*.json, one entry a line)."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from syncir_ray import record, schemas, storage
from syncir_ray.run import Run
from syncir_ray.stages.pairs import TAKEN


def export(root: str, to: str = "") -> tuple[str, int]:
    """Write every kept triplet of a finished run to `to` (default: in the run); the address and the number.

    An entry: pairid, reference, target_hard, target_soft, caption (the query text), img_set (the group: its seed's
    image id, its six members by rank, the ranks of reference and target), and beside CIRR's fields
    reference_caption, target_caption and similarity. Images are named by their uri, relative to the manifest's
    root.

    Raises:
        UserError: there is no run, or it is not finished.
    """
    run = Run(root)
    record.need(run)
    seal = run.need("triplets")
    uris = run.read_all("manifest", ["uri"])["uri"].combine_chunks()
    members = _members(run)
    pairs = run.read_all("pairs").combine_chunks()
    to = storage.absolute(to) if to else run.at("export", "triplets.jsonl")
    lines = 0
    # through a file: the lines of ten million triplets are gigabytes
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "triplets.jsonl")
        with path.open("w", encoding="utf-8", newline="\n") as out:
            for table in run.tables("triplets", seal.units):
                kept = table.filter(pc.equal(table["status"], schemas.DONE))
                for entry in _entries(kept, pairs.take(kept["pair_id"]), members, uris):
                    out.write(json.dumps(entry, ensure_ascii=False) + "\n")
                    lines += 1
        storage.upload(path, to)
    return to, lines


def _members(run: Run) -> np.ndarray:
    """By image id, ranks 1 to 5 of the group that it seeds, (images, 5) uint64; zeros where it seeds none."""
    members = np.zeros((run.need("groups").rows, TAKEN), np.uint64)
    for table in run.tables("groups", run.need("groups").units, ["image_id", "members"]):
        column = table["members"].combine_chunks()
        ids = table["image_id"].filter(column.is_valid()).to_numpy()
        members[ids] = column.flatten().to_numpy().reshape(-1, TAKEN)  # the rows that have members
    return members


def _entries(kept: pa.Table, pairs: pa.Table, members: np.ndarray, uris: pa.Array) -> Iterator[dict]:
    """An entry for each triplet and its row of the pair table."""
    seeds = pairs["seed_id"].to_numpy()
    six = np.concatenate([seeds[:, None], members[seeds]], axis=1)
    names = uris.take(pa.array(six.reshape(-1))).to_pylist()
    for i, (row, pair) in enumerate(zip(kept.to_pylist(), pairs.to_pylist(), strict=True)):
        yield {
            "pairid": row["pair_id"],
            "reference": row["reference_uri"],
            "target_hard": row["target_uri"],
            "target_soft": {row["target_uri"]: 1.0},
            "caption": row["query_text"],
            "img_set": {
                "id": pair["seed_id"],
                "members": names[6 * i : 6 * i + 6],
                "reference_rank": pair["reference_rank"],
                "target_rank": pair["target_rank"],
            },
            "reference_caption": row["reference_caption"],
            "target_caption": row["target_caption"],
            "similarity": round(row["similarity"], 6),
        }
