"""Attention and RotaryEmbedding. Shapes: N sequences, H heads, L queries, S keys, E numbers to a head."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from mothkit_converters.ops.call import operator

_PRECISIONS = {1: torch.float32, 10: torch.float16, 11: torch.float64, 16: torch.bfloat16}
_BEFORE_CAP, _BEFORE_BIAS, _BEFORE_SOFTMAX = range(3)  # what the fourth output shows, else probabilities


def _check(attributes: Mapping[str, Any]) -> str:
    precision = attributes.get("softmax_precision", 1)
    return "" if precision in _PRECISIONS else f"its softmax_precision is {precision}"


@operator("Attention", 23, 24, 25, check=_check)
def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attn_mask: Tensor | None = None,
    past_key: Tensor | None = None,
    past_value: Tensor | None = None,
    nonpad_kv_seqlen: Tensor | None = None,
    *,
    outputs: int,
    is_causal: int = 0,
    kv_num_heads: int | None = None,
    left_window_size: int = -1,
    q_num_heads: int | None = None,
    qk_matmul_output_mode: int = _BEFORE_CAP,
    right_window_size: int = -1,
    scale: float | None = None,
    softcap: float = 0.0,
    softmax_precision: int | None = None,
) -> Any:  # noqa: ANN401 - a tensor, or a tuple of them
    """Return what queries find, all keys and values [N, H, S, E], and scores or shares [N, H, L, S].

    Queries, keys and values are [N, H, L or S, E] or [N, L or S, H*E], and so is what is found.
    """
    flat = q.dim() == 3
    if flat:
        q, k, v = split_heads(q, q_num_heads), split_heads(k, kv_num_heads), split_heads(v, kv_num_heads)
    before = 0 if past_key is None else past_key.shape[2]
    k = k if past_key is None else torch.cat([past_key, k], 2)
    v = v if past_value is None else torch.cat([past_value, v], 2)
    windows = (left_window_size, 0 if is_causal else right_window_size)
    allowed = _allowed(q, k, windows, before, nonpad_kv_seqlen)
    mask = _combined(_padded(attn_mask, q, k), allowed)
    keys, values = _spread(k, q), _spread(v.to(q.dtype), q)
    precision = _PRECISIONS.get(softmax_precision or 0, q.dtype)
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    if outputs < 4 and not softcap and precision == q.dtype:
        y, shown = functional.scaled_dot_product_attention(q, keys, values, mask, scale=scale), None
    else:
        stages = _shares(q, keys, mask, scale, softcap, precision)
        y, shown = stages[-1] @ values, stages[qk_matmul_output_mode]
    y = join_heads(y) if flat else y
    return y if outputs == 1 else (y, k, v, shown)[:outputs]


def split_heads(x: Tensor, heads: int | None) -> Tensor:
    """Return ``x`` [N, L, H*E] as [N, H, L, E]."""
    count = heads or 1
    return x.reshape(*x.shape[:2], count, x.shape[2] // count).transpose(1, 2)


def join_heads(x: Tensor) -> Tensor:
    """Return ``x`` [N, H, L, E] as [N, L, H*E]."""
    return x.transpose(1, 2).flatten(2)


def _spread(x: Tensor, q: Tensor) -> Tensor:
    """Return ``x`` [N, H, S, E] with each head as often as there are queries' heads to it."""
    repeats = q.shape[1] // x.shape[1]
    return x.repeat_interleave(repeats, 1) if repeats > 1 else x


def _padded(mask: Tensor | None, q: Tensor, k: Tensor) -> Tensor | None:
    """Return ``mask`` [..., S], of bool or of the queries' dtype; keys that it does not reach are left out."""
    if mask is None:
        return None
    mask = mask if mask.dtype == torch.bool else mask.to(q.dtype)
    missing = k.shape[2] - mask.shape[-1]
    if missing > 0:
        mask = functional.pad(mask, (0, missing), value=0 if mask.dtype == torch.bool else -math.inf)
    return mask if mask.dim() > 1 else mask[None]


def _allowed(
    q: Tensor, k: Tensor, windows: tuple[int, int], before: int, valid: Tensor | None
) -> Tensor | None:
    """Return which keys a query may look at, [L, S] or [N, 1, L, S]; None for all.

    Args:
        q: [N, H, L, E].
        k: [N, H, S, E].
        windows: How far a query looks to the left and to the right of its own place; all the way below 0.
        before: How many keys come before the first query's place.
        valid: How many of the keys [N] are not padding; the queries then are the last of these.
    """
    keys = torch.arange(k.shape[2], device=q.device)
    valid = None if valid is None else valid.reshape(-1, 1, 1, 1)
    places = torch.arange(q.shape[2], device=q.device)[:, None]
    places = places + (before if valid is None else valid - q.shape[2])
    left, right = windows
    rules = [keys >= places - left] if left >= 0 else []
    rules += [keys <= places + right] if right >= 0 else []
    rules += [keys < valid] if valid is not None else []
    allowed = rules[0] if rules else None
    for rule in rules[1:]:
        allowed = rule if allowed is None else allowed & rule
    return allowed


def _combined(mask: Tensor | None, allowed: Tensor | None) -> Tensor | None:
    if mask is None or allowed is None:
        return allowed if mask is None else mask
    return mask & allowed if mask.dtype == torch.bool else mask.masked_fill(~allowed, -math.inf)


def _shares(
    q: Tensor, k: Tensor, mask: Tensor | None, scale: float, softcap: float, precision: torch.dtype
) -> tuple[Tensor, ...]:
    """Return scores [N, H, L, S]: as they are, capped, and with the mask added; then the shares of the keys."""
    root = math.sqrt(scale)
    scores = (q * root) @ (k * root).transpose(2, 3)
    capped = softcap * torch.tanh(scores / softcap) if softcap else scores
    if mask is None:
        return scores, capped, capped, torch.softmax(capped, -1, dtype=precision).to(q.dtype)
    bias = (
        torch.zeros_like(mask, dtype=q.dtype).masked_fill(~mask, -math.inf)
        if mask.dtype == torch.bool
        else mask
    )
    biased = capped + bias
    blind = (bias == -math.inf).all(-1, keepdim=True)  # such a query finds nothing, which has no share
    shares = torch.softmax(biased.masked_fill(blind, 0), -1, dtype=precision).masked_fill(blind, 0)
    return scores, capped, biased, shares.to(q.dtype)


@operator("RotaryEmbedding", 23)
def rotary_embedding(
    x: Tensor,
    cosines: Tensor,
    sines: Tensor,
    position_ids: Tensor | None = None,
    *,
    interleaved: int = 0,
    num_heads: int = 0,
    rotary_embedding_dim: int = 0,
) -> Tensor:
    """Return ``x`` [N, H, L, E] or [N, L, H*E] turned by angles that depend on the place.

    ``cosines`` and ``sines`` are [N, L, R/2], or [places, R/2] where ``position_ids`` [N, L] names the places;
    the first R numbers of a head, by default all, are turned.
    """
    heads = split_heads(x, num_heads) if x.dim() == 3 else x
    count = rotary_embedding_dim or heads.shape[-1]
    turned, rest = heads[..., :count], heads[..., count:]
    if position_ids is not None:
        cosines, sines = cosines[position_ids], sines[position_ids]
    cosines, sines = cosines[:, None], sines[:, None]
    a, b = (turned[..., 0::2], turned[..., 1::2]) if interleaved else turned.chunk(2, -1)
    pair = (cosines * a - sines * b, sines * a + cosines * b)
    turned = torch.stack(pair, -1).flatten(-2) if interleaved else torch.cat(pair, -1)
    y = torch.cat([turned, rest], -1)
    return join_heads(y) if x.dim() == 3 else y
