"""The state of a hardening in rounds: triggers are inverted, stamped, trained against, and the weights are judged."""

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from mothkit.classifier import Classifier
from mothkit.events import EventSink, Note, PhaseStarted, StepDone
from mothkit.hardening.bank import Direction, TriggerBank, sources_of
from mothkit.hardening.base import Budget, Hardened, check_images
from mothkit.hardening.inverting import Inverter
from mothkit.hardening.judging import Judge
from mothkit.hardening.norms import has_norm, loss_by_batch
from mothkit.hardening.pairs import Pair, PairTable
from mothkit.hardening.patches import Suspect, in_their_turn, look_again, suspects
from mothkit.hardening.planning import Extent, Pace
from mothkit.hardening.profiles import MothConfig
from mothkit.hardening.scouting import scout
from mothkit.hardening.selection import Candidate, DropEstimator, mirroring_is_safe
from mothkit.hardening.stamping import Aim, in_turn, usable_stamps
from mothkit.hardening.tints import Tinter, TintSuspect
from mothkit.hardening.training import Batch, Sampler, Stamp, Trainer
from mothkit.hardening.warm_up import Universals, invert_universals, seconds_per_image, whole_extent
from mothkit.images import ImageSet
from mothkit.inversion.config import InversionConfig
from mothkit.inversion.engine import frozen
from mothkit.inversion.found import Inverted
from mothkit.inversion.plan import make_plan
from mothkit.pgd import PgdConfig, pgd_examples

_SHOWN = 32  # images that the plan of inversions goes by
_OF_BUDGET = 0.85  # the rest is for what a plan gets wrong
_FOR_WARM_UP = 0.25  # share of the time left that the universal triggers may take
_FOR_SCOUTING = 0.1  # the same of the look at every pair after them
_FOR_TINTS = 0.02  # the same of the look at tints
_MOST_SCOUTING = (
    0.5  # of the images that the profile's rounds take; it binds from some 70 classes of 32 images on
)


@dataclass(slots=True, eq=False)
class Run:
    """One hardening in progress."""

    config: MothConfig
    images: ImageSet
    sampler: Sampler
    trainer: Trainer
    inverter: Inverter
    judge: Judge
    teacher: Classifier
    generator: torch.Generator
    emit: EventSink
    budget: Budget
    mirror: bool
    pace: Pace
    extent: Extent
    shortened: bool = False
    scouted: int = 0
    unscouted: int = 0
    suspects: list[Suspect] = field(default_factory=list)
    tint_suspects: list[TintSuspect] = field(default_factory=list)
    _table: PairTable | None = None
    _bank: TriggerBank | None = None
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
        pace = Pace(budget, started=budget.now())
        check_images(images, original.classes)
        emit(PhaseStarted("prepare"))
        teacher = copy.deepcopy(original).to(device).eval()
        rest, held_back = images.split(config.held_back, generator=generator)
        mirror = config.training.flip and mirroring_is_safe(teacher, images, device)
        if config.training.flip and not mirror:
            emit(Note("images are not mirrored: the model tells mirrored classes apart"))
        with frozen(teacher):
            few = images.pixels(torch.arange(min(len(images), _SHOWN)))
            config = config.planned(make_plan(teacher, few, config.inversion, device)).sized(images.shape)
        follows = _follows_batches(teacher, images, config, device, emit)
        config = config.following() if follows else config.steady()
        training = replace(config.training, flip=mirror)
        total = budget.steps or config.total_steps(len(rest), original.classes)
        seed = int(torch.randint(2**31, (), generator=generator))
        sampler = Sampler(rest, training, generator)
        trainer = Trainer(copy.deepcopy(teacher), teacher, training, total, device)
        inverter = Inverter(trainer.classifier, sampler, generator, device)
        began = budget.now()
        estimator = DropEstimator(
            teacher, held_back, views=config.views, mirror=mirror, seed=seed, device=device
        )
        pace.judging = budget.now() - began
        return cls(
            config=replace(config, training=training),  # the record tells what was done, not what was asked
            images=images,
            sampler=sampler,
            trainer=trainer,
            inverter=inverter,
            judge=Judge(estimator, config.candidates),
            teacher=teacher,
            generator=generator,
            emit=emit,
            budget=budget,
            mirror=mirror,
            pace=pace,
            extent=whole_extent(inverter, config, original.classes),
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

    def warm_up(self, usual: Sequence[Direction]) -> None:
        """Invert one universal trigger a target class, scout every direction, and train one step a target class.

        Directions are scouted where the ``usual`` ones have a source class. A time budget bounds all of it: there are
        fewer images, steps, classes or directions then. It also sets how many training steps are planned, by what
        rounds of the ``usual`` directions will cost.
        """
        self.emit(PhaseStarted("warm-up: universal triggers"))
        if self.budget.seconds is not None:
            self._fit_warm_up()
        began = self.budget.now()
        universals = invert_universals(self.inverter, self.config, self.classes, self.extent, emit=self.emit)
        per_image = (self.budget.now() - began) / self.extent.work
        self._bank = universals.bank(self.config, self.generator)
        self._table = universals.table()
        if self.config.scout_images and any(source is not None for source, _ in usual):
            self._scout(usual, per_image)
        self._look_at_tints(per_image)
        if self.budget.seconds is not None and self.budget.steps is None:
            self._plan(usual, per_image)
        self._train_on(universals)

    def _scout(self, usual: Sequence[Direction], per_image: float) -> None:
        """Look at every direction, or at as many as a share of the time and of the work allow, for pixels and patches.

        Args:
            usual: directions of a usual round.
            per_image: seconds that one image of one inversion step takes.
        """
        left = self.pace.left(self.config.candidates)
        steps = self.config.total_steps(len(self.images), self.classes)
        most = _MOST_SCOUTING * steps / self.config.steps_per_round * self._work_of_round(usual)
        kinds = 2 if self.config.patch_share else 1
        work = min(_FOR_SCOUTING / kinds * left / max(per_image, 1e-12), most)
        self.emit(PhaseStarted("warm-up: every pair"))
        directions, found = self._scouted(self.inverter, self.config.scout, work)
        self.scouted = len(directions)
        if found is not None:
            self.table.scouted(directions, found)
            self.bank.keep(directions, found)
        if self.config.patch_share:
            self.emit(PhaseStarted("warm-up: every pair by patches"))
            state = self.generator.get_state()
            self.suspects = self._seek_patches(work)
            self.generator.set_state(state)  # a model without suspects is hardened as if none had been sought
            for each in self.suspects:
                self.emit(Note(str(each)))

    def _seek_patches(self, work: float) -> list[Suspect]:
        """Scout by patches, look again where one is small, and return what stands out."""
        config = self.config
        looking = replace(self.inverter, augmented=False)  # shifts blur what stands out
        directions, found = self._scouted(looking, config.patch, work)
        if found is None:
            return []
        sizes, median = found.size, float(found.size.nanmedian())
        for _ in range(config.patch_looks - 1):
            rows = look_again(sizes, median)
            if not rows:
                break
            drawn = [self.sampler.draw([directions[row][0]], config.scout_images) for row in rows]
            again = looking.invert(drawn, [directions[row][1] for row in rows], config.patch)
            sizes[rows] = sizes[rows].fmin(again.size)
        return suspects(directions, sizes, median, share=config.patch_share)

    def _look_at_tints(self, per_image: float) -> None:
        """See in which directions tints stand out; a share of the time bounds of how many classes."""
        if not self.config.tint_deviations:
            return
        self.emit(PhaseStarted("warm-up: tints"))
        state = self.generator.get_state()
        work = _FOR_TINTS * self.pace.left(self.config.candidates) / max(per_image, 1e-12)
        self.tint_suspects = self._tinter().suspects(self.config.tint_deviations, work=work)
        self.generator.set_state(state)  # as for patches
        for each in self.tint_suspects:
            self.emit(Note(str(each)))

    def _scouted(
        self, inverter: Inverter, config: InversionConfig, work: float
    ) -> tuple[list[Pair], Inverted | None]:
        images = self.config.scout_images
        made = scout(inverter, config, images, self.classes, work=work, emit=self.emit)
        directions, found = made or ([], None)
        self.unscouted += self.classes * (self.classes - 1) - len(directions)
        return directions, found

    def _fit_warm_up(self) -> None:
        """Cut the warm-up to a share of the time."""
        per_image = seconds_per_image(self.inverter, self.config, self.classes, now=self.budget.now)
        affordable = _FOR_WARM_UP * self.pace.left(self.config.candidates) / max(per_image, 1e-12)
        whole, self.extent = self.extent, self.extent.within(affordable)
        if self.extent != whole:
            targets, images, steps = self.extent.targets, self.extent.images, self.extent.steps
            self.emit(
                Note(
                    f"the time budget allows universal triggers of {targets} of {whole.targets} classes, made on "
                    f"{images} of {whole.images} images in {steps} of {whole.steps} steps"
                )
            )

    def _plan(self, usual: Sequence[Direction], per_image: float) -> None:
        """Take as many steps as the time allows, so that the learning rate falls to its end within it.

        Args:
            usual: directions of a usual round.
            per_image: seconds that one image of one inversion step takes, as the warm-up showed.
        """
        left = _OF_BUDGET * self.pace.left(self.config.candidates)
        rounds = int(left / max(self._work_of_round(usual) * per_image, 1e-9))
        planned = self.extent.targets + rounds * self.config.steps_per_round
        if planned < self.trainer.total:
            self.trainer.total = planned
            text = f"the time budget allows {planned} training steps"
            if rounds == 0:
                self.shortened, text = True, "the time budget allows no round after the warm-up"
            elif self._is_whole():
                text += f"; --steps {planned} repeats them"
            self.emit(Note(text))

    def _is_whole(self) -> bool:
        """Return whether time cut nothing of the warm-up."""
        return self.unscouted == 0 and self.extent == whole_extent(self.inverter, self.config, self.classes)

    def _work_of_round(self, usual: Sequence[Direction]) -> int:
        """Return what a round of the ``usual`` directions costs, in images of one inversion step."""
        inverted = sum(
            min(self._most(direction), self.sampler.count(source))
            for direction in usual
            for source in sources_of(direction, self.classes)
        )
        patched = min(len(self.suspects), self.config.suspects_per_round) * self.config.inversion_images
        return self.config.images_a_round(inverted, patched)

    def _train_on(self, universals: Universals) -> None:
        """Train one step against each of the ``universals``."""
        stamped = round(self.config.warm_up_stamped * self.config.training.batch_size)
        for row, target in enumerate(universals.targets):
            if self.is_done() or self.pace.is_over():
                return
            aim = (universals.found.trigger(row), sources_of((None, target), self.classes), stamped)
            self._train(self._stamps([aim]))

    def round(self, directions: Sequence[Direction]) -> None:
        """Invert the ``directions`` and patches of suspects, train on stamped images, keep the former's sizes."""
        began = self.budget.now()
        taught = [*self._patch_stamps(), *self._tint_stamps()]
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
                sizes.append(found.size)
            aims = [(found.trigger(row), each, self._count(each)) for row, each in enumerate(sources)]
            self._train([*self._stamps(aims), *taught])
        means = torch.stack(sizes).nanmean(0).tolist()
        for each, (_, target), size in zip(sources, directions, means, strict=True):
            for source in each:
                self.table.update(source, target, size)
        self.rounds += 1
        self.pace.took(self.budget.now() - began)
        self._report(directions, sizes[-1])
        self.judge.look(self.trainer.classifier, self.trainer.done, self.trainer.total)
        self._keep_pace()

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

    def _patch_stamps(self) -> Sequence[Stamp]:
        """Invert a patch of each suspect whose turn it is, from a start of its own, and return where they are stamped.

        One that went on from the last would follow it to where training left it, and lose sight of what was taught.
        """
        turn = in_their_turn(self.suspects, self.rounds, self.config.suspects_per_round)
        if not turn:
            return []
        drawn = [self._draw((each.source, each.target)) for each in turn]
        found = self.inverter.invert(drawn, [each.target for each in turn], self.config.patch)
        count = self.config.patch_stamped * self.config.stamped
        aims = [(found.trigger(row), (each.source,), count) for row, each in enumerate(turn)]
        return self._stamps(aims, roam=self.config.patch.roam)

    def _tint_stamps(self) -> Sequence[Stamp]:
        """Return the tints that work best by now against each suspect whose turn it is."""
        turn = in_their_turn(self.tint_suspects, self.rounds, self.config.suspects_per_round)
        directions = [(each.source, each.target) for each in turn]
        config = self.config
        return self._tinter().stamps(
            directions, tried=config.tints_tried, kept=config.tints_kept, count=config.stamped
        )

    def _tinter(self) -> Tinter:
        return Tinter(
            self.trainer.classifier,
            self.sampler,
            self.config.tint_strength,
            self.generator,
            self.inverter.device,
        )

    def _keep_pace(self) -> None:
        """Plan fewer steps where rounds take longer than was planned; the learning rate then falls faster."""
        each, left = self.config.steps_per_round, self.trainer.total - self.trainer.done
        ahead = max(1, self.config.candidates - len(self.judge.tried))
        planned = math.ceil(left / each)
        rounds = self.pace.rounds_left(ahead, planned)
        if rounds < planned:
            self.shortened = True
            self.trainer.total = self.trainer.done + rounds * each
            self.emit(
                Note(f"rounds take longer than was planned: {self.trainer.total} training steps in all")
            )

    def _most(self, direction: Direction) -> int:
        """Return how many images of a source class the trigger of ``direction`` is inverted on, at most."""
        return self.config.warm_up_images if direction[0] is None else self.config.inversion_images

    def _draw(self, direction: Direction) -> Tensor:
        """Return the images that the trigger of ``direction`` is inverted on."""
        sources = sources_of(direction, self.classes)
        return torch.cat([self.sampler.draw([source], self._most(direction)) for source in sources])

    def _count(self, sources: Sequence[int]) -> int:
        return min(self.config.stamped * len(sources), self.config.room)

    def _stamps(self, aims: Sequence[Aim], *, roam: int = 0) -> Sequence[Stamp]:
        return usable_stamps(aims, largest=self.config.largest_stamp, roam=roam)

    def _train(self, stamps: Sequence[Stamp]) -> None:
        batch = self.sampler.batch(in_turn(stamps, self.trainer.done, self.config.room))
        self.trainer.step(self._attacked(batch) if self.config.pgd_eps else batch)

    def _attacked(self, batch: Batch) -> Batch:
        """Return ``batch`` with its unstamped images moved to where the present weights do worst, within a bound."""
        worst = pgd_examples(
            self.trainer.classifier,
            batch.x[batch.stamped :],
            batch.y[batch.stamped :],
            PgdConfig(eps=self.config.pgd_eps, steps=self.config.pgd_steps),
            generator=self.generator,
            device=self.inverter.device,
        )
        return replace(batch, x=torch.cat([batch.x[: batch.stamped], worst]))

    def _report(self, directions: Sequence[Direction], sizes: Tensor) -> None:
        done, total = self.trainer.done, self.trainer.total
        names = " ".join(f"{'all' if s is None else s}-{t}" for s, t in directions[:8:2])
        found = sizes[~sizes.isnan()]
        size = f"{float(found.mean()):.1f} px" if len(found) else "none found"
        self.emit(StepDone(done, total, f"pairs {names}, triggers {size}"))

    def result(self) -> Hardened:
        """Return the best of what was judged; weights cut off by time are judged as they are.

        Weights of no step are the original's, and no result.
        """
        tried, done = self.judge.tried, self.trainer.done
        if done and (not tried or tried[-1].step != done):
            self.judge.take(self.trainer.classifier, done)
        if done and not self.pace.is_over():
            self.judge.retreat(
                self.teacher, max_drop=self.budget.max_accuracy_drop, least=self.config.least_share
            )
        return self.judge.result(
            self.trainer.classifier,
            self.budget,
            steps=done,
            cut=self.shortened or not self.is_done(),
            seen=self.images.digest,
            details=self._details(),
        )

    def _details(self) -> dict[str, Any]:
        visited = [[s, t, int(n)] for s, t, n in _entries(self.table.visits) if n and s < t]
        return {
            "config": asdict(self.config),
            "mirrored": self.mirror,
            "warm_up": asdict(self.extent),
            "scouted_directions": self.scouted,
            "suspects": [asdict(each) for each in self.suspects],
            "tint_suspects": [asdict(each) for each in self.tint_suspects],
            "rounds": self.rounds,
            "planned_steps": self.trainer.total,
            "pairs_visited": visited,
            "last_mask_l1": [
                [s, t, size] for s, t, size in _entries(self.table.size) if not math.isnan(size)
            ],
            "held_back_accuracy_before": dict(
                zip(("plain", "hard_views"), self.judge.estimator.before, strict=True)
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
            "suspects": [asdict(each) for each in self.suspects],
            "tint_suspects": [asdict(each) for each in self.tint_suspects],
            "tried": [(c.step, c.accuracy_drop, c.weights, c.share) for c in self.judge.tried],
            "rounds": self.rounds,
            "extent": asdict(self.extent),
            "scouted": self.scouted,
            "spent": self.pace.spent,
            "shortened": self.shortened,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from ``state``."""
        self.trainer.restore(state["trainer"])
        self.sampler.restore(state["sampler"])
        self._table = PairTable(**state["table"])
        self._bank = TriggerBank(**state["bank"])
        self.suspects = [Suspect(**each) for each in state["suspects"]]
        self.tint_suspects = [TintSuspect(**each) for each in state["tint_suspects"]]
        self.judge.tried = [Candidate(*each) for each in state["tried"]]
        self.rounds = int(state["rounds"])
        self.extent = Extent(**state["extent"])
        self.scouted = int(state["scouted"])
        self.pace.started -= float(state["spent"])  # the budget is for all sittings together
        self.shortened = bool(state["shortened"])
        self.generator.set_state(state["generator"])


def _follows_batches(
    teacher: Classifier, images: ImageSet, config: MothConfig, device: torch.device, emit: EventSink
) -> bool:
    """Return whether layers of a copy of ``teacher`` are to follow their batches in training."""
    if not config.training.batch_statistics:
        return False
    if not has_norm(teacher):
        emit(Note("no layer normalises: gradients are kept short"))
        return False
    lost = loss_by_batch(teacher, images, config.training.batch_size, device)
    if lost > config.loss_by_batch:
        emit(Note(f"statistics of a batch cost {lost:.1f} points of accuracy: BatchNorm keeps its own"))
    return lost <= config.loss_by_batch


def _entries(table: Tensor) -> Iterator[tuple[int, int, float]]:
    for s in range(len(table)):
        for t in range(len(table)):
            if s != t:
                yield s, t, float(table[s, t])
