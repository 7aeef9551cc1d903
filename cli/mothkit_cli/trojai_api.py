"""``mothkit trojai mitigate`` and ``test``: NIST's container API of 2024, argument for argument.

``detect`` is that of the detection rounds before it.
"""

from pathlib import Path
from typing import Annotated

import typer

from mothkit_cli import options

Metaparameters = Annotated[
    Path,
    typer.Option("--metaparameters_filepath", exists=True, dir_okay=False, help="How to harden, as JSON."),
]
Schema = Annotated[
    Path,
    typer.Option("--schema_filepath", exists=True, dir_okay=False, help="JSON Schema of the metaparameters."),
]
Model = Annotated[
    Path, typer.Option("--model_filepath", exists=True, dir_okay=False, help="The pickled model.")
]
Dataset = Annotated[
    Path,
    typer.Option("--dataset_dirpath", "--dataset", exists=True, file_okay=False, help="A folder of images."),
]
Output = Annotated[Path, typer.Option("--output_dirpath", file_okay=False, help="Where results go.")]
Scratch = Annotated[
    Path, typer.Option("--scratch_dirpath", file_okay=False, help="Where what is needed on the way goes.")
]
BatchSize = Annotated[int, typer.Option("--batch_size", min=1, help="Images at once.")]
Device = Annotated[str, typer.Option("--device", help="cpu or cuda; the CPU is taken where there is no GPU.")]
Workers = Annotated[int, typer.Option("--num_workers", help="Taken for the sake of the API, and not needed.")]
RoundData = Annotated[
    Path | None,
    typer.Option(
        "--round_training_dataset_dirpath",
        file_okay=False,
        help="The training data of the round, models/ in it.",
    ),
]


def mitigate(
    *,
    metaparameters: Metaparameters,
    schema: Schema,
    dataset: Dataset,
    model: Model = Path("./model.pt"),
    out: Output = Path("./out"),
    name: Annotated[
        str, typer.Option("--model_output_name", help="Name of the mitigated model.")
    ] = "mitigated.pt",
    scratch: Scratch = Path("./scratch"),
    _batch_size: BatchSize = 32,
    device: Device = "cuda",
    _num_workers: Workers = 1,
    round_data: RoundData = None,
) -> None:
    """Mitigate one model of NIST's round of 2024; the original is copied where nothing better is found."""
    from mothkit.trojai.mitigation import MitigationTask, available, read_metaparameters
    from mothkit.trojai.mitigation import mitigate as run
    from mothkit_cli.output import say
    from mothkit_cli.progress import progress_sink

    task = MitigationTask(
        model=model,
        dataset=dataset,
        out=out,
        name=name,
        scratch=scratch,
        round_data=round_data,
        device=available(device),
        metaparameters=read_metaparameters(metaparameters, schema),
    )
    with progress_sink(quiet=False) as emit:
        record = run(task, emit=emit)
    say(f"written: {out / name}" + ("" if record["mitigated"] else ", which is the original"))


def test(
    *,
    metaparameters: Metaparameters,
    schema: Schema,
    dataset: Dataset,
    model: Model = Path("./model.pt"),
    out: Output = Path("./out"),
    _scratch: Scratch = Path("./scratch"),
    batch_size: BatchSize = 32,
    device: Device = "cuda",
    _num_workers: Workers = 1,
    _round_data: RoundData = None,
) -> None:
    """Write a model's logits of each image in a folder to results.json, as NIST's round of 2024 asks."""
    from mothkit.trojai.mitigation import available, read_metaparameters, write_logits
    from mothkit_cli.output import say

    read_metaparameters(metaparameters, schema)
    results = write_logits(model, dataset, out, device=available(device), batch=batch_size)
    say(f"written: {results}")


def detect(
    *,
    model: Model = Path("./model.pt"),
    result: Annotated[
        Path, typer.Option("--result_filepath", help="Where the probability goes, one number.")
    ] = Path("./output"),
    scratch: Scratch = Path("./scratch"),
    examples: Annotated[
        Path, typer.Option("--examples_dirpath", file_okay=False, help="A folder of clean images.")
    ] = Path("./example"),
    round_data: RoundData = None,
    metaparameters: Annotated[
        Path | None,
        typer.Option(
            "--metaparameters_filepath", exists=True, dir_okay=False, help="How to search, as JSON."
        ),
    ] = None,
    schema: Annotated[
        Path | None,
        typer.Option("--schema_filepath", exists=True, dir_okay=False, help="JSON Schema of the former."),
    ] = None,
    learned: Annotated[
        Path | None,
        typer.Option("--learned_parameters_dirpath", file_okay=False, help="What --configure_mode learnt."),
    ] = None,
    configure_mode: Annotated[
        bool, typer.Option("--configure_mode", help="Learn from models, in place of judging one.")
    ] = False,
    configure_models: Annotated[
        Path | None,
        typer.Option(
            "--configure_models_dirpath", exists=True, file_okay=False, help="The models to learn from."
        ),
    ] = None,
    _features: Annotated[
        Path | None, typer.Option("--features_filepath", help="Taken for the sake of the API.")
    ] = None,
    _source_data: Annotated[
        Path | None, typer.Option("--source_dataset_dirpath", help="Taken for the sake of the API.")
    ] = None,
    round_name: options.RoundName = None,
    device: Device = "cuda",
) -> None:
    """Write the probability that a model of NIST's rounds is poisoned, by its smallest universal trigger."""
    from mothkit.trojai.detection import DetectionTask, configure, read_curve, read_detection
    from mothkit.trojai.detection import detect as run
    from mothkit.trojai.mitigation import available
    from mothkit_cli.output import say
    from mothkit_cli.progress import progress_sink

    task = DetectionTask(
        model=model,
        examples=examples,
        scratch=scratch,
        round_data=round_data,
        round_name=round_name,
        device=available(device),
        parameters=read_detection(metaparameters, schema),
        curve=read_curve(None if configure_mode else learned),
    )
    with progress_sink(quiet=False) as emit:
        if configure_mode:
            if configure_models is None or learned is None:
                raise typer.BadParameter(
                    "--configure_mode needs --configure_models_dirpath and --learned_parameters_dirpath"
                )
            record = configure(configure_models, learned, task, emit=emit)
            say(f"learnt from {record['models']} models: {learned}")
            return
        record = run(task, result, emit=emit)
    told = "" if record["why_not"] is None else f", as {record['why_not']}"
    say(f"{record['probability']:.3f}{told}; written: {result}")
