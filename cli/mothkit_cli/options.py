"""Options that commands share: one spelling, one help text, one check each.

``--debug`` is not here: ``guard.py`` adds it to every command.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import typer

DEVICE_FORM = re.compile(r"auto|cpu|cuda(:\d+)?")
LARGEST_SEED = 2**32 - 1
OUTPUTS = ("csv", "html", "json", "junit", "markdown", "parquet", "sarif", "summary")


def _checked_device(value: str) -> str:
    if DEVICE_FORM.fullmatch(value) is None:
        raise typer.BadParameter(f"{value!r} is none of auto, cpu, cuda, cuda:N")
    return value


def checked_target(value: str | None) -> str | None:
    """Refuse a file that could not be written before hours of work, not after them; ``-`` is stdout."""
    if value is None or value == "-":
        return value
    path = Path(value)
    if path.is_dir():
        raise typer.BadParameter(f"{value!r} is a folder; give a file, or - for stdout")
    if not path.parent.is_dir():
        raise typer.BadParameter(f"the folder {str(path.parent)!r} does not exist")
    if not os.access(path.parent, os.W_OK):
        raise typer.BadParameter(f"the folder {str(path.parent)!r} cannot be written to")
    return value


def check_outputs_apart(values: Mapping[str, object]) -> None:
    """Refuse an option of ``OUTPUTS`` that names a file which another of a command's ``values`` names.

    Raises:
        typer.BadParameter: the output would replace that file.
    """
    for output in OUTPUTS:
        target = values.get(output)
        if not isinstance(target, str) or target == "-":
            continue
        for name, value in values.items():
            others = value if isinstance(value, list) else [value]
            if name != output and any(_is_same(target, other, output=name in OUTPUTS) for other in others):
                raise typer.BadParameter(f"--{output} {target!r} would replace the file given as {name!r}")


def check_apart(target: Path, read: Path) -> None:
    """Refuse a ``target`` that is the file ``read``.

    Raises:
        typer.BadParameter: it is.
    """
    if target.resolve() == read.resolve():
        raise typer.BadParameter(f"--out {str(target)!r} would replace the file that is read")


def _is_same(target: str, other: object, *, output: bool) -> bool:
    """Return whether ``other`` is a path to the file ``target``, or such a path with a part (``FILE.npz:train``).

    Of text that is no ``output`` it is not known whether it is a path, so that only a file that is there counts.
    """
    target_path = Path(target)
    if not isinstance(other, str | Path):
        return False
    if (output or isinstance(other, Path)) and Path(other).resolve() == target_path.resolve():
        return True
    if not target_path.exists():
        return False
    paths = (Path(other), Path(str(other).rpartition(":")[0]))
    return any(path.is_file() and path.samefile(target_path) for path in paths)


Draw = Annotated[
    int | None,
    typer.Option(
        "--draw",
        metavar="N",
        min=2,
        help="Clean images of each class, drawn of the signs a round's model publishes where fewer are published.",
    ),
]
RoundName = Annotated[
    str | None, typer.Option("--round", metavar="NAME", help="The round, where the files do not say it.")
]
TrustPickle = Annotated[
    bool,
    typer.Option(
        "--trust-pickle",
        help="Load a round's pickles as torch does it, which may run any code, in a process of its own.",
    ),
]
Model = Annotated[Path, typer.Argument(metavar="MODEL", exists=True, dir_okay=False, help="An ONNX file.")]
Preprocess = Annotated[
    str | None,
    typer.Option(
        "--preprocess",
        metavar="NAME|FILE",
        help="How pixels become the model's input: a preset such as unit, byte, cifar10, imagenet, "
        "or a TOML or JSON file; found by --data unless given.",
    ),
]
Layout = Annotated[
    Literal["nchw", "nhwc"] | None,
    typer.Option("--layout", help="Order of the model's input axes; read from the graph unless given."),
]
Channels = Annotated[
    Literal["rgb", "bgr", "gray"] | None,
    typer.Option("--channels", help="Order of the model's colour channels; the preset's unless given."),
]
Output = Annotated[
    str | None,
    typer.Option(
        "--output",
        metavar="NAME",
        help="The model's output whose scores count; the first that has one for each class unless given.",
    ),
]
Device = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="auto|cpu|cuda[:N]",
        callback=_checked_device,
        help="Where torch and onnxruntime run.",
    ),
]
Labels = Annotated[
    Path | None,
    typer.Option(
        "--labels",
        metavar="FILE",
        exists=True,
        dir_okay=False,
        help="Class names, or the folders' order, by model index.",
    ),
]
Seed = Annotated[
    int, typer.Option("--seed", min=0, max=LARGEST_SEED, help="Same seed, plan and device, same result.")
]
Json = Annotated[
    str | None,
    typer.Option(
        "--json",
        metavar="FILE|-",
        callback=checked_target,
        help="Write the record as JSON; with - it goes to stdout and the table to stderr.",
    ),
]
Html = Annotated[
    str | None,
    typer.Option(
        "--html",
        metavar="FILE",
        callback=checked_target,
        help="Write the record as a page to read: one HTML file that needs nothing else.",
    ),
]
PUBLIC_KEY = typer.Option(
    "--pub", metavar="FILE", exists=True, dir_okay=False, help="The signer's public key, as PEM."
)
RecordFile = Annotated[
    Path,
    typer.Argument(metavar="RECORD", exists=True, dir_okay=False, help="A record of mothkit's, as JSON."),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Write nothing to stderr but errors and warnings.")]
Data = Annotated[
    str,
    typer.Option(
        "--data",
        metavar="PATH",
        help="Labelled clean images: a folder or zip of class folders, FILE.npz[:PART], or IDX files.",
    ),
]
Triggers = Annotated[
    list[Path] | None,
    typer.Option(
        "--trigger",
        metavar="FILE",
        exists=True,
        dir_okay=False,
        help="A trigger.toml, for evaluation only; may be given again.",
    ),
]
EvalData = Annotated[
    str | None,
    typer.Option(
        "--eval-data", metavar="PATH", help="Images to evaluate on, none of them in --data; taken like it."
    ),
]
MaxAccuracyDrop = Annotated[
    float,
    typer.Option(
        "--max-accuracy-drop", min=0, max=100, help="Points of accuracy that it may cost, as estimated."
    ),
]
MeasureDistance = Annotated[
    bool, typer.Option("--measure-distance", help="Measure class distance before and after; takes long.")
]
AllowUnbound = Annotated[
    bool, typer.Option("--allow-unbound", help="Also where some weights cannot be trained.")
]
Pgd = Annotated[
    str | None,
    typer.Option("--pgd", metavar="EPS,STEPS", help="Also accuracy under this attack, in torch: 8/255,20."),
]
Relearn = Annotated[
    bool, typer.Option("--relearn", help="Also how fast each trigger is learnt again from a few images.")
]
PerClass = Annotated[
    int | None,
    typer.Option("--per-class", min=1, metavar="N", help="Take N images of each class, drawn by seed."),
]
Resize = Annotated[
    Literal["stretch", "fit-crop", "crop"] | None,
    typer.Option("--resize", help="Bring images of another size to the model's: whole, or their middle."),
]
