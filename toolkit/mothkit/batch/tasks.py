"""What a batch is asked to harden: a folder of ONNX files, a CSV manifest with a line a model, or a round of TrojAI."""

import csv
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from mothkit.batch.conditions import Condition
from mothkit.errors import ConfigError, ModelError
from mothkit.pipeline import HardenSettings
from mothkit.trojai.documents import parse_value
from mothkit.trojai.models import ModelFolder, find_models, read_model, read_tables

_MAX_BYTES = 64 << 20
_MAX_TASKS = 100_000
_NAME = re.compile(r"[^\W_][\w.+-]{0,99}")  # it names a folder, on any system
_OWN = ("name", "model", "data", "triggers", "eval_data", "preprocess")


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparing:
    """How models of a round are prepared.

    Attributes:
        round: of TrojAI, where a folder does not say it.
        trust: whether pickles are loaded as torch does it, which may run any code, each in a process of its own.
        drawn: clean images of each class that there are to be, drawn where fewer are published; None for the usual.
    """

    round: str | None = None
    trust: bool = False
    drawn: int | None = None


_AS_USUAL = Preparing()


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One model to harden; its paths are absolute, since a worker may run elsewhere.

    Attributes:
        name: of its folder among the results; no other task of a batch has it.
        model: the ONNX file, or the folder of a round's model.
        data: clean images; empty where the folder has its own.
        preparing: how a round's model is prepared.
        triggers, eval_data, preprocess: where they are given, in place of the batch's.
        facts: what else is known of it, for conditions and reports; plain JSON types.
    """

    name: str
    model: Path
    data: str
    triggers: tuple[Path, ...] = ()
    eval_data: str | None = None
    preprocess: str | None = None
    preparing: Preparing = _AS_USUAL
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def stages(self) -> tuple[str, ...]:
        """What is done with it, in order; see ``mothkit.batch.jobs.STAGES``."""
        return ("harden",) if self.data else ("prepare", "harden", "pack")

    def settings(self, common: HardenSettings) -> HardenSettings:
        """Return the batch's settings with what this task has of its own."""
        return replace(
            common,
            triggers=self.triggers or common.triggers,
            eval_data=self.eval_data or common.eval_data,
            preprocess=self.preprocess or common.preprocess,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return asdict(self) | {"model": str(self.model), "triggers": [str(path) for path in self.triggers]}


def find_tasks(
    source: Path,
    *,
    data: str | None = None,
    where: Condition | None = None,
    preparing: Preparing = _AS_USUAL,
) -> list[Task]:
    """Return what is to be hardened, by name.

    Args:
        source: a folder of ``.onnx`` files, a CSV file with the columns model, data and triggers, or a round of
            TrojAI, whose models bring images and triggers.
        data: clean images for models that name none.
        where: which models are taken; None takes all.
        preparing: how models of a round are prepared.

    Raises:
        ConfigError: ``source`` is none of these, a line of it cannot be taken, two models have one name, ``where`` asks
            for what is known of none of them, or there are no models of a round to prepare as asked.
        ModelError: the table of a round cannot be read.
    """
    source, data = source.absolute(), None if data is None else str(Path(data).absolute())
    if not source.is_dir():
        tasks = list(_in_manifest(source, data))
    elif models := sorted(path for path in source.iterdir() if path.suffix.lower() == ".onnx"):
        tasks = list(_in_folder(models, data))
    elif data is None:
        tasks = list(_in_round(source, preparing))
    else:
        raise ConfigError(
            f"{source}: holds no .onnx file; a round's models bring images, so leave out --data"
        )
    if preparing != _AS_USUAL and tasks[0].data:
        raise ConfigError(
            f"{source}: is no round; --round, --trust-pickle and --draw are for models of a round"
        )
    twice = [name for name, count in Counter(task.name.lower() for task in tasks).items() if count > 1]
    if twice:
        raise ConfigError(
            f"{source}: two models are called {twice[0]!r}; give them names in a manifest's column 'name'"
        )
    return sorted(_chosen(tasks, where), key=lambda task: task.name)


def _chosen(tasks: Sequence[Task], where: Condition | None) -> Iterable[Task]:
    if where is None:
        return tasks
    known = {name for task in tasks for name in task.facts}
    if unknown := sorted(where.names - known):
        raise ConfigError(
            f"--where {where.text!r}: nothing is called {unknown[0]!r}; there are {', '.join(sorted(known))}"
        )
    return [task for task in tasks if where.holds(task.facts)]


def _in_folder(models: Sequence[Path], data: str | None) -> Iterable[Task]:
    if data is None:
        raise ConfigError(f"{models[0].parent}: models in a folder need clean images; give --data")
    for model in models:
        name = _checked_name(model.stem, str(model))
        yield Task(name=name, model=model, data=data, facts={"name": name})


def _in_round(folder: Path, preparing: Preparing) -> Iterable[Task]:
    """Yield the models of a round; of one whose files cannot be read nothing is known, and its worker says why."""
    try:
        models = find_models(folder)
    except ModelError as error:
        raise ConfigError(f"{folder}: holds no .onnx file, and no model of a TrojAI round") from error
    tables = {parent: read_tables(parent) for parent in {path.parent for path in models}}
    for path in models:
        try:
            facts = _facts(read_model(path, tables[path.parent]))
        except ModelError:
            facts = {}
        facts |= {"name": path.name} | ({"trusted_pickle": True} if preparing.trust else {})
        yield Task(name=path.name, model=path, data="", preparing=preparing, facts=facts)


def _facts(model: ModelFolder) -> dict[str, Any]:
    """Return what is known of a round's model: what its files and its line of METADATA.csv say, in plain values."""
    plain = {key: value for key, value in model.facts.items() if isinstance(value, str | int | float | None)}
    return plain | {
        "round": None if model.round is None else model.round.name,
        "architecture": model.architecture,
        "classes": model.classes,
        "poisoned": model.poisoned,
        "triggers": len(model.backdoors),
    }


def _in_manifest(path: Path, data: str | None) -> Iterable[Task]:
    for line, row in _rows(path):
        yield _of_line(row, f"{path}, line {line}", path.parent, data)


def _rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Return number and values of each line of a manifest."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ConfigError(f"{path}: {path.stat().st_size} bytes are no manifest")
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file, strict=True)
            columns = [name.strip().lower() for name in next(lines, [])]
            rows = [(lines.line_num, [value.strip() for value in row]) for row in lines if row]
    except (OSError, ValueError, csv.Error) as error:
        raise ConfigError(f"{path}: cannot be read as a manifest in CSV: {error}") from error
    if "model" not in columns or len(set(columns)) < len(columns):
        raise ConfigError(
            f"{path}: has the columns {', '.join(columns)}; expected each once, and 'model' among them"
        )
    if not 0 < len(rows) <= _MAX_TASKS:
        raise ConfigError(f"{path}: names {len(rows)} models; expected 1 to {_MAX_TASKS}")
    for line, row in rows:
        if len(row) != len(columns):
            raise ConfigError(f"{path}, line {line}: has {len(row)} values for {len(columns)} columns")
    return [(line, dict(zip(columns, row, strict=True))) for line, row in rows]


def _of_line(row: Mapping[str, str], where: str, folder: Path, data: str | None) -> Task:
    """Return the task of one line, whose paths are relative to ``folder``."""
    given = {key: row.get(key, "") for key in _OWN}
    if not given["model"]:
        raise ConfigError(f"{where}: names no model")
    model = folder / given["model"]
    images = str(folder / given["data"]) if given["data"] else data
    if images is None:
        raise ConfigError(f"{where}: names no data; give --data for models without")
    name = _checked_name(given["name"] or model.stem, where)
    spec = folder / given["preprocess"]
    return Task(
        name=name,
        model=model,
        data=images,
        triggers=tuple(folder / part.strip() for part in given["triggers"].split(";") if part.strip()),
        eval_data=str(folder / given["eval_data"]) if given["eval_data"] else None,
        preprocess=str(spec) if spec.is_file() else given["preprocess"] or None,
        facts={"name": name} | {key: parse_value(text) for key, text in row.items() if key not in _OWN},
    )


def _checked_name(name: str, where: str) -> str:
    if _NAME.fullmatch(name) is None:
        raise ConfigError(
            f"{where}: {name!r} cannot name a folder of results; expected a letter or digit, then up to 99 of "
            "letters, digits and . + - _, in a manifest's column 'name'"
        )
    return name
