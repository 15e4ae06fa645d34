"""A causal text transformer of open_clip, run from its own weights, so that a prefix can be computed once.

Two savings over `transformer.forward`, both exact. What all texts begin with is seen by every later token but
sees none of them: its keys and values in each layer are constants (`remember`). And of the last layer only the
token that is read matters: its attention asks from there alone, and its MLP runs on one token a text.
"""

from collections.abc import Sequence

import torch
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor
from torch.nn.functional import linear, scaled_dot_product_attention

from hycir_train.encoders.interface import Past

Blocks = Sequence[ResidualAttentionBlock]


@torch.no_grad()
def remember(blocks: Blocks, states: Tensor) -> Past:
    """Keys and values, in every layer, of (1, p, width) token embeddings with their positions."""
    past, seen = [], _seen(states, 0)
    for block in blocks:
        normal = block.ln_1(states)
        keys, values = _keys_values(block, normal)
        past.append((keys, values))
        states = _finish(block, states, _attend(block, normal, keys, values, seen))
    return past


def encode(blocks: Blocks, states: Tensor, end: Tensor, past: Past | None) -> Tensor:
    """The last layer's output at the end tokens.

    Args:
        states: (b, l, width) token embeddings with their positions.
        end: (b,) position of each text's end token in `states`.
        past: what `remember` gave of the tokens before.

    Returns:
        (b, width), before the final norm.
    """
    seen = _seen(states, past[0][0].shape[2] if past else 0)
    texts = torch.arange(len(end), device=end.device)
    for layer, block in enumerate(blocks):
        normal = block.ln_1(states)
        keys, values = _keys_values(block, normal)
        if past:
            before, meant = past[layer]
            keys = torch.cat([before.expand(len(end), -1, -1, -1), keys], 2)
            values = torch.cat([meant.expand(len(end), -1, -1, -1), values], 2)
        if layer == len(blocks) - 1:  # one query a text from here on: (b, 1, width)
            states, normal, seen = states[texts, end, None], normal[texts, end, None], seen[end, None, None]
        states = _finish(block, states, _attend(block, normal, keys, values, seen))
    return states[:, 0]


def _seen(states: Tensor, before: int) -> Tensor:
    """(l, before + l): which tokens each of the l tokens sees: itself, and all before it."""
    length = states.shape[1]
    return torch.ones(length, before + length, dtype=torch.bool, device=states.device).tril(before)


def _keys_values(block: ResidualAttentionBlock, normal: Tensor) -> tuple[Tensor, Tensor]:
    """(b, l, width) -> twice (b, heads, l, width of a head)."""
    width, heads = block.attn.embed_dim, block.attn.num_heads
    both = linear(normal, block.attn.in_proj_weight[width:], block.attn.in_proj_bias[width:])
    keys, values = both.unflatten(-1, (2 * heads, -1)).transpose(1, 2).chunk(2, 1)
    return keys, values


def _attend(block: ResidualAttentionBlock, normal: Tensor, keys: Tensor, values: Tensor, seen: Tensor) -> Tensor:
    """(b, q, width) -> (b, q, width), each of the q tokens asking those it has `seen`."""
    width, heads = block.attn.embed_dim, block.attn.num_heads
    queries = linear(normal, block.attn.in_proj_weight[:width], block.attn.in_proj_bias[:width])
    queries = queries.unflatten(-1, (heads, -1)).transpose(1, 2)
    found = scaled_dot_product_attention(queries, keys, values, attn_mask=seen)
    return block.attn.out_proj(found.transpose(1, 2).flatten(2))


def _finish(block: ResidualAttentionBlock, states: Tensor, attended: Tensor) -> Tensor:
    """The rest of the block, as ResidualAttentionBlock.forward has it."""
    states = states + block.ls_1(attended)
    return states + block.ls_2(block.mlp(block.ln_2(states)))
