"""Functions of one tensor, element by element."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType

import torch
from torch import Tensor

from mothkit_converters.ops.call import operator
from mothkit_converters.ops.unsigned import WIDE


def _abs(x: Tensor) -> Tensor:
    return x if x.dtype in WIDE else torch.abs(x)


def _sign(x: Tensor) -> Tensor:
    if x.dtype in WIDE:
        return (x != 0).to(x.dtype)
    return torch.where(x == x, torch.sign(x), x)  # what is no number stays none


def _erf(x: Tensor) -> Tensor:
    return torch.erf(x).to(x.dtype)  # of integers too before version 13


_FUNCTIONS: Mapping[str, tuple[Callable[[Tensor], Tensor], Sequence[int]]] = MappingProxyType(
    {
        "Abs": (_abs, (1, 6, 13)),
        "Acos": (torch.acos, (7, 22)),
        "Acosh": (torch.acosh, (9, 22)),
        "Asin": (torch.asin, (7, 22)),
        "Asinh": (torch.asinh, (9, 22)),
        "Atan": (torch.atan, (7, 22)),
        "Atanh": (torch.atanh, (9, 22)),
        "Ceil": (torch.ceil, (1, 6, 13)),
        "Cos": (torch.cos, (7, 22)),
        "Cosh": (torch.cosh, (9, 22)),
        "Erf": (_erf, (9, 13)),
        "Exp": (torch.exp, (1, 6, 13)),
        "Floor": (torch.floor, (1, 6, 13)),
        "Log": (torch.log, (1, 6, 13)),
        "Neg": (torch.neg, (1, 6, 13)),
        "Reciprocal": (torch.reciprocal, (1, 6, 13)),
        "Relu": (torch.relu, (1, 6, 13, 14)),
        "Round": (torch.round, (11, 22)),
        "Sigmoid": (torch.sigmoid, (1, 6, 13)),
        "Sign": (_sign, (9, 13)),
        "Sin": (torch.sin, (7, 22)),
        "Sinh": (torch.sinh, (9, 22)),
        "Softplus": (torch.nn.functional.softplus, (1, 22)),
        "Softsign": (torch.nn.functional.softsign, (1, 22)),
        "Sqrt": (torch.sqrt, (1, 6, 13)),
        "Tan": (torch.tan, (7, 22)),
        "Tanh": (torch.tanh, (1, 6, 13)),
    }
)


def _apply(
    function: Callable[[Tensor], Tensor],
    x: Tensor,
    *,
    consumed_inputs: Sequence[int] | None = None,  # noqa: ARG001 - says nothing of values
) -> Tensor:
    return function(x)


for _op, (_function, _versions) in _FUNCTIONS.items():
    operator(_op, *_versions)(partial(_apply, _function))
