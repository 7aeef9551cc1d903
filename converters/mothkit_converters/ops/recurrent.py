"""LSTM, GRU and RNN: torch's fused kernels where they mean the same, else step by step.

Shapes: T steps, N sequences, D directions, G gates, I inputs, H hidden numbers. Where a sequence is shorter
than T, its states stay, its outputs are zero, and one of length 0 ends in zeros, as in onnxruntime.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from mothkit_converters.ops.call import operator

Activation: TypeAlias = Callable[[Tensor], Tensor]
State: TypeAlias = "tuple[Tensor, ...]"  # hidden [N, H], and an LSTM's cell [N, H]
Step: TypeAlias = Callable[[Tensor, State], State]

_DIRECTIONS = MappingProxyType({"forward": 1, "reverse": 1, "bidirectional": 2})


FUNCTIONS: Mapping[str, Callable[..., Tensor]] = MappingProxyType(
    {
        "affine": lambda x, alpha, beta: alpha * x + beta,
        "elu": functional.elu,
        "hardsigmoid": lambda x, alpha, beta: (alpha * x + beta).clamp(0, 1),
        "leakyrelu": functional.leaky_relu,
        "relu": torch.relu,
        "scaledtanh": lambda x, alpha, beta: alpha * torch.tanh(beta * x),
        "sigmoid": torch.sigmoid,
        "softplus": functional.softplus,
        "softsign": functional.softsign,
        "tanh": torch.tanh,
        "thresholdedrelu": lambda x, alpha: torch.where(x >= alpha, x, 0),
    }
)
_DEFAULTS: Mapping[str, tuple[float | None, ...]] = MappingProxyType(
    {  # alpha, and beta; None where ONNX and onnxruntime do not agree on one
        "affine": (None, 0.0),
        "elu": (1.0,),
        "hardsigmoid": (0.2, 0.5),
        "leakyrelu": (0.01,),
        "scaledtanh": (None, None),
        "thresholdedrelu": (None,),
    }
)


def _parameters(
    names: Sequence[str], alphas: Sequence[float], betas: Sequence[float]
) -> list[tuple[float | None, ...]]:
    """Return alpha and beta of each activation: those that have one take the next of the list."""
    given = (iter(alphas), iter(betas))
    return [
        tuple(next(values, default) for values, default in zip(given, _DEFAULTS.get(name, ()), strict=False))
        for name in names
    ]


class _Make(Protocol):
    """Returns a step: its weights are ``r`` [G*H, H], ``bias`` [G*H] and ``p`` [3H].

    ``variant`` is ``input_forget`` or ``linear_before_reset``.
    """

    def __call__(
        self,
        r: Tensor,
        bias: Tensor | None,
        p: Tensor | None,
        functions: Sequence[Activation],
        *,
        variant: bool,
    ) -> Step: ...


def _lstm_step(
    r: Tensor, bias: Tensor | None, p: Tensor | None, functions: Sequence[Activation], *, variant: bool
) -> Step:
    f, g, h = functions
    to_input, to_output, to_forget = (0, 0, 0) if p is None else p.chunk(3)

    def step(x: Tensor, state: State) -> State:
        hidden, cell = state
        i, o, forget, new = (x + functional.linear(hidden, r, bias)).chunk(4, 1)
        i = f(i + to_input * cell)
        forget = 1 - i if variant else f(forget + to_forget * cell)
        cell = forget * cell + i * g(new)
        return f(o + to_output * cell) * h(cell), cell

    return step


def _gru_step(
    r: Tensor,
    bias: Tensor | None,
    p: Tensor | None,  # noqa: ARG001 - an LSTM's
    functions: Sequence[Activation],
    *,
    variant: bool,
) -> Step:
    f, g = functions
    size = r.shape[1]
    bias_gates, bias_new = (None, None) if bias is None else (bias[: 2 * size], bias[2 * size :])
    gates_of = partial(functional.linear, weight=r[: 2 * size], bias=bias_gates)
    again = partial(functional.linear, weight=r[2 * size :], bias=bias_new)

    def step(x: Tensor, state: State) -> State:
        (hidden,) = state
        update, reset = f(x[:, : 2 * size] + gates_of(hidden)).chunk(2, 1)
        past = reset * again(hidden) if variant else again(reset * hidden)
        return ((1 - update) * g(x[:, 2 * size :] + past) + update * hidden,)

    return step


def _rnn_step(
    r: Tensor,
    bias: Tensor | None,
    p: Tensor | None,  # noqa: ARG001 - an LSTM's
    functions: Sequence[Activation],
    *,
    variant: bool,  # noqa: ARG001 - there is none
) -> Step:
    (f,) = functions

    def step(x: Tensor, state: State) -> State:
        return (f(x + functional.linear(state[0], r, bias)),)

    return step


@dataclass(frozen=True, slots=True)
class Cell:
    """What sets LSTM, GRU and RNN apart.

    Attributes:
        usual: The activations of one direction, unless others are named.
        gates: Where ONNX has each of torch's gates.
        kernels: torch's own kernels, by the activations of one direction.
        step: Makes what is done at one step where no kernel serves.
        clipped: How many of a direction's activations have their input clipped; an LSTM's cell is not, as
            in onnxruntime.
        fused_variant: Which variant the kernels compute.
        states: How many states there are.
    """

    usual: Sequence[str]
    gates: Sequence[int]
    kernels: Mapping[tuple[str, ...], Callable[..., State]]
    step: _Make
    clipped: int
    fused_variant: bool = False
    states: int = 1


_LSTM = Cell(
    ("sigmoid", "tanh", "tanh"),
    (0, 2, 3, 1),
    {("sigmoid", "tanh", "tanh"): torch.lstm},
    _lstm_step,
    clipped=2,
    states=2,
)
_GRU = Cell(
    ("sigmoid", "tanh"), (1, 0, 2), {("sigmoid", "tanh"): torch.gru}, _gru_step, clipped=2, fused_variant=True
)
_RNN = Cell(("tanh",), (0,), {("tanh",): torch.rnn_tanh, ("relu",): torch.rnn_relu}, _rnn_step, clipped=1)


def _names(activations: Sequence[str] | None, usual: Sequence[str], directions: int) -> list[str]:
    """Return the activations of all directions, in lower case."""
    names = [name.lower() for name in activations or ()] or [*usual] * directions
    return names[: len(usual) * directions]


def _check(cell: Cell, attributes: Mapping[str, Any]) -> str:
    direction = attributes.get("direction", "forward")
    if direction not in _DIRECTIONS:
        return f"its direction is '{direction}'"
    directions = _DIRECTIONS[direction]
    names = _names(attributes.get("activations"), cell.usual, directions)
    if unknown := [name for name in names if name not in FUNCTIONS]:
        return f"there is no activation '{unknown[0]}'"
    if len(names) < (needed := len(cell.usual) * directions):
        return f"it names {len(names)} activations, expected {needed}"
    numbers = [attributes.get(f"activation_{name}", ()) for name in ("alpha", "beta")]
    for name, values in zip(names, _parameters(names, *numbers), strict=True):
        if None in values:
            return f"its activation '{name}' has no {'beta' if values[0] is not None else 'alpha'}"
    return ""


@operator("LSTM", 1, 7, 14, 22, check=partial(_check, _LSTM), cell=_LSTM)
@operator("GRU", 1, 3, 7, 14, 22, check=partial(_check, _GRU), cell=_GRU)
@operator("RNN", 1, 7, 14, 22, check=partial(_check, _RNN), cell=_RNN)
def recurrent(
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    sequence_lens: Tensor | None = None,
    initial_h: Tensor | None = None,
    initial_c: Tensor | None = None,
    p: Tensor | None = None,
    *,
    cell: Cell,
    outputs: int,
    activations: Sequence[str] | None = None,
    activation_alpha: Sequence[float] = (),
    activation_beta: Sequence[float] = (),
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,  # noqa: ARG001 - the weights have it
    input_forget: int = 0,
    linear_before_reset: int = 0,
    layout: int = 0,
    output_sequence: int = 0,  # noqa: ARG001 - whether Y may be left out
) -> Any:  # noqa: ANN401 - a tensor, or a tuple of them
    """Return all hidden states [T, D, N, H], the last [D, N, H], and an LSTM's last cells [D, N, H].

    ``x`` is [T, N, I], ``w`` [D, G*H, I], ``r`` [D, G*H, H], ``b`` [D, 2*G*H], ``sequence_lens`` [N], the
    initial states are [D, N, H], ``p`` [D, 3H]. In ``layout`` 1, N comes first in inputs, states and results.
    """
    x, states = _arranged(x, (initial_h, initial_c)[: cell.states], r, layout)
    names, count = _names(activations, cell.usual, len(w)), len(cell.usual)
    variant = bool(input_forget or linear_before_reset)
    kernel = cell.kernels.get(tuple(names[:count])) if names == names[:count] * len(w) else None
    special = sequence_lens is not None or p is not None or clip is not None
    if kernel is not None and not special and variant == cell.fused_variant:
        return _delivered(_fused(kernel, x, states, (w, r, b), cell.gates, direction), layout, outputs)
    parameters = _parameters(names, activation_alpha, activation_beta)
    bounds = [clip if place % count < cell.clipped else None for place in range(len(names))]
    functions = [partial(_activate, *given) for given in zip(names, parameters, bounds, strict=True)]
    w_bias, r_bias = (None, None) if b is None else b.chunk(2, 1)
    steps = [
        cell.step(
            r[d],
            None if r_bias is None else r_bias[d],
            None if p is None else p[d],
            functions[count * d : count * (d + 1)],
            variant=variant,
        )
        for d in range(len(w))
    ]
    gates = [functional.linear(x, w[d], None if w_bias is None else w_bias[d]) for d in range(len(w))]
    return _delivered(_stepped(gates, states, steps, sequence_lens, direction), layout, outputs)


def _activate(name: str, parameters: Sequence[float | None], clip: float | None, x: Tensor) -> Tensor:
    return FUNCTIONS[name](x if clip is None else x.clamp(-clip, clip), *parameters)


def _arranged(
    x: Tensor, states: Sequence[Tensor | None], r: Tensor, layout: int
) -> tuple[Tensor, list[Tensor]]:
    """Return ``x`` as [T, N, I], and the states as [D, N, H]: zeros where left out, one alone for all."""
    x = x.transpose(0, 1) if layout else x
    shape = (r.shape[0], x.shape[1], r.shape[2])
    given = (state.transpose(0, 1) if layout and state is not None else state for state in states)
    return x, [x.new_zeros(shape) if state is None else state.expand(shape).contiguous() for state in given]


def _delivered(found: State, layout: int, outputs: int) -> Any:  # noqa: ANN401 - as the node has it
    """Return what the node returns, from ``y`` [T, N, D, H] and the last states [D, N, H]."""
    y, *last = found
    arranged = (y.transpose(0, 1) if layout else y.transpose(1, 2), *last)
    if layout:
        arranged = (arranged[0], *(state.transpose(0, 1) for state in last))
    return arranged[0] if outputs == 1 else arranged[:outputs]


def _fused(
    kernel: Callable[..., State],
    x: Tensor,
    states: Sequence[Tensor],
    weights: tuple[Tensor, Tensor, Tensor | None],
    gates: Sequence[int],
    direction: str,
) -> State:
    """Return ``y`` [T, N, D, H] and the last states from one of torch's own kernels.

    Args:
        kernel: ``torch.lstm`` or one of its sisters.
        x: [T, N, I].
        states: [D, N, H] each.
        weights: W, R and B as ONNX has them.
        gates: Where ONNX has each of torch's gates.
        direction: ONNX's word for it.
    """
    parameters = [
        torch.cat([_piece(part, gate, len(gates)) for gate in gates]) if len(gates) > 1 else part
        for d in range(len(weights[0]))
        for part in _parts(weights, d)
    ]
    both, biased = direction == "bidirectional", weights[2] is not None
    x = x.flip(0) if direction == "reverse" else x
    hidden = list(states) if len(states) > 1 else states[0]
    y, *last = kernel(x, hidden, parameters, biased, 1, 0.0, False, both, False)  # noqa: FBT003 - torch's order
    y = y.flip(0) if direction == "reverse" else y
    return y.reshape(*y.shape[:2], *weights[1].shape[::2]), *last


def _piece(x: Tensor, index: int, count: int) -> Tensor:
    """Return one of ``count`` equal pieces; torch.onnx writes a slice plainly, and a chunk as a sequence."""
    size = len(x) // count
    return x[index * size : (index + 1) * size]


def _parts(weights: tuple[Tensor, Tensor, Tensor | None], d: int) -> list[Tensor]:
    """Return the weights and biases of one direction in torch's order."""
    w, r, b = weights
    return [w[d], r[d]] if b is None else [w[d], r[d], _piece(b[d], 0, 2), _piece(b[d], 1, 2)]


def _stepped(
    x: Sequence[Tensor],
    states: Sequence[Tensor],
    steps: Sequence[Step],
    lengths: Tensor | None,
    direction: str,
) -> State:
    """Return ``y`` [T, N, D, H] and the last states [D, N, H], step by step."""
    ran = []
    for d, step in enumerate(steps):
        backwards = direction == "reverse" or d == 1
        ran.append(_one_way(x[d], tuple(state[d] for state in states), step, lengths, backwards=backwards))
    ys, last = zip(*ran, strict=True)
    return torch.stack(ys, 2), *(torch.stack(parts) for parts in zip(*last, strict=True))


def _one_way(
    x: Tensor, state: State, step: Step, lengths: Tensor | None, *, backwards: bool
) -> tuple[Tensor, State]:
    """Return the hidden states [T, N, H] of one direction, and its last state."""
    moments = range(len(x))
    hidden: list[Tensor] = []
    for t in reversed(moments) if backwards else moments:
        new = step(x[t], state)
        if lengths is None:
            state = new
            hidden.append(state[0])
            continue
        lasts = (t < lengths)[:, None]
        state = tuple(torch.where(lasts, now, before) for now, before in zip(new, state, strict=True))
        hidden.append(torch.where(lasts, state[0], 0))
    y = torch.stack(hidden[::-1] if backwards else hidden)
    if lengths is not None:
        state = tuple(torch.where((lengths > 0)[:, None], part, 0) for part in state)
    return y, state
