"""The tables of this package, their Arrow schemas and their version, in one place (syncir_ray has its own)."""

import pyarrow as pa

from syncir_ray.schemas import ACCOUNT

VERSION = 1


def embeddings(width: int) -> pa.Schema:
    """Image features of a frozen encoder, `width` numbers, not normalised: what the mapping network takes. Null
    where not done."""
    embedding = pa.field("embedding", pa.list_(pa.float16(), width))
    return pa.schema([pa.field("image_id", pa.uint64(), nullable=False), embedding, *ACCOUNT])
