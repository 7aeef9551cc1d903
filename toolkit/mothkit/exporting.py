"""What becomes of hardened weights: the same file with other numbers, or a new graph."""

from collections.abc import Mapping
from pathlib import Path

import torch

from mothkit.classifier import Classifier, as_model_errors
from mothkit.errors import ModelError, OutputError
from mothkit_converters import Source, check_export, export, to_torch, write_back

EXPORTS = ("surgery", "torch")
_DTYPES = {"float16": torch.float16, "double": torch.float64}


def check_exportable(source: Source, out: Path) -> None:
    """Check, before any work, that ``source`` can be asked for as a new graph at ``out``.

    Raises:
        ModelError: it has several inputs.
        OutputError: what writes new graphs is not installed.
    """
    if len(source.inputs) != 1:
        raise ModelError(
            f"{source.path}: has {len(source.inputs)} inputs; a new graph is written for one alone"
        )
    with as_model_errors():
        check_export(out)


def write_model(
    classifier: Classifier, path: Path, *, kind: str, metadata: Mapping[str, str] | None = None
) -> None:
    """Write the whole model that ``classifier`` was cut from, with its present weights.

    Args:
        classifier: in eval mode, on any device.
        path: where to write.
        kind: ``surgery`` for the original's file with other weights, ``torch`` for a new graph. That keeps the
            names of inputs, outputs and weights and the batch, free or fixed; other sizes become those of the
            classifier's images.
        metadata: entries for the file's metadata; keys begin with ``mothkit.``.

    Raises:
        OutputError: it cannot be written, or torch cannot export it.
        ModelError: what comes after the logits cannot be imported, so that no new graph can have it.
    """
    with as_model_errors():
        if kind == "surgery":
            write_back(classifier.network, path, metadata=metadata)
        else:
            _write_new_graph(classifier, path, metadata)


def place_model(
    classifier: Classifier, staged: Path, out: Path, *, kind: str, metadata: Mapping[str, str] | None = None
) -> None:
    """Put at ``out`` what ``write_model`` wrote to ``staged``, beside it on the same disk.

    Raises:
        OutputError: it cannot be put there.
    """
    if kind == "surgery":  # external data go beside it
        write_model(classifier, out, kind=kind, metadata=metadata)
        return
    try:
        staged.replace(out)
    except OSError as error:
        raise OutputError(f"{out}: cannot be written ({error.strerror}); choose another place") from error


@torch.no_grad()
def _write_new_graph(classifier: Classifier, path: Path, metadata: Mapping[str, str] | None) -> None:
    source = classifier.source
    whole = to_torch(source, allow_unbound=True)  # with what comes after the logits
    for name in classifier.network.ties:
        whole.tensor(name).copy_(classifier.network.tensor(name))
    first = (source.inputs[0].shape or (None,))[0]
    fixed = first if isinstance(first, int) else None
    pixels = torch.rand(fixed or 2, *classifier.shape, generator=torch.Generator().manual_seed(0))
    x = classifier.spec.to_model(pixels).to(_DTYPES.get(source.inputs[0].dtype or "", torch.float32))
    export(whole, path, example_inputs=[x], dynamic_batch=fixed is None, metadata=metadata)
