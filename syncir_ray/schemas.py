"""Every table of a run, its Arrow schema and its version, in one place.

`image_id` and `pair_id` are row numbers of the sealed manifest and of the sealed pair table. Tables that
account for their input carry `status` (done, filtered, failed), `reason` (a short phrase, counted in the
ledger) and `detail` (what the error said, at most 200 characters); both are null where status is done.
"""

import pyarrow as pa

VERSION = 1

DONE, FILTERED, FAILED = "done", "filtered", "failed"
DETAIL = 200  # characters: enough for an error, too little to carry a file

ACCOUNT = [
    pa.field("status", pa.string(), nullable=False),
    pa.field("reason", pa.string()),
    pa.field("detail", pa.string()),
]

MANIFEST = pa.schema(
    [
        pa.field("image_id", pa.uint64(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),  # relative to the source's root; a tar member: tar/member
        pa.field("object", pa.string(), nullable=False),  # the file to read, relative to the root
        pa.field("offset", pa.int64()),  # bytes into the object; null: the whole object
        pa.field("length", pa.int64()),  # bytes
        pa.field("caption", pa.string()),  # the source's own, where it has one
    ]
)


def features(width: int) -> pa.Schema:
    """L2-normalised features of `width` numbers; null where not done."""
    feature = pa.field("feature", pa.list_(pa.float16(), width))
    return pa.schema([pa.field("image_id", pa.uint64(), nullable=False), feature, *ACCOUNT])


GROUPS = pa.schema(
    [
        pa.field("image_id", pa.uint64(), nullable=False),  # the seed, rank 0 of its group
        pa.field("members", pa.list_(pa.uint64(), 5)),  # ranks 1 to 5
        pa.field("similarities", pa.list_(pa.float32(), 5)),  # cosine to the seed
        *ACCOUNT,
    ]
)

PAIRS = pa.schema(
    [
        pa.field("pair_id", pa.uint64(), nullable=False),
        pa.field("reference_id", pa.uint64(), nullable=False),
        pa.field("target_id", pa.uint64(), nullable=False),
        pa.field("seed_id", pa.uint64(), nullable=False),  # the group the pair is from
        pa.field("reference_rank", pa.uint8(), nullable=False),  # 0 (the seed) to 5
        pa.field("target_rank", pa.uint8(), nullable=False),
    ]
)

CAPTIONS = pa.schema(
    [pa.field("image_id", pa.uint64(), nullable=False), pa.field("caption", pa.string()), *ACCOUNT]
)

# Pairs with their captions in the order of their prompt: pairs with the same two captions share a prompt_id, stand
# side by side and are asked once. Pairs that need no asking have none, come last and are accounted for already.
PROMPTS = pa.schema(
    [
        pa.field("prompt_id", pa.uint64()),
        pa.field("pair_id", pa.uint64(), nullable=False),
        pa.field("reference_id", pa.uint64(), nullable=False),
        pa.field("target_id", pa.uint64(), nullable=False),
        pa.field("reference_uri", pa.string(), nullable=False),
        pa.field("target_uri", pa.string(), nullable=False),
        pa.field("reference_caption", pa.string()),
        pa.field("target_caption", pa.string()),
        pa.field("query_text", pa.string()),
        *ACCOUNT,
    ]
)
QUERIES = PROMPTS

TRIPLETS = pa.schema(
    [
        *(f for f in PROMPTS if f.name != "prompt_id" and f not in ACCOUNT),
        pa.field("similarity", pa.float32()),  # cos(e_reference + e_query, e_target)
        *ACCOUNT,
    ]
)

# Rows of the source that got no image_id.
REJECTED = pa.schema(
    [
        pa.field("place", pa.string(), nullable=False),  # line or row of the table, file of the folder
        pa.field("uri", pa.string()),
        *ACCOUNT,
    ]
)
