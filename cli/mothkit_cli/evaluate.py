"""``mothkit evaluate``: accuracy, ASR and robust accuracy, in onnxruntime."""

from mothkit_cli import options
from mothkit_cli.opening import Opening, with_opening


@with_opening
def evaluate(
    *,
    opening: Opening,
    model: options.Model,
    data: options.Data,
    triggers: options.Triggers = None,
    json: options.Json = None,
    quiet: options.Quiet = False,
) -> None:
    """Measure accuracy, ASR and robust accuracy."""
    from mothkit.measuring import evaluate_file
    from mothkit.records import to_json
    from mothkit_cli.output import show
    from mothkit_cli.progress import progress_sink
    from mothkit_cli.tables import one_evaluation

    settings = opening.settings()
    with progress_sink(quiet=quiet) as emit:
        record = evaluate_file(model, data, settings, triggers=triggers or (), emit=emit)
    show(one_evaluation(record), record=to_json(record), json_to=json)
