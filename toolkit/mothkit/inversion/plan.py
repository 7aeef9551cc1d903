"""How a search is computed: images in a forward pass, and in which precision."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import psutil
import torch
from torch import Tensor, nn

from mothkit.inversion.config import InversionConfig, Precision

_FORWARD_PIXELS = {"cpu": 2**18, "cuda": 2**22}  # CPU: 256 images of 32 x 32, see benchmarks/forward.py
_TRIED = 32  # images on which both precisions are compared
_OF_FREE = 0.5  # share of the free memory that a forward and backward pass may take
_BESIDE = 1.5  # what a pass takes, against what it keeps for the way back
_ALIKE = 0.9  # share of them that must get the same class


@dataclass(frozen=True, slots=True)
class Plan:
    """What is the same in every step of a search.

    Attributes:
        images_per_forward: triggers x images at most.
        precision: of the network's products while a trigger moves. Re-tests are always in float32.
    """

    images_per_forward: int
    precision: Precision

    def pin(self, config: InversionConfig) -> InversionConfig:
        """Return ``config`` with nothing left open that this plan settles."""
        return replace(config, images_per_forward=self.images_per_forward, precision=self.precision)

    def context(self, device: torch.device) -> AbstractContextManager[object]:
        """Return the context in which a network is run while triggers move."""
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(device.type, torch.bfloat16)


def make_plan(model: nn.Module, pool: Tensor, config: InversionConfig, device: torch.device) -> Plan:
    """Return how to search on ``pool`` [P, C, H, W] with ``model``, which is on ``device`` in eval mode.

    ``config`` can pin both. Else products are in bfloat16 where the processor has instructions for it and the
    network gives the same classes with them: it then takes half of the time, and what is found is re-tested in
    float32. This goes by what the machine can do and by results, never by timing, so that runs can be repeated.
    """
    images = config.images_per_forward or min(
        forward_images(pool, device), fitting_images(model, pool, device)
    )
    if config.precision != "auto":
        return Plan(images, config.precision)
    good = has_bfloat16(device) and gives_the_same(model, pool[: min(_TRIED, images)].to(device), device)
    return Plan(images, "bfloat16" if good else "float32")


def forward_images(pool: Tensor, device: torch.device) -> int:
    """Return how many images of ``pool`` [P, C, H, W] one forward pass should take on ``device``.

    On a CPU 256 of 32 x 32: larger ones fall out of its caches and take up to twice as long an image.
    """
    pixels = _FORWARD_PIXELS.get(device.type, _FORWARD_PIXELS["cuda"])
    return max(1, pixels // (pool.shape[2] * pool.shape[3]))


def fitting_images(model: nn.Module, pool: Tensor, device: torch.device) -> int:
    """Return how many images of ``pool`` [P, C, H, W] a pass through ``model`` and back has free memory for."""
    return max(
        1, int(_OF_FREE * free_bytes(device) / (_BESIDE * bytes_per_image(model, pool[:1].to(device))))
    )


def bytes_per_image(model: nn.Module, x: Tensor) -> int:
    """Return how many bytes ``model`` keeps for the way back from one image ``x`` [1, C, H, W], weights apart."""
    kept = {tensor.data_ptr(): 0 for tensor in (*model.parameters(), *model.buffers())}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept.setdefault(storage.data_ptr(), storage.nbytes())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        scores = model(x.detach().clone().requires_grad_())
    return int(x.nbytes + scores.nbytes + sum(kept.values()))


def free_bytes(device: torch.device) -> int:
    """Return how much memory is free on ``device``."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free)
    return int(psutil.virtual_memory().available)


def has_bfloat16(device: torch.device) -> bool:
    """Return whether ``device`` has instructions for products of bfloat16."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    told: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # newer releases of torch tell
    return device.type == "cpu" and any("bf16" in name and bool(has) for name, has in told.items())


@torch.no_grad()
def gives_the_same(model: nn.Module, x: Tensor, device: torch.device) -> bool:
    """Return whether ``model`` puts images ``x`` [n, C, H, W] into the same classes in bfloat16 as in float32."""
    try:
        with torch.autocast(device.type, torch.bfloat16):
            found = model(x).float()
    except RuntimeError:  # an operator that knows no bfloat16
        return False
    alike = (found.argmax(1) == model(x).argmax(1)) & found.isfinite().all(1)
    return bool(alike.float().mean() >= _ALIKE)
