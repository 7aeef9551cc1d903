"""Operators of onnxruntime's own that its optimiser leaves in files, in domain com.microsoft.

Shapes: N sequences, H heads, L queries, S keys, E numbers to a head, D numbers to a place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from mothkit_converters.errors import ConversionError
from mothkit_converters.ops.attention import join_heads, split_heads
from mothkit_converters.ops.call import operator
from mothkit_converters.ops.convolution import convolution
from mothkit_converters.ops.recurrent import FUNCTIONS

_DOMAIN = "com.microsoft"
_ACTIVATIONS: Mapping[str, Callable[..., Tensor]] = {**FUNCTIONS, "clip": torch.clamp, "": lambda x: x}
_PARAMETERS = {"clip": 2, "elu": 1, "hardsigmoid": 2, "leakyrelu": 1, "thresholdedrelu": 1}
_SERVED = frozenset({*_PARAMETERS, "", "relu", "sigmoid", "softplus", "softsign", "tanh"})


def _activation(attributes: Mapping[str, Any]) -> str:
    name = attributes.get("activation", "").lower()
    if name not in _SERVED:
        return f"its activation is '{name}'"
    needed, given = _PARAMETERS.get(name, 0), len(_parameters(**attributes))
    return "" if given == needed else f"its activation '{name}' has {given} parameters, expected {needed}"


def _parameters(
    *,
    activation_params: Sequence[float] = (),
    activation_alpha: float | None = None,
    activation_beta: float | None = None,
    **_: object,
) -> list[float]:
    """Return the parameters of an activation, as FusedConv or FusedGemm has them."""
    single = [number for number in (activation_alpha, activation_beta) if number is not None]
    return [*activation_params, *single]


@operator("FusedConv", 1, domain=_DOMAIN, check=_activation)
def fused_convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    summand: Tensor | None = None,
    *,
    activation: str = "",
    activation_params: Sequence[float] = (),
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] = (),
    group: int = 1,
    kernel_shape: Sequence[int] = (),
    pads: Sequence[int] = (),
    strides: Sequence[int] = (),
) -> Tensor:
    """Return the activation of a convolution plus ``summand``."""
    y = convolution(
        x,
        weight,
        bias,
        auto_pad=auto_pad,
        dilations=dilations,
        group=group,
        kernel_shape=kernel_shape,
        pads=pads,
        strides=strides,
    )
    return _ACTIVATIONS[activation.lower()](y if summand is None else y + summand, *activation_params)


@operator("FusedGemm", 1, domain=_DOMAIN, check=_activation)
def fused_gemm(
    a: Tensor,
    b: Tensor,
    c: Tensor | None = None,
    *,
    activation: str = "",
    activation_alpha: float | None = None,
    activation_beta: float | None = None,
    activation_gamma: float | None = None,  # noqa: ARG001 - none of those served has one
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,  # noqa: N803 - ONNX's name
    transB: int = 0,  # noqa: N803
) -> Tensor:
    """Return the activation of ``alpha`` x ``a`` [N, K] x ``b`` [K, M] + ``beta`` x ``c``."""
    product = alpha * ((a.T if transA else a) @ (b.T if transB else b))
    given = _parameters(activation_alpha=activation_alpha, activation_beta=activation_beta)
    return _ACTIVATIONS[activation.lower()](product if c is None else product + beta * c, *given)


@operator("FusedMatMul", 1, domain=_DOMAIN)
def fused_matmul(
    a: Tensor,
    b: Tensor,
    *,
    alpha: float = 1.0,
    transA: int = 0,  # noqa: N803 - ONNX's name
    transB: int = 0,  # noqa: N803
    transBatchA: int = 0,  # noqa: N803
    transBatchB: int = 0,  # noqa: N803
) -> Tensor:
    """Return ``alpha`` x ``a`` x ``b``, each turned before: its first axis put last but one, its last two swapped."""
    return alpha * (_turned(a, transBatchA, transA) @ _turned(b, transBatchB, transB))


def _turned(x: Tensor, batch: int, last: int) -> Tensor:
    x = x.movedim(0, -2) if batch and x.dim() > 2 else x
    return x.transpose(-1, -2) if last and x.dim() > 1 else x


@operator("Gelu", 1, domain=_DOMAIN)
def gelu(x: Tensor) -> Tensor:
    """Return the Gelu of ``x``."""
    return functional.gelu(x)


@operator("BiasGelu", 1, domain=_DOMAIN)
def bias_gelu(x: Tensor, bias: Tensor) -> Tensor:
    """Return the Gelu of ``x`` + ``bias``."""
    return functional.gelu(x + bias)


@operator("FastGelu", 1, domain=_DOMAIN)
def fast_gelu(x: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return the Gelu of ``x`` + ``bias``, by tanh."""
    return functional.gelu(x if bias is None else x + bias, approximate="tanh")


@operator("QuickGelu", 1, domain=_DOMAIN)
def quick_gelu(x: Tensor, *, alpha: float = 1.702) -> Tensor:
    """Return the Gelu of ``x``, by sigmoid."""
    return functional.silu(x) if alpha == 1 else x * torch.sigmoid(alpha * x)


@operator("LayerNormalization", 1, domain=_DOMAIN)
def layer_normalization(
    x: Tensor,
    scale: Tensor,
    bias: Tensor | None = None,
    *,
    outputs: int,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,  # noqa: ARG001 - the precision of what training keeps
) -> Any:  # noqa: ANN401 - a tensor, or a tuple of them
    """Return ``x`` normalised over the axes from ``axis`` on, its mean there, and one by its deviation."""
    y = functional.layer_norm(x, x.shape[axis:], scale, bias, epsilon)
    if outputs == 1:
        return y
    axes = tuple(range(axis % x.dim(), x.dim()))
    variance, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
    return (y, mean, (variance + epsilon).rsqrt())[:outputs]


@operator("SimplifiedLayerNormalization", 1, domain=_DOMAIN)
def root_mean_square_normalization(
    x: Tensor,
    scale: Tensor,
    *,
    outputs: int,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,  # noqa: ARG001 - the precision of what training keeps
) -> Any:  # noqa: ANN401 - a tensor, or a tuple of them
    """Return ``x`` by its root mean square over the axes from ``axis`` on, times ``scale``; then one by that root."""
    axes = tuple(range(axis % x.dim(), x.dim()))
    inverse = (x.square().mean(axes, keepdim=True) + epsilon).rsqrt()
    y = x * inverse * scale
    return y if outputs == 1 else (y, inverse)


@operator("SkipLayerNormalization", 1, domain=_DOMAIN)
def skip_layer_normalization(
    x: Tensor,
    skip: Tensor,
    scale: Tensor,
    shift: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    outputs: int,
    epsilon: float = 1e-12,
) -> Any:  # noqa: ANN401 - a tensor, or a tuple of them
    """Return the sum of ``x``, ``skip`` and ``bias`` normalised, mean and deviation as above, and the sum."""
    total = x + skip if bias is None else x + skip + bias
    if outputs == 1:
        return layer_normalization(total, scale, shift, outputs=1, epsilon=epsilon)
    return (*layer_normalization(total, scale, shift, outputs=3, epsilon=epsilon), total)[:outputs]


@operator("SkipSimplifiedLayerNormalization", 1, domain=_DOMAIN)
def skip_root_mean_square_normalization(
    x: Tensor,
    skip: Tensor,
    scale: Tensor,
    bias: Tensor | None = None,
    *,
    outputs: int,
    epsilon: float = 1e-12,
) -> Any:  # noqa: ANN401 - a tensor, or a tuple of them
    """Return the sum of ``x``, ``skip`` and ``bias`` by its root mean square, its mean, one by the root, the sum."""
    total = x + skip if bias is None else x + skip + bias
    y, inverse = root_mean_square_normalization(total, scale, outputs=2, epsilon=epsilon)
    return y if outputs == 1 else (y, total.mean(-1, keepdim=True), inverse, total)[:outputs]


@operator("EmbedLayerNormalization", 1, domain=_DOMAIN)
def embed_layer_normalization(
    words: Tensor,
    segments: Tensor | None,
    word_table: Tensor,
    place_table: Tensor,
    segment_table: Tensor | None,
    scale: Tensor,
    shift: Tensor,
    mask: Tensor | None = None,
    places: Tensor | None = None,
    *,
    outputs: int,
    epsilon: float = 1e-12,
    mask_index_type: int = 0,  # noqa: ARG001 - what the second output is for
) -> Any:  # noqa: ANN401 - a tensor, or a tuple of them
    """Return embeddings [N, L, D] summed and normalised, how many places [N] the mask leaves, and the sum.

    Words, segments, mask and places are [N, L]; each table has rows of D numbers.
    """
    places = torch.arange(words.shape[1], device=words.device)[None] if places is None else places
    total = word_table[words.long()] + place_table[places.long()]
    if segments is not None and segment_table is not None:
        total = total + segment_table[segments.long()]
    y = layer_normalization(total, scale, shift, outputs=1, epsilon=epsilon)
    left = words.new_zeros(len(words)) if mask is None else (mask == 1).sum(1)
    return y if outputs == 1 else (y, left.to(torch.int32), total)[:outputs]


def _not_served(attributes: Mapping[str, Any]) -> str:
    used = [name for name in ("do_rotary", "past_present_share_buffer") if attributes.get(name)]
    return f"its {used[0]} is set" if used else ""


@operator("Attention", 1, domain=_DOMAIN, check=_not_served)
def packed_attention(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    past: Tensor | None = None,
    added: Tensor | None = None,
    past_length: Tensor | None = None,  # noqa: ARG001 - goes with a shared buffer
    *,
    num_heads: int,
    outputs: int,
    do_rotary: int = 0,  # noqa: ARG001 - refused
    mask_filter_value: float = -10000.0,
    past_present_share_buffer: int = 0,  # noqa: ARG001 - refused
    qkv_hidden_sizes: Sequence[int] = (),
    rotary_embedding_dim: int = 0,  # noqa: ARG001 - goes with do_rotary
    scale: float | None = None,
    unidirectional: int = 0,
) -> Any:  # noqa: ANN401 - a tensor, or a tuple of them
    """Return self-attention over ``x`` [N, L, D], and keys and values [2, N, H, S, E].

    ``weight`` [D, 3D] and ``bias`` [3D] make queries, keys and values; ``past`` is [2, N, H, S - L, E].
    """
    packed = x @ weight if bias is None else x @ weight + bias
    parts = torch.split(packed, list(qkv_hidden_sizes) or [packed.shape[2] // 3] * 3, 2)
    q, k, v = (split_heads(part, num_heads) for part in parts)
    if past is not None:
        k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
    bias = _bias(q, k, mask, added, mask_filter_value, causal=bool(unidirectional))
    y = join_heads(functional.scaled_dot_product_attention(q, k, v, bias, scale=scale or None))
    return y if outputs == 1 else (y, torch.stack([k, v]))


@operator("MultiHeadAttention", 1, domain=_DOMAIN)
def multi_head_attention(
    q: Tensor,
    k: Tensor | None = None,
    v: Tensor | None = None,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    added: Tensor | None = None,
    past_key: Tensor | None = None,
    past_value: Tensor | None = None,
    *,
    num_heads: int,
    outputs: int,
    mask_filter_value: float = -10000.0,
    scale: float | None = None,
    unidirectional: int = 0,
) -> Any:  # noqa: ANN401 - a tensor, or a tuple of them
    """Return what ``q`` [N, L, D] finds among ``k`` and ``v`` [N, S, D], then all keys and values [N, H, S, E].

    Raises:
        ConversionError: Queries, keys and values come packed into one tensor.
    """
    if k is None or v is None or not q.dim() == k.dim() == v.dim() == 3:
        raise ConversionError("MultiHeadAttention is served for queries, keys and values of three axes alone")
    if bias is not None:
        parts = torch.split(bias, [q.shape[2], k.shape[2], v.shape[2]])
        q, k, v = (x + part for x, part in zip((q, k, v), parts, strict=True))
    q, k, v = (split_heads(x, num_heads) for x in (q, k, v))
    k = k if past_key is None else torch.cat([past_key, k], 2)
    v = v if past_value is None else torch.cat([past_value, v], 2)
    total = _bias(q, k, mask, added, mask_filter_value, causal=bool(unidirectional))
    y = join_heads(functional.scaled_dot_product_attention(q, k, v, total, scale=scale or None))
    return y if outputs == 1 else (y, k, v)[:outputs]


def _bias(
    q: Tensor, k: Tensor, mask: Tensor | None, added: Tensor | None, filtered: float, *, causal: bool
) -> Tensor | None:
    """Return what is added to the scores, [N or 1, H or 1, L, S]; None for nothing."""
    bias = added
    if mask is not None:
        hidden = filtered * (_seen(mask, q, k) <= 0).to(q.dtype)
        bias = hidden if bias is None else bias + hidden
    if causal:
        count, length = q.shape[2], k.shape[2]
        after = torch.ones(count, length, dtype=torch.bool, device=q.device).triu(length - count + 1)
        later = torch.zeros(count, length, dtype=q.dtype, device=q.device).masked_fill(after, -math.inf)
        bias = later if bias is None else bias + later
    return bias


def _seen(mask: Tensor, q: Tensor, k: Tensor) -> Tensor:
    """Return a mask of any kind as [N, 1, L or 1, S], above 0 where a key is seen.

    It is [N] ends or [2N] ends and beginnings of what is seen, or per key [N, S], per query and key [N, L, S],
    or a square [N, 1, T, T] that the queries are the last rows of.
    """
    if mask.dim() == 1:
        places = torch.arange(k.shape[2], device=q.device)
        seen = places < mask[: len(q), None]
        seen = seen & (places >= mask[len(q) :, None]) if len(mask) > len(q) else seen
        return seen[:, None, None].to(torch.int32)
    if mask.dim() == 2:
        return mask[:, None, None]
    if mask.dim() == 3:
        return mask[:, None]
    return mask[:, :, k.shape[2] - q.shape[2] : k.shape[2], : k.shape[2]]
