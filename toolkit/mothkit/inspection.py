"""What an ONNX file is and what mothkit can do with it, also where it can do nothing."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from mothkit.classifier import head_of, image_input
from mothkit.errors import InputSpecError, ModelError
from mothkit.inputs import Layout, fit, presets
from mothkit_converters.binding import Binding, Role
from mothkit_converters.errors import ConversionError
from mothkit_converters.heads import Head
from mothkit_converters.importer import to_torch
from mothkit_converters.source import Source, Value
from mothkit_converters.tensors import FLOATS, weight_tensors


@dataclass(frozen=True, slots=True)
class Share:
    """Some of a file's tensors: how many, and how many numbers they hold together."""

    tensors: int
    parameters: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """What hardening can change.

    Attributes:
        trainable: weights that are torch parameters.
        statistics: BatchNorm's running means and variances, which a method may let follow the batch.
        fixed: float tensors that are settings or belong to the input's normalisation.
        unbound: names of weights that no torch parameter stands for; they stay as they are.
    """

    trainable: Share
    statistics: Share
    fixed: Share
    unbound: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What an ONNX file says of itself, and what comes of importing it.

    Attributes:
        files: SHA-256 of the model's files, by name relative to its folder.
        layout: ``nchw`` or ``nhwc`` as the input's shape tells; None where it does not.
        layout_why: why the layout could not be told, empty otherwise.
        floats: the float tensors that the file stores.
        training: what can be trained; None where the file cannot be imported.
        refusal: why the file cannot be imported, empty otherwise.
    """

    path: str
    files: dict[str, str]
    producer: str
    ir_version: int
    opsets: dict[str, int]
    metadata: dict[str, str]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    operators: dict[str, int]
    layout: Layout | None
    layout_why: str
    head: Head
    floats: Share
    training: Training | None
    refusal: str


def inspect_model(source: Source, output: str | None = None) -> Inspection:
    """Return what ``source`` is; a file that cannot be imported is described with the reason.

    Args:
        source: the file.
        output: the output whose scores count; None takes the first that has one for each class.

    Raises:
        ModelError: it has no such output.
    """
    head = head_of(source, output)
    layout, layout_why = _layout(source, output)
    training, refusal = _training(source, head)
    return Inspection(
        path=str(source.path),
        files=dict(source.digests),
        producer=source.producer,
        ir_version=source.ir_version,
        opsets=source.opsets,
        metadata=source.metadata,
        inputs=source.inputs,
        outputs=source.outputs,
        operators=source.operators,
        layout=layout,
        layout_why=layout_why,
        head=head,
        floats=_share(_float_sizes(source).values()),
        training=training,
        refusal=refusal,
    )


def _layout(source: Source, output: str | None) -> tuple[Layout | None, str]:
    try:
        return fit(presets()["unit"], image_input(source, output)).layout, ""
    except (InputSpecError, ModelError) as error:
        return None, str(error)


def _training(source: Source, head: Head) -> tuple[Training | None, str]:
    try:
        bound = to_torch(source, outputs=[head.value], allow_unbound=True)
    except ConversionError as error:
        return None, str(error)
    sizes = _float_sizes(source)
    ties = bound.ties.values()
    trainable = _bound_share(ties, sizes, Role.WEIGHT)
    statistics = _bound_share(ties, sizes, Role.STATISTIC)
    unbound = tuple(bound.unbound)
    rest = sizes.keys() - {tie.initializer for tie in ties if tie.role in (Role.WEIGHT, Role.STATISTIC)}
    fixed = _share(sizes[name] for name in rest - set(unbound))
    return Training(trainable=trainable, statistics=statistics, fixed=fixed, unbound=unbound), ""


def _float_sizes(source: Source) -> dict[str, int]:
    """Return how many numbers each float tensor of the file holds, by name."""
    stored = weight_tensors(source.proto.graph)
    return {name: math.prod(tensor.dims) for name, tensor in stored.items() if tensor.data_type in FLOATS}


def _bound_share(ties: Iterable[Binding], sizes: dict[str, int], role: Role) -> Share:
    return _share(sizes[tie.initializer] for tie in ties if tie.role is role)


def _share(sizes: Iterable[int]) -> Share:
    counted = list(sizes)
    return Share(tensors=len(counted), parameters=sum(counted))
