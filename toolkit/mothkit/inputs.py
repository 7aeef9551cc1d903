"""How pixels become what a model wants: the border between pixel space and model space.

Pixel space is float32 [N, C, H, W], 0..1, RGB or one grey channel. A model takes
``(pixels * scale - mean) / std``, with its channels in its own order, in its own layout; some first stretch
each image to 0..1.
"""

import json
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Self, TypeGuard, get_args

import torch
from torch import Tensor

from mothkit.errors import InputSpecError, ShapeError

Layout = Literal["nchw", "nhwc"]
Channels = Literal["rgb", "bgr", "gray"]
Dimension = int | str | None  # a graph's dimension: a size, a symbol, or unknown

_MAX_SPEC_BYTES = 1 << 20
_LEAST_SPAN = 1 / 255  # one byte: an image of a single value becomes 0, not a division by 0


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSpec:
    """What a model wants: ``model_input = (pixels * scale - mean) / std``, reordered and laid out.

    ``layout`` and ``channels`` may be left open until ``fit`` has seen the model's input.

    Attributes:
        name: the preset's or the file's name, for messages and records.
        layout: ``nchw`` or ``nhwc``; None until it is known.
        channels: ``rgb``, ``bgr`` or ``gray``; None until it is known.
        scale: multiplies pixels of 0..1, so that 255 makes bytes of them; above 0.
        mean: subtracted after scaling, in scaled units: one number, or three, always in the order R, G, B.
        std: divides after that, in scaled units, above 0: one number, or three, always in the order R, G, B.
        per_image: whether each image is first stretched to 0..1, from its least to its greatest value over all
            channels.
        description: one sentence for people; no part of equality or of the record.
    """

    name: str
    layout: Layout | None = None
    channels: Channels | None = None
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    per_image: bool = False
    description: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        _check_choice(self.name, "layout", self.layout, get_args(Layout))
        _check_choice(self.name, "channels", self.channels, get_args(Channels))
        if not _is_number(self.scale) or self.scale <= 0:
            raise InputSpecError(f"{self.name}: scale is {self.scale!r}, not a number above 0")
        object.__setattr__(self, "scale", float(self.scale))
        object.__setattr__(self, "mean", _numbers(self.name, "mean", self.mean))
        object.__setattr__(self, "std", _numbers(self.name, "std", self.std))
        if min(self.std) <= 0:
            raise InputSpecError(f"{self.name}: std is {list(self.std)}; every value must be above 0")
        if not isinstance(self.per_image, bool):
            raise InputSpecError(f"{self.name}: per_image is {self.per_image!r}, not true or false")
        if self.channels == "gray" and self._per_colour:
            raise InputSpecError(
                f"{self.name}: channels is gray, but mean {list(self.mean)} and std {list(self.std)} are for "
                f"three colours; give one number each"
            )

    @property
    def _per_colour(self) -> bool:
        return max(len(self.mean), len(self.std)) == 3

    @property
    def channel_count(self) -> int | None:
        """1 or 3: how many channels the model's images have; None while that is open."""
        if self.channels is None:
            return 3 if self._per_colour else None
        return 1 if self.channels == "gray" else 3

    def to_model(self, x: Tensor) -> Tensor:
        """Return ``x`` in model space; differentiable, ``x`` is left alone.

        Args:
            x: float [N, C, H, W], 0..1, C = 3 (R, G, B) or 1 (grey) as ``channels`` says.

        Returns:
            float [N, C, H, W] or [N, H, W, C], of ``x``'s dtype and device, contiguous.

        Raises:
            InputSpecError: layout or channels are still open; ``fit`` closes them.
            ShapeError: ``x`` is not float [N, C, H, W] with this spec's C.
        """
        if self.layout is None or self.channels is None:
            raise InputSpecError(
                f"{self.name}: layout or channels are not known; fit the spec to the model's input first"
            )
        if x.dim() != 4 or x.shape[1] != self.channel_count or not x.is_floating_point():
            raise ShapeError(
                f"{self.name}: pixels are {x.dtype} {list(x.shape)}, "
                f"expected float [N, {self.channel_count}, H, W]"
            )
        mean, std = (
            torch.tensor(v, dtype=x.dtype, device=x.device).view(-1, 1, 1) for v in (self.mean, self.std)
        )
        scaled = ((_stretched(x) if self.per_image else x) * self.scale - mean) / std
        if self.channels == "bgr":
            scaled = scaled.flip(1)
        return (scaled.permute(0, 2, 3, 1) if self.layout == "nhwc" else scaled).contiguous()

    def to_dict(self) -> dict[str, Any]:
        """Return the spec as JSON types, for records; ``from_dict`` takes it back."""
        return {
            "name": self.name,
            "layout": self.layout,
            "channels": self.channels,
            "scale": self.scale,
            "mean": list(self.mean),
            "std": list(self.std),
            "per_image": self.per_image,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, name: str = "custom") -> Self:
        """Return the spec that ``values`` holds; what is missing takes its default.

        Args:
            values: any of the attributes, by name.
            name: the name if ``values`` holds none.

        Raises:
            InputSpecError: an unknown key, a value of another type or out of its range.
        """
        known = tuple(cls.__dataclass_fields__)
        if unknown := sorted(set(values) - set(known)):
            raise InputSpecError(f"{name}: unknown keys {', '.join(unknown)}; known are {', '.join(known)}")
        for key in ("name", "description"):
            if not isinstance(values.get(key, ""), str):
                raise InputSpecError(f"{name}: {key} is {values[key]!r}, not text")
        return cls(**{"name": name, **values})


def presets() -> Mapping[str, InputSpec]:
    """Return the specs that have a name; ``description`` says what each means."""
    return _PRESETS


def load_input_spec(
    text: str, *, layout: Layout | None = None, channels: Channels | None = None
) -> InputSpec:
    """Return the spec of a preset's name, or of a TOML or JSON file.

    Args:
        text: a name from ``presets``, or the path of a file with the keys of ``InputSpec``.
        layout: overrides what the spec says.
        channels: overrides what the spec says; per-colour numbers stay with their colours.

    Raises:
        InputSpecError: no such preset or file, a file that cannot be read, or a value out of its range.
    """
    spec = _PRESETS.get(text) or _read_spec(text)
    return replace(spec, layout=layout or spec.layout, channels=channels or spec.channels)


def fit(spec: InputSpec, input_shape: Sequence[Dimension]) -> InputSpec:
    """Return ``spec`` with layout and channels closed by the shape of a model's input.

    Args:
        spec: what is known so far; what it says is checked, not changed.
        input_shape: four dimensions; a size, or a symbol, None or a number below 1 where any size goes.

    Raises:
        InputSpecError: no four dimensions, a layout or channel count that cannot be told, or a contradiction.
    """
    sizes = _sizes(input_shape)
    layout = spec.layout or _infer_layout(spec, sizes)
    count = sizes[1] if layout == "nchw" else sizes[3]
    expected = spec.channel_count
    if count is None and spec.channels is None and expected is None:
        raise InputSpecError(
            f"the model's input {_show(sizes)} leaves its channels open; say --channels rgb, bgr or gray"
        )
    if count is not None and count != (expected or count):
        raise InputSpecError(
            f"{spec.name} makes {expected} channels, but the model's input {_show(sizes)} ({layout}) "
            f"has {count}; choose another --preprocess, --channels or --layout"
        )
    if count not in (None, 1, 3):
        raise InputSpecError(f"the model's input {_show(sizes)} ({layout}) has {count} channels, not 1 or 3")
    return replace(spec, layout=layout, channels=spec.channels or ("gray" if count == 1 else "rgb"))


def pixel_shape(spec: InputSpec, input_shape: Sequence[Dimension]) -> tuple[int, int | None, int | None]:
    """Return the (C, H, W) of the images that a model takes; None where it takes any size.

    Args:
        spec: as for ``fit``, which it goes through.
        input_shape: the model's input, as for ``fit``.

    Raises:
        InputSpecError: as ``fit``.
    """
    fitted = fit(spec, input_shape)
    _, a, b, c = _sizes(input_shape)
    height, width = (b, c) if fitted.layout == "nchw" else (a, b)
    return fitted.channel_count or 3, height, width


def _stretched(x: Tensor) -> Tensor:
    low, high = x.amin((1, 2, 3), keepdim=True), x.amax((1, 2, 3), keepdim=True)
    return (x - low) / (high - low).clamp_min(_LEAST_SPAN)


def _infer_layout(spec: InputSpec, sizes: tuple[int | None, ...]) -> Layout:
    counts = (1, 3) if spec.channel_count is None else (spec.channel_count,)
    first, last = sizes[1] in counts, sizes[3] in counts
    if first != last:
        return "nchw" if first else "nhwc"
    why = "could be either" if first else f"shows no dimension of {' or '.join(map(str, counts))} channels"
    raise InputSpecError(
        f"cannot tell the layout of the model's input {_show(sizes)} for {spec.name}: it {why}; "
        f"say --layout nchw or nhwc"
    )


def _sizes(input_shape: Sequence[Dimension]) -> tuple[int | None, ...]:
    if len(input_shape) != 4:
        raise InputSpecError(
            f"the model's input has {len(input_shape)} dimensions {list(input_shape)}, expected 4"
        )
    return tuple(d if isinstance(d, int) and d > 0 else None for d in input_shape)


def _show(sizes: tuple[int | None, ...]) -> str:
    return "[" + ", ".join("?" if s is None else str(s) for s in sizes) + "]"


def _read_spec(text: str) -> InputSpec:
    path = Path(text)
    if not path.is_file():
        raise InputSpecError(
            f"no preprocessing and no file is called {text!r}; give a TOML or JSON file, or one of the names "
            f"{', '.join(_PRESETS)}"
        )
    if path.suffix.lower() not in (".toml", ".json"):
        raise InputSpecError(f"{path}: a preprocessing file ends in .toml or .json")
    if path.stat().st_size > _MAX_SPEC_BYTES:
        raise InputSpecError(
            f"{path}: {path.stat().st_size} bytes are no preprocessing; a few lines are expected"
        )
    try:
        content = path.read_text(encoding="utf-8")
        values = tomllib.loads(content) if path.suffix.lower() == ".toml" else json.loads(content)
    except (OSError, ValueError, RecursionError) as error:
        raise InputSpecError(f"{path}: cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise InputSpecError(
            f"{path}: holds a {type(values).__name__}, expected keys such as scale, mean and std"
        )
    return InputSpec.from_dict(values, name=path.name)


def _check_choice(name: str, key: str, value: object, choices: tuple[str, ...]) -> None:
    if value is not None and value not in choices:
        raise InputSpecError(f"{name}: {key} is {value!r}, not one of {', '.join(choices)}")


def _numbers(name: str, key: str, value: object) -> tuple[float, ...]:
    values: Sequence[object] = value if isinstance(value, list | tuple) else (value,)
    numbers = tuple(float(v) for v in values if _is_number(v))
    if len(numbers) != len(values) or len(numbers) not in (1, 3):
        raise InputSpecError(f"{name}: {key} is {value!r}, not one number or three (R, G, B)")
    return numbers


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _preset(name: str, description: str, **values: Any) -> InputSpec:  # noqa: ANN401 (keys of InputSpec)
    return InputSpec(name=name, description=description, **values)


_PRESETS: Mapping[str, InputSpec] = MappingProxyType(
    {
        spec.name: spec
        for spec in (
            _preset("unit", "Pixels as 0..1."),
            _preset("byte", "Pixels as 0..255.", scale=255.0),
            _preset("signed", "Pixels as -1..1.", mean=0.5, std=0.5),
            _preset(
                "imagenet",
                "0..1, less (0.485, 0.456, 0.406), by (0.229, 0.224, 0.225): ImageNet's, as in torchvision.",
                mean=(0.485, 0.456, 0.406),
                std=(0.229, 0.224, 0.225),
            ),
            _preset(
                "cifar10",
                "0..1, less (0.4914, 0.4822, 0.4465), by (0.2470, 0.2435, 0.2616): CIFAR-10's.",
                mean=(0.4914, 0.4822, 0.4465),
                std=(0.2470, 0.2435, 0.2616),
            ),
            _preset(
                "cifar10_narrow",
                "0..1, less (0.4914, 0.4822, 0.4465), by (0.2023, 0.1994, 0.2010): CIFAR-10's, std within images.",
                mean=(0.4914, 0.4822, 0.4465),
                std=(0.2023, 0.1994, 0.2010),
            ),
            _preset(
                "caffe",
                "BGR, 0..255, less (103.939, 116.779, 123.68) in that order: Caffe's VGG and ResNet.",
                channels="bgr",
                scale=255.0,
                mean=(123.68, 116.779, 103.939),
            ),
            _preset(
                "mnist",
                "Grey, 0..1, less 0.1307, by 0.3081: MNIST's.",
                channels="gray",
                mean=0.1307,
                std=0.3081,
            ),
            _preset(
                "minmax",
                "Each image stretched to 0..1, from its least to its greatest value.",
                per_image=True,
            ),
        )
    }
)
