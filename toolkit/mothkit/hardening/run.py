"""A hardening in rounds: triggers are inverted, stamped, trained against, and the weights are judged.

MOTH and the methods that it is compared with share this loop. They differ in the directions that a round takes.
"""

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from mothkit.classifier import Classifier
from mothkit.events import EventSink, Note, PhaseStarted, StepDone
from mothkit.hardening.bank import Direction, TriggerBank, sources_of
from mothkit.hardening.base import Budget, Hardened, check_images
from mothkit.hardening.checkpoint import Checkpoint
from mothkit.hardening.inverting import Inverter
from mothkit.hardening.pairs import PairTable, measure_ease
from mothkit.hardening.profiles import MothConfig
from mothkit.hardening.selection import Candidate, DropEstimator, best_of, mirroring_is_safe
from mothkit.hardening.stamping import Aim, in_turn, usable_stamps
from mothkit.hardening.training import Sampler, Trainer, has_norm
from mothkit.images import ImageSet
from mothkit.inversion.found import Inverted

_OF_BUDGET = 0.85  # the rest is for judging weights, and for what a plan gets wrong

Choice = Callable[["Run"], list[Direction]]
"""Which directions the next round of a run takes."""


def harden_in_rounds(
    choose: Choice,
    config: MothConfig,
    classifier: Classifier,
    images: ImageSet,
    *,
    generator: torch.Generator,
    device: torch.device,
    emit: EventSink,
    budget: Budget,
    checkpoint: Checkpoint | None,
) -> Hardened:
    """Return a hardened copy of ``classifier``; see ``Defence``.

    Raises:
        ImageError: a class has fewer than two images.
        ResumeError: the checkpoint cannot be read or written.
    """
    run = Run.begin(config, classifier, images, generator, device, emit, budget)
    saved = checkpoint.load() if checkpoint else None
    if saved is None:
        run.warm_up()
        if checkpoint:
            checkpoint.save(run.state())  # the warm-up is the longest piece without a round's end
    else:
        run.restore(saved)
        emit(Note(f"resumed at step {run.trainer.done} of {run.trainer.total}"))
    emit(PhaseStarted("harden pairs", run.trainer.total))
    cut = False
    while not run.is_done() and not (cut := budget.is_spent(run.started)):
        if checkpoint and checkpoint.due():
            checkpoint.save(run.state())
        run.round(choose(run))
    if checkpoint:
        checkpoint.save(run.state())  # another --max-accuracy-drop can then choose without training anew
    return run.result(cut=cut)


@dataclass(slots=True, eq=False)
class Run:
    """One hardening in progress."""

    config: MothConfig
    images: ImageSet
    sampler: Sampler
    trainer: Trainer
    inverter: Inverter
    estimator: DropEstimator
    generator: torch.Generator
    emit: EventSink
    budget: Budget
    mirror: bool
    started: float
    _table: PairTable | None = None
    _bank: TriggerBank | None = None
    tried: list[Candidate] = field(default_factory=list)
    rounds: int = 0

    @classmethod
    def begin(
        cls,
        config: MothConfig,
        original: Classifier,
        images: ImageSet,
        generator: torch.Generator,
        device: torch.device,
        emit: EventSink,
        budget: Budget,
    ) -> "Run":
        """Split the images, copy the model, measure where it stands."""
        check_images(images, original.classes)
        emit(PhaseStarted("prepare"))
        teacher = copy.deepcopy(original).to(device).eval()
        rest, held_back = images.split(config.held_back, generator=generator)
        mirror = config.training.flip and mirroring_is_safe(teacher, images, device)
        if config.training.flip and not mirror:
            emit(Note("images are not mirrored: the model tells mirrored classes apart"))
        factor = 1.0 if has_norm(teacher) else config.without_norm
        if factor < 1:
            emit(Note(f"no normalisation layer: the learning rate is {factor:g} of the usual"))
        training = replace(config.training, flip=mirror, learning_rate=factor * config.training.learning_rate)
        total = budget.steps or config.total_steps(len(rest), original.classes)
        seed = int(torch.randint(2**31, (), generator=generator))
        sampler = Sampler(rest, training, generator)
        trainer = Trainer(copy.deepcopy(teacher), teacher, training, total, device)
        return cls(
            config=replace(config, training=training),  # the record tells what was done, not what was asked
            images=images,
            sampler=sampler,
            trainer=trainer,
            inverter=Inverter(trainer.classifier, sampler, generator, device),
            estimator=DropEstimator(
                teacher, held_back, views=config.views, mirror=mirror, seed=seed, device=device
            ),
            generator=generator,
            emit=emit,
            budget=budget,
            mirror=mirror,
            started=time.monotonic(),
        )

    @property
    def classes(self) -> int:
        """How many the model has."""
        return self.trainer.classifier.classes

    @property
    def table(self) -> PairTable:
        """What is known of every direction; there once warm-up or restore is over."""
        if self._table is None:
            raise RuntimeError("the run has not been warmed up")
        return self._table

    @property
    def bank(self) -> TriggerBank:
        """The triggers so far; there once warm-up or restore is over."""
        if self._bank is None:
            raise RuntimeError("the run has not been warmed up")
        return self._bank

    def is_done(self) -> bool:
        """Return whether all planned steps are done."""
        return self.trainer.done >= self.trainer.total

    def warm_up(self) -> None:
        """Invert one universal trigger a target class, and train one step against each."""
        others = [sources_of((None, t), self.classes) for t in range(self.classes)]
        drawn = [[self.sampler.draw([s], self.config.warm_up_images) for s in sources] for sources in others]
        self.emit(PhaseStarted("warm-up: universal triggers"))
        began = time.monotonic()
        pooled, targets = [torch.cat(parts) for parts in drawn], range(self.classes)
        found = self.inverter.invert(pooled, targets, self.config.warm_up, emit=self.emit)
        if self.budget.seconds is not None and self.budget.steps is None:
            inverted = self.config.warm_up.steps * sum(map(len, pooled))
            self._plan(self.budget.seconds, (time.monotonic() - began) / inverted)
        self._bank = TriggerBank(torch.cat([found.masks, found.patterns], dim=1))
        sizes = torch.where(found.found, found.mask_l1, torch.nan)
        self._table = PairTable.after_warm_up(measure_ease(found, drawn, others), sizes)
        stamped = round(self.config.warm_up_stamped * self.config.training.batch_size)
        for target in targets:
            if not self.is_done():
                self._train(found, [(target, others[target], stamped)])

    def _plan(self, seconds: float, per_image: float) -> None:
        """Take as many steps as the time allows, so that the learning rate falls to its end within it.

        Args:
            seconds: the whole budget.
            per_image: seconds that one image of one inversion step takes, as the warm-up showed.
        """
        left = _OF_BUDGET * (seconds - (time.monotonic() - self.started))
        rounds = max(1, int(left / (self.config.images_a_round * per_image)))
        planned = self.classes + rounds * self.config.steps_per_round
        if planned < self.trainer.total:
            self.trainer.total = planned
            self.emit(
                Note(f"the time budget allows {planned} training steps; --steps {planned} repeats them")
            )

    def round(self, directions: Sequence[Direction]) -> None:
        """Invert the ``directions``, train on stamped images, take in the sizes."""
        sizes: list[Tensor] = []
        every = math.ceil(self.config.steps_per_round / self.config.inversions_per_round)
        sources = [sources_of(direction, self.classes) for direction in directions]
        found, whole = None, True
        for step in range(self.config.steps_per_round):
            if self.is_done():
                break
            if found is None or step % every == 0:
                found = self._invert(directions, refresh=not whole)
                whole = not bool(found.found.all())
                sizes.append(torch.where(found.found, found.mask_l1, torch.nan))
            self._train(found, [(row, each, self._count(each)) for row, each in enumerate(sources)])
        means = torch.stack(sizes).nanmean(0).tolist()
        for each, (_, target), size in zip(sources, directions, means, strict=True):
            for source in each:
                self.table.update(source, target, size)
        self.rounds += 1
        self._report(directions, sizes[-1])
        self._judge()

    def _invert(self, directions: Sequence[Direction], *, refresh: bool) -> Inverted:
        """Invert from where each direction stands, and keep what was found as its next start."""
        config = self.config.refresh if refresh else self.config.inversion
        carried = self.bank.start_costs(directions, config.initial_cost) if self.config.carry_cost else None
        found = self.inverter.invert(
            [self._draw(direction) for direction in directions],
            [target for _, target in directions],
            config,
            start=self.bank.start(directions),
            cost=carried,
        )
        self.bank.keep(directions, found)
        return found

    def _draw(self, direction: Direction) -> Tensor:
        """Return the images that a direction's trigger is inverted on."""
        if direction[0] is not None:
            return self.sampler.draw([direction[0]], self.config.inversion_images)
        sources = sources_of(direction, self.classes)
        return torch.cat([self.sampler.draw([source], self.config.warm_up_images) for source in sources])

    @property
    def _room(self) -> int:
        """How many images of a batch may be stamped."""
        return round(self.config.most_stamped * self.config.training.batch_size)

    def _count(self, sources: Sequence[int]) -> int:
        return min(self.config.stamped * len(sources), self._room)

    def _train(self, found: Inverted, aims: Sequence[Aim]) -> None:
        stamps = usable_stamps(found, aims, largest=self.config.largest_stamp)
        self.trainer.step(self.sampler.batch(in_turn(stamps, self.trainer.done, self._room)))

    def _report(self, directions: Sequence[Direction], sizes: Tensor) -> None:
        done, total = self.trainer.done, self.trainer.total
        names = " ".join(f"{'all' if s is None else s}-{t}" for s, t in directions[:8:2])
        found = sizes[~sizes.isnan()]
        size = f"{float(found.mean()):.1f} px" if len(found) else "none found"
        self.emit(StepDone(done, total, f"pairs {names}, triggers {size}"))

    def _judge(self) -> None:
        """Judge the weights where a candidate is due: evenly over the last half of the run."""
        half = self.trainer.total / 2
        ahead = self.config.candidates - 1 - len(self.tried)
        due = self.trainer.total - ahead * half / max(self.config.candidates - 1, 1)
        if self.is_done() or self.trainer.done >= due:
            self.tried.append(self._candidate())

    def _candidate(self) -> Candidate:
        """Return the present weights, judged."""
        classifier = self.trainer.classifier
        weights = {name: tensor.detach().cpu().clone() for name, tensor in classifier.state_dict().items()}
        return Candidate(self.trainer.done, self.estimator.drop(classifier), weights)

    def result(self, *, cut: bool) -> Hardened:
        """Return the best of what was judged; weights cut off by time are judged as they are."""
        if not self.tried or self.tried[-1].step != self.trainer.done:
            self.tried.append(self._candidate())
        chosen = best_of(self.tried, self.budget.max_accuracy_drop)
        hardened = None
        if chosen is not None:
            hardened = copy.deepcopy(self.trainer.classifier)
            hardened.load_state_dict(chosen.weights)
            hardened = hardened.cpu().eval()
        return Hardened(
            classifier=hardened,
            chosen=chosen,
            candidates=tuple(self.tried),
            steps=self.trainer.done,
            cut=cut,
            seen=(self.images.digest,),
            details=self._details(),
        )

    def _details(self) -> dict[str, Any]:
        visited = [[s, t, int(n)] for s, t, n in _entries(self.table.visits) if n and s < t]
        return {
            "config": asdict(self.config),
            "mirrored": self.mirror,
            "rounds": self.rounds,
            "planned_steps": self.trainer.total,
            "pairs_visited": visited,
            "last_mask_l1": [
                [s, t, size] for s, t, size in _entries(self.table.size) if not math.isnan(size)
            ],
            "held_back_accuracy_before": dict(
                zip(("plain", "hard_views"), self.estimator.before, strict=True)
            ),
        }

    def state(self) -> dict[str, Any]:
        """Return all that the run needs to go on, as tensors and plain values."""
        return {
            "trainer": self.trainer.state(),
            "sampler": self.sampler.state(),
            "generator": self.generator.get_state(),
            "table": self.table.state(),
            "bank": self.bank.state(),
            "tried": [(c.step, c.accuracy_drop, c.weights) for c in self.tried],
            "rounds": self.rounds,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from ``state``."""
        self.trainer.restore(state["trainer"])
        self.sampler.restore(state["sampler"])
        self._table = PairTable(**state["table"])
        self._bank = TriggerBank(**state["bank"])
        self.tried = [Candidate(step, drop, weights) for step, drop, weights in state["tried"]]
        self.rounds = int(state["rounds"])
        self.generator.set_state(state["generator"])


def _entries(table: Tensor) -> Iterator[tuple[int, int, float]]:
    for s in range(len(table)):
        for t in range(len(table)):
            if s != t:
                yield s, t, float(table[s, t])
