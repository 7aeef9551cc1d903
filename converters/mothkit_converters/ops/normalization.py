"""Layers that normalise, over the batch or within an image."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - its customary name
from onnx import TensorProto
from onnx2torch.onnx_graph import OnnxGraph
from onnx2torch.onnx_node import OnnxNode
from onnx2torch.utils.common import OperationConverterResult, onnx_mapping_from_node
from torch import Tensor, nn

from mothkit_converters.errors import UnsupportedOpError
from mothkit_converters.ops.call import Call, operator
from mothkit_converters.ops.registry import serve

_TORCHS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)  # noqa: SLF001 - Batch- and InstanceNorm's root

_STAGES: dict[int, torch.dtype] = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.DOUBLE: torch.float64,
    TensorProto.FLOAT16: torch.float16,
    TensorProto.BFLOAT16: torch.bfloat16,
}


def normalises(module: nn.Module) -> bool:
    """Return whether ``module`` itself is a layer that normalises, of torch's own or of an imported network."""
    if isinstance(module, Call):
        return module.function in _FUNCTIONS
    return isinstance(module, (BatchNorm, *_TORCHS))


class BatchNorm(nn.Module):
    """Batch normalisation; in train mode it follows the batch, as torch's own does.

    Attributes:
        momentum: What share of a running statistic the batch replaces. At 0 they stay, and are not written to.
    """

    def __init__(self, *, epsilon: float, momentum: float) -> None:
        super().__init__()
        self.epsilon, self.momentum = epsilon, momentum

    def forward(self, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        """Return ``x`` [N, C, ...] normalised; the rest is [C]."""
        if self.training and self.momentum == 0:
            return F.batch_norm(x, None, None, scale, bias, training=True, eps=self.epsilon)
        if mean.requires_grad or variance.requires_grad:  # a weight of another node too: trained there alone
            mean, variance = mean.detach(), variance.detach()
        return F.batch_norm(x, mean, variance, scale, bias, self.training, self.momentum, self.epsilon)

    def extra_repr(self) -> str:
        """Return the settings."""
        return f"epsilon={self.epsilon}, momentum={self.momentum}"


def batch_norm(
    x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, *, epsilon: float
) -> Tensor:
    """Return ``x`` [N, C, ...] normalised by statistics that the graph computes; they are [C] or [C, ...]."""
    shape = [*mean.shape, *[1] * (x.dim() - 1 - mean.dim())]
    scale, bias, mean, variance = (each.reshape(shape) for each in (scale, bias, mean, variance))
    return (x - mean) * (scale * torch.rsqrt(variance + epsilon)) + bias


def batch_norm_of_batch(
    x: Tensor,
    scale: Tensor,
    bias: Tensor,
    mean: Tensor,
    variance: Tensor,
    *,
    epsilon: float,
    momentum: float,
    outputs: int,
) -> Tensor | tuple[Tensor, ...]:
    """Return ``x`` [N, C, ...] normalised by its own statistics, the running ones moved, and its own."""
    y = F.batch_norm(x, None, None, scale, bias, training=True, eps=epsilon)
    if outputs == 1:
        return y
    own_variance, own_mean = torch.var_mean(x, [0, *range(2, x.dim())], correction=0)
    running = (
        old * momentum + new * (1 - momentum) for old, new in ((mean, own_mean), (variance, own_variance))
    )
    return (y, *running, own_mean, own_variance)[:outputs]


def _serve_batch_norm(*versions: int, training: Callable[[OnnxNode], bool]) -> None:
    """Serve BatchNormalization; ``training`` tells whether a node of these versions uses the batch's statistics."""

    @serve("BatchNormalization", *versions)
    def convert(node: OnnxNode, graph: OnnxGraph) -> OperationConverterResult:
        given, count = node.attributes, len(node.output_values)
        module: nn.Module
        epsilon, momentum = given.get("epsilon", 1e-5), given.get("momentum", 0.9)
        stored = all(name in graph.initializers for name in node.input_values[3:])
        if training(node):
            if not given.get("spatial", 1):
                raise UnsupportedOpError("BatchNormalization", node.name, "spatial is 0 in training mode")
            settings = {"epsilon": epsilon, "momentum": momentum, "outputs": count}
            module = Call(batch_norm_of_batch, settings, fixed={}, numbers=(), count=5)
        elif count > 1:
            raise UnsupportedOpError(
                "BatchNormalization", node.name, f"{count} outputs, expected 1: no training"
            )
        elif stored and given.get("spatial", 1):  # ONNX keeps this share of a statistic, torch replaces it
            module = BatchNorm(epsilon=epsilon, momentum=1 - momentum)
        else:
            module = Call(batch_norm, {"epsilon": epsilon}, fixed={}, numbers=(), count=5)
        return OperationConverterResult(module, onnx_mapping_from_node(node))


def _trains_unless_tested(node: OnnxNode) -> bool:
    """Return whether it trains; its default says so, and a single output says that it does not."""
    if not node.attributes.get("is_test", 0) and len(node.output_values) == 1:
        raise UnsupportedOpError(
            "BatchNormalization", node.name, "is_test is 0, expected 1 where it has one output"
        )
    return not node.attributes.get("is_test", 0)


_serve_batch_norm(1, 6, training=_trains_unless_tested)
_serve_batch_norm(7, 9, training=lambda node: len(node.output_values) > 1)
_serve_batch_norm(14, 15, training=lambda node: bool(node.attributes.get("training_mode", 0)))


@operator("InstanceNormalization", 1, 6, 22)
def instance_norm(
    x: Tensor,
    scale: Tensor,
    bias: Tensor,
    *,
    consumed_inputs: Sequence[int] = (),  # noqa: ARG001 - a hint of version 1
    epsilon: float = 1e-5,
) -> Tensor:
    """Return ``x`` [N, C, ...] with each image's channels normalised; ``scale`` and ``bias`` are [C]."""
    return torch.instance_norm(
        x,
        scale,
        bias,
        running_mean=None,
        running_var=None,
        use_input_stats=True,
        momentum=0.0,
        eps=epsilon,
        cudnn_enabled=torch.backends.cudnn.enabled,
    )


@operator("LayerNormalization", 17)
def layer_norm(
    x: Tensor,
    scale: Tensor,
    bias: Tensor | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = TensorProto.FLOAT,
    outputs: int = 1,
) -> Tensor | tuple[Tensor, ...]:
    """Return ``x`` normalised over ``axis`` and all after it; then its means and their inverse deviations."""
    shape = x.shape[axis:]
    if scale.shape == shape and (bias is None or bias.shape == shape):
        y = F.layer_norm(x, shape, scale, bias, epsilon)
    else:
        y = F.layer_norm(x, shape, None, None, epsilon) * scale
        y = y if bias is None else y + bias
    if outputs == 1:
        return y
    stage = x.to(_STAGES[stash_type])
    variance, mean = torch.var_mean(stage, list(range(axis % x.dim(), x.dim())), correction=0, keepdim=True)
    return (y, mean, torch.rsqrt(variance + epsilon))[:outputs]


@operator("GroupNormalization", 18, per_group=True)
@operator("GroupNormalization", 21)
def group_norm(
    x: Tensor,
    scale: Tensor,
    bias: Tensor,
    *,
    num_groups: int,
    epsilon: float = 1e-5,
    stash_type: int = TensorProto.FLOAT,  # noqa: ARG001 - torch's kernels take no less
    per_group: bool = False,
) -> Tensor:
    """Return ``x`` [N, C, ...] normalised within groups of channels; ``scale`` and ``bias`` are [C] or [groups]."""
    if per_group:
        each = x.shape[1] // num_groups
        scale, bias = scale.repeat_interleave(each), bias.repeat_interleave(each)
    return torch.group_norm(x, num_groups, scale, bias, epsilon, torch.backends.cudnn.enabled)


@operator("RMSNormalization", 23)
def rms_norm(
    x: Tensor,
    scale: Tensor,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = TensorProto.FLOAT,  # noqa: ARG001 - torch's kernels take no less
) -> Tensor:
    """Return ``x`` over its root mean square along ``axis`` and all after it, times ``scale``."""
    return F.rms_norm(x, x.shape[axis:], None, epsilon) * scale


@operator("LpNormalization", 1, 22)
def lp_normalise(x: Tensor, *, axis: int = -1, p: int = 2) -> Tensor:
    """Return ``x`` over its ``p``-norms along ``axis``; what is zero stays zero."""
    norm = torch.linalg.vector_norm(x, p, dim=axis, keepdim=True)
    return x / torch.where(norm == 0, 1, norm)


@operator("LRN", 1, 13)
def local_response_norm(
    x: Tensor, *, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0
) -> Tensor:
    """Return ``x`` [N, C, ...] over a power of the squares of ``size`` channels around each."""
    squares = F.pad(x.square().movedim(1, -1), [(size - 1) // 2, size // 2])
    sums = squares.unfold(-1, size, 1).sum(-1).movedim(-1, 1)
    return x / (bias + alpha / size * sums) ** beta


@operator("MeanVarianceNormalization", 9, 13)
def mean_variance_norm(x: Tensor, *, axes: Sequence[int] = (0, 2, 3)) -> Tensor:
    """Return ``x`` less its means along ``axes``, over their standard deviations."""
    means = x.mean(list(axes), keepdim=True)
    deviation = (x.square().mean(list(axes), keepdim=True) - means.square()).sqrt()
    return (x - means) / (deviation + 1e-9)  # the small number is the standard's


_FUNCTIONS = frozenset({batch_norm, batch_norm_of_batch, instance_norm, layer_norm, group_norm, rms_norm})
