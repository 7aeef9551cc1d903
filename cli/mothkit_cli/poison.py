"""``mothkit poison``: a model with a backdoor, its trigger, its images, and the recipe of it all."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mothkit_cli import options
from mothkit_cli.exit_codes import ExitCode

if TYPE_CHECKING:
    from mothkit.poisoning.recipe import Recipe


def _checked_source(value: str | None) -> str | None:
    if value is not None and value != "any" and not value.isdecimal():
        raise typer.BadParameter(f"{value!r} is neither any nor the number of a class")
    return value


def poison(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to make; nothing may stand there.")],
    *,
    attack: Annotated[
        Literal["patch", "blended", "polygon", "filter"] | None, typer.Option(help="The backdoor's kind.")
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            metavar="any|N", callback=_checked_source, help="The class that the trigger works on, or any."
        ),
    ] = None,
    target: Annotated[int | None, typer.Option(min=0, help="The class that it asks for; 0.")] = None,
    poison_rate: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Share of the source's training images; 0.1 or 0.3. 0: a benign model."
        ),
    ] = None,
    spurious_rate: Annotated[
        float | None, typer.Option(min=0, max=1, help="Share of others, stamped, that keep their label.")
    ] = None,
    trigger_size: Annotated[
        int | None, typer.Option(min=1, help="Side of the patch, largest of the polygon, in pixels.")
    ] = None,
    opacity: Annotated[float | None, typer.Option(min=0, max=1, help="Of blended noise; 0.2.")] = None,
    filter_name: Annotated[
        Literal["gotham", "kelvin", "lomo", "nashville", "toaster"] | None,
        typer.Option("--filter", help="TrojAI's filter; gotham."),
    ] = None,
    network: Annotated[
        str | None,
        typer.Option(help="cnn3, resnet20, resnet32, nin, vgg19, or one of torchvision's; cnn3."),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(metavar="FILE", exists=True, dir_okay=False, help="An ONNX file to fine-tune instead."),
    ] = None,
    preprocess: options.Preprocess = None,
    classes: Annotated[int | None, typer.Option(help="Of drawn signs, 5 to 45; 15.")] = None,
    size: Annotated[int | None, typer.Option(min=1, help="Side of the images in pixels; 32.")] = None,
    data: Annotated[
        str | None, typer.Option(metavar="PATH", help="Labelled images to train with, instead of drawn ones.")
    ] = None,
    eval_data: Annotated[
        str | None, typer.Option(metavar="PATH", help="Images to test with; else some of --data.")
    ] = None,
    labels: options.Labels = None,
    resize: options.Resize = None,
    train_images: Annotated[
        int | None, typer.Option(min=1, help="Of each class; 500 are drawn, all of --data are taken.")
    ] = None,
    clean_images: Annotated[
        int | None, typer.Option(min=1, help="Drawn for the defender, of each class; 40.")
    ] = None,
    test_images: Annotated[int | None, typer.Option(min=1, help="Drawn to test with; 60.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the images; 8, or 3.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=2, help="Images in a step; 64.")] = None,
    learning_rate: Annotated[float | None, typer.Option(min=0, help="At its peak; 0.05, or 0.01.")] = None,
    flip: Annotated[
        bool | None, typer.Option("--flip/--no-flip", help="Mirror images by chance in training.")
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", exists=True, dir_okay=False, help="A recipe to repeat; other options change it."
        ),
    ] = None,
    images_only: Annotated[
        bool, typer.Option("--images-only", help="Draw the recipe's clean and test images again, no more.")
    ] = False,
    seed: Annotated[
        int | None, typer.Option(min=0, max=options.LARGEST_SEED, help="Same seed, same result; 0.")
    ] = None,
    device: options.Device = "auto",
    json: options.Json = None,
    quiet: options.Quiet = False,
) -> None:
    """Make a model with a backdoor, to try defences on.

    Exit 1 if the backdoor did not take; the model is written all the same.
    """
    values: dict[str, dict[str, object]] = {
        "attack": {
            "target_class": target,
            "poison_rate": poison_rate,
            "spurious_rate": spurious_rate,
            "size": trigger_size,
            "opacity": opacity,
            "filter": filter_name,
        },
        "data": {
            "path": data,
            "test_path": eval_data,
            "labels": None if labels is None else str(labels),
            "resize": resize,
            "train": train_images,
            "clean": clean_images,
            "test": test_images,
            "classes": classes,
            "side" if data is None else "size": size,
        },
        "training": {
            "epochs": epochs,
            "batch_size": batch_size,
            "learning_rate": learning_rate,
            "flip": flip,
        },
        "rest": {
            "network": network,
            "model": None if model is None else str(model),
            "preprocess": preprocess,
            "seed": seed,
        },
    }
    given = {part: {k: v for k, v in named.items() if v is not None} for part, named in values.items()}
    if source is not None:
        given["attack"]["source_class"] = None if source == "any" else int(source)
    if network is not None and model is not None:
        raise typer.BadParameter("--network trains from scratch, --model trains a file; give one of them")
    from mothkit.poisoning.recipe import Recipe, compose

    base = None if recipe is None else Recipe.read(recipe)
    _run(out, compose(base, attack, **given), device, json, images_only=images_only, quiet=quiet)


def _run(
    out: Path, recipe: "Recipe", device: str, json: str | None, *, images_only: bool, quiet: bool
) -> None:
    from mothkit.poisoning.make import make_images, make_poisoned
    from mothkit.records import to_json
    from mothkit_cli.output import say, show
    from mothkit_cli.progress import progress_sink
    from mothkit_cli.tables import one_evaluation

    with progress_sink(quiet=quiet) as emit:
        if images_only:
            make_images(out, recipe, emit=emit)
            return
        record = make_poisoned(out, recipe, device=device, emit=emit)
    show(one_evaluation(record), record=to_json(record), json_to=json)
    if not quiet:
        say(f"written: {out}")
    wanted = record["recipe"]["attack"]["poison_rate"] > 0
    raise typer.Exit(ExitCode.DONE if record["took"] or not wanted else ExitCode.NOT_REACHED)
