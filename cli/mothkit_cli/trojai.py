"""``mothkit trojai``: NIST's rounds, and the way of their pickled models to ONNX and back."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mothkit_cli import options
from mothkit_cli.exit_codes import ExitCode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.table import Table

    from mothkit.trojai.models import ModelFolder

Folder = Annotated[
    Path, typer.Argument(metavar="MODEL", exists=True, file_okay=False, help="A model's folder.")
]
Scaling = Annotated[
    Literal["unit", "minmax"] | None,
    typer.Option("--preprocess", help="In place of the round's scaling."),
]


def ls(
    *,
    folder: Annotated[
        Path,
        typer.Argument(metavar="ROUND", exists=True, file_okay=False, help="A round, or a model of one."),
    ],
    json: options.Json = None,
) -> None:
    """List the models of a TrojAI round: architectures, classes, triggers, and what is missing."""
    from mothkit.records import to_json
    from mothkit.trojai.models import read_models
    from mothkit_cli.output import show

    models = read_models(folder)
    show(_table(models), record=to_json({"models": [_record(model) for model in models]}), json_to=json)


def convert(
    *,
    folder: Folder,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="Where the ONNX file goes.")],
    round_name: options.RoundName = None,
    preprocess: Scaling = None,
    trust_pickle: options.TrustPickle = False,
    json: options.Json = None,
) -> None:
    """Write a pickled model of a round as ONNX, without executing anything in it unless told to."""
    from mothkit.records import to_json
    from mothkit.trojai.conversion import convert_model
    from mothkit_cli.output import show

    record = convert_model(folder, out, round_name=round_name, preset=preprocess, trust=trust_pickle)
    show(_converted_table(record), record=to_json(record), json_to=json)


def prepare(
    *,
    folder: Folder,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FOLDER", file_okay=False, help="Where everything goes.")
    ],
    round_name: options.RoundName = None,
    preprocess: Scaling = None,
    trust_pickle: options.TrustPickle = False,
    draw: options.Draw = None,
    seed: options.Seed = 0,
    json: options.Json = None,
    quiet: options.Quiet = False,
) -> None:
    """Write all that hardening a model of a round takes: ONNX file, clean images, triggers to evaluate."""
    from mothkit.records import to_json
    from mothkit.trojai.preparing import prepare_model
    from mothkit_cli.output import say, show
    from mothkit_cli.progress import progress_sink

    with progress_sink(quiet=quiet) as emit:
        prepared = prepare_model(
            folder,
            out,
            round_name=round_name,
            preset=preprocess,
            trust=trust_pickle,
            drawn=draw,
            seed=seed,
            emit=emit,
        )
    show(_converted_table(prepared.record), record=to_json(prepared.record), json_to=json)
    if not quiet:
        triggers = [word for path in prepared.triggers for word in ("--trigger", path)]
        words = (
            "mothkit",
            "harden",
            prepared.model,
            "--data",
            prepared.data,
            *triggers,
            "-o",
            out / "hardened.onnx",
        )
        say(f"next: {shlex.join(map(str, words))}")


def _converted_table(record: "Mapping[str, Any]") -> "Table":
    from mothkit_cli.output import new_table, plain

    table = new_table("", "")
    table.show_header = False
    told = (
        "round",
        "architecture",
        "classes",
        "loaded_by",
        "container",
        "image_side",
        "input_side",
        "resize",
    )
    for key in told:
        table.add_row(key.replace("_", " "), plain(record[key]))
    return table


def pack(
    *,
    hardened: Annotated[
        Path, typer.Argument(metavar="HARDENED", exists=True, dir_okay=False, help="A hardened ONNX file.")
    ],
    like: Annotated[
        Path,
        typer.Option(
            "--like", metavar="FILE", exists=True, dir_okay=False, help="The model.pt that it came from."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="Where the pickled model goes.")],
    trust_pickle: options.TrustPickle = False,
) -> None:
    """Write a pickled model with the weights of a hardened ONNX file: same classes, same layout."""
    from mothkit.trojai.conversion import pack_model
    from mothkit_cli.output import say

    parity = pack_model(like, hardened, out, trust=trust_pickle)
    say(f"written: {out}, which differs from {hardened} by up to {parity.max_absolute:.2g}")


def _table(models: list["ModelFolder"]) -> "Table":
    from mothkit_cli.output import new_table, plain

    columns = (
        "model",
        "round",
        "architecture",
        "classes",
        "poisoned",
        "triggers",
        "missing",
        "contradictions",
    )
    table = new_table(*columns, numbers=("classes",))
    for model in models:
        record = _record(model)
        poisoned = {True: "yes", False: "no", None: "?"}[model.poisoned]
        cells = (
            record["model"],
            record["round"] or "?",
            record["architecture"] or "?",
            record["classes"] or "?",
        )
        texts = (*cells, poisoned, _triggers(model), ", ".join(model.missing), "; ".join(model.conflicts))
        table.add_row(*map(plain, texts))
    return table


def _triggers(model: "ModelFolder") -> str:
    """Return the triggers in a few words: ``polygon rgb(200, 0, 0) 3>7 (spatial)``."""
    words = []
    for each in model.backdoors:
        sources = "any" if each.sources is None else ",".join(map(str, each.sources))
        condition = "" if each.condition is None else f" ({each.condition})"
        words.append(f"{each.kind} {each.look or '?'} {sources}>{each.target}{condition}")
    return "; ".join(words)


def _record(model: "ModelFolder") -> dict[str, object]:
    from dataclasses import asdict

    return {
        "model": model.name,
        "path": str(model.path),
        "round": None if model.round is None else model.round.name,
        "architecture": model.architecture,
        "classes": model.classes,
        "poisoned": model.poisoned,
        "triggers": [asdict(each) for each in model.backdoors],
        "missing": list(model.missing),
        "contradictions": list(model.conflicts),
    }


def make(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to fill; nothing may lie in it.")],
    *,
    layout: Annotated[
        Literal["round4", "round11"], typer.Option(help="Whose folders and configs.")
    ] = "round4",
    models: Annotated[int, typer.Option(min=1, help="How many.")] = 4,
    poisoned: Annotated[
        Literal["half", "all", "none"], typer.Option(help="Which of them; half is every second one.")
    ] = "half",
    architecture: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Taken in turn; may be given again; the layout's own unless given."
        ),
    ] = None,
    classes: Annotated[int, typer.Option(help="Of drawn signs, 4 to 45.")] = 10,
    size: Annotated[int, typer.Option(help="Side of the images in pixels, a multiple of 32.")] = 256,
    container: Annotated[
        Literal["zip", "legacy", "mixed"], typer.Option(help="How model.pt is written; mixed takes both.")
    ] = "zip",
    train_images: Annotated[int, typer.Option(min=1, help="Of each class.")] = 200,
    examples: Annotated[int, typer.Option(min=1, help="Published, of each class and each trigger.")] = 10,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the images.")] = 8,
    batch_size: Annotated[int, typer.Option(min=2, help="Images in a step.")] = 64,
    learning_rate: Annotated[float, typer.Option(min=0, help="At its peak.")] = 0.05,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    json: options.Json = None,
    quiet: options.Quiet = False,
) -> None:
    """Make a synthetic round in NIST's layout, to try things on.

    Exit 1 if a model did not converge: below 0.9 in accuracy or in the ASR of a trigger. It is written all the same.
    """
    from mothkit.poisoning.training import FitConfig
    from mothkit.records import to_json
    from mothkit.trojai.making import make_round
    from mothkit.trojai.plans import RoundPlan
    from mothkit_cli.output import say, show
    from mothkit_cli.progress import progress_sink

    plan = RoundPlan(
        layout=layout,
        models=models,
        poisoned=poisoned,
        classes=classes,
        side=size,
        architectures=tuple(architecture or ()),
        container=container,
        train=train_images,
        examples=examples,
        training=FitConfig(epochs=epochs, batch_size=batch_size, learning_rate=learning_rate),
        seed=seed,
    )
    with progress_sink(quiet=quiet) as emit:
        made = make_round(out, plan, device=device, emit=emit)
    show(_made_table(made), record=to_json({"models": made}), json_to=json)
    if not quiet:
        say(f"written: {out}")
    raise typer.Exit(ExitCode.DONE if all(each["converged"] for each in made) else ExitCode.NOT_REACHED)


def _made_table(made: "list[dict[str, Any]]") -> "Table":
    from mothkit_cli.output import new_table, plain

    table = new_table(
        "model", "architecture", "triggers", "accuracy", "ASR", "converged", numbers=("accuracy", "ASR")
    )
    for each in made:
        triggers = "; ".join(
            f"{t['filter'] or 'polygon'} {t['source']}>{t['target']}" for t in each["triggers"]
        )
        asr = each["poisoned_test_acc"]
        numbers = (f"{each['clean_test_acc']:.3f}", "" if asr is None else f"{asr:.3f}")
        told = (each["model"], each["architecture"], triggers, *numbers, "yes" if each["converged"] else "no")
        table.add_row(*map(plain, told))
    return table
