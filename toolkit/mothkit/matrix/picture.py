"""A trigger as a picture."""

import io

import torch
from PIL import Image

from mothkit.triggers.patch import Trigger


def trigger_png(trigger: Trigger) -> bytes:
    """Return the trigger as a PNG whose alpha is the mask, so that laying it over an image stamps it.

    Eight bits are less than the trigger has: to measure with it again, take it from the arrays.
    """
    pattern = trigger.pattern.expand(3, -1, -1)
    values = torch.cat([pattern, trigger.mask]).clamp(0, 1).mul(255).round().byte().permute(1, 2, 0)
    file = io.BytesIO()
    Image.fromarray(values.numpy()).save(file, "png", optimize=True)
    return file.getvalue()
