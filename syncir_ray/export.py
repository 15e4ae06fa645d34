"""The triplets as JSON lines in the manner of CIRR's caption files (cap.rc2.*.json, one entry a line)."""

import io
import json

import numpy as np

from syncir_ray import record, schemas, storage
from syncir_ray.run import Run
from syncir_ray.stages.pairs import TAKEN


def export(root: str, to: str = "") -> tuple[str, int]:
    """Write every kept triplet of a finished run to `to` (default: in the run); the address and the number.

    An entry: pairid, reference, target_hard, target_soft, caption (the query text), img_set (the group: its seed's
    image id, its six members, the ranks of reference and target), and beside CIRR's fields reference_caption,
    target_caption and similarity. Images are named by their uri, relative to the manifest's root.

    Raises:
        UserError: there is no run, or it is not finished.
    """
    run = Run(root)
    record.need(run)
    seal = run.need("triplets")
    uris = run.read_all("manifest", ["uri"])["uri"].combine_chunks()
    groups = run.read_all("groups", ["members"])["members"].combine_chunks()
    members = groups.values.to_numpy(zero_copy_only=False).reshape(-1, TAKEN)
    pairs = run.read_all("pairs")
    to = to or run.at("export", "triplets.jsonl")
    lines, out = 0, io.StringIO()
    for table in run.tables("triplets", seal.units):
        rows = [row for row in table.to_pylist() if row["status"] == schemas.DONE]
        about = pairs.take(np.asarray([row["pair_id"] for row in rows], np.uint64)).to_pylist()
        for row, pair in zip(rows, about, strict=True):
            six = [pair["seed_id"], *members[pair["seed_id"]].tolist()]
            entry = {
                "pairid": row["pair_id"],
                "reference": row["reference_uri"],
                "target_hard": row["target_uri"],
                "target_soft": {row["target_uri"]: 1.0},
                "caption": row["query_text"],
                "img_set": {
                    "id": pair["seed_id"],
                    "members": [uris[i].as_py() for i in six],
                    "reference_rank": pair["reference_rank"],
                    "target_rank": pair["target_rank"],
                },
                "reference_caption": row["reference_caption"],
                "target_caption": row["target_caption"],
                "similarity": round(row["similarity"], 6),
            }
            out.write(json.dumps(entry, ensure_ascii=False) + "\n")
            lines += 1
    storage.write(to, out.getvalue().encode())
    return to, lines
