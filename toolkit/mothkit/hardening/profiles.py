"""The numbers of a MOTH run, and the two profiles: ours and the paper's."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from mothkit.errors import ConfigError
from mothkit.hardening.training import TrainingConfig
from mothkit.inversion.config import QUICK, InversionConfig
from mothkit.inversion.plan import Plan

_COUNTS = (
    "warm_up_images",
    "inversion_images",
    "pairs_per_round",
    "steps_per_round",
    "stamped",
    "ease_fades_over",
    "pgd_steps",
    "views",
    "candidates",
    "steady_stamped",
    "patch_looks",
    "patch_stamped",
    "suspects_per_round",
    "tints_tried",
    "tints_kept",
)
PairChoice = Literal["paper", "ucb"]
_COSTED = 32 * 32  # pixels of the images for which a patch's cost is given
_TRAINING_COST = 2.0  # of an image in a training step, against one in an inversion step

_RANGES: tuple[tuple[tuple[str, ...], Callable[[Any], bool], str], ...] = (
    (_COUNTS, lambda n: n >= 1, "at least 1"),
    (("largest_stamp", "most_stamped", "least_share"), lambda x: 0 < x <= 1, "in (0, 1]"),
    (("exploration", "warm_up_stamped", "pgd_eps", "tint_strength"), lambda x: 0 <= x <= 1, "in [0, 1]"),
    (("held_back",), lambda x: 0 < x < 1, "in (0, 1)"),
    (("steady_batch",), lambda x: x >= 1, "at least 1"),
    (
        (
            *("ucb_width", "following_clip", "steady_clip", "loss_by_batch", "scout_images"),
            *("weakest_per_round", "tint_deviations"),
        ),
        lambda x: x >= 0,
        "at least 0",
    ),
    (("patch_share",), lambda x: 0 <= x < 1, "in [0, 1)"),
    (("patch_cell", "patch_roam"), lambda x: 0 <= x <= 0.5, "in [0, 0.5]"),
    (("choice",), lambda word: word in get_args(PairChoice), f"one of {', '.join(get_args(PairChoice))}"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MothConfig:
    """Numbers of a MOTH run. ``DEFAULT`` and ``PAPER`` are the two profiles.

    Attributes:
        steps_per_class: training steps of the whole run, times classes; 0 to go by ``epochs``.
        epochs: passes over the images, if ``steps_per_class`` is 0.
        training: how weights are updated.
        following_clip: bound on the length of a gradient, 0 for none (paper: none), of a model whose layers follow a
            batch's statistics (ours: seldom reached, but by small networks in the warm-up).
        steady_clip: the same of a model whose layers do not follow them: it has no such layers, as exporters fold
            them, or loses by them (ours).
        steady_batch: how many times as many images a batch of such a model has (paper: 1).
        steady_stamped: how many times as many images are stamped there per direction and step (paper: 1).
        loss_by_batch: points of accuracy on clean images that the original may lose where its layers follow a batch; if
            it loses more, they keep their statistics (ours; paper: 100).
        warm_up: inversion of the universal triggers, one a target class.
        warm_up_images: images of each other class that a universal trigger is made on (paper: 10).
        warm_up_stamped: share of a warm-up batch that is stamped (paper: 0.5).
        scout: inversion of every direction in the warm-up, to see how near the classes lie (paper: none).
        scout_images: images of the source class that it takes; 0 for none of it, as the paper.
        inversion: inversion of a pair when it comes up.
        refresh: its short repetition within a round; used if ``inversions_per_round`` is above 1.
        inversion_images: images of a source class that a pair's trigger is made on.
        carry_cost: whether a direction's inversion starts at the cost at which its last one ended.
        patch_share: the warm-up looks for patches, too, that turn one class into another wherever they lie; a direction
            with one below this share of the median patch is a suspect, and patches of it are trained against in every
            round; 0 for none of it (paper: none).
        patch_looks: how often a direction whose patch is small is looked at, from other starts; its smallest counts.
        suspects_per_round: suspects by patches that have their turn in a round, at most, and as many by tints.
        patch: inversion of these; its cost is for images of 32 x 32, its ``cell`` and ``roam`` come from the shares.
        patch_cell: edge of the squares of one colour, share of the images' shorter side.
        patch_roam: how far from its place a patch may lie, in both directions, share of the same.
        patch_stamped: how many times as many images are stamped with patches, per direction and step.
        tint_deviations: the warm-up looks at random tints, too, as of photographic filters; a direction in which they
            turn images by more than so many standard deviations is a suspect, and tints are trained against there in
            every round; 0 for none of it (paper: none).
        tint_strength: how far the factors of a tint may lie from 1, 0 to 1.
        tints_tried: tints drawn for a direction in each round; tints_kept: as many of them are stamped, those that the
            target gains most by.
        pairs_per_round: pairs hardened together (paper: 1).
        weakest_per_round: as many of them are those with the smallest trigger known (paper: 0).
        steps_per_round: training steps of a round (paper: 3).
        inversions_per_round: how often a round inverts its triggers (paper: each of its 3 steps).
        stamped: images stamped per direction and step.
        most_stamped: share of a batch that is stamped at most; of more directions each is stamped in some of the
            steps (ours: all ten classes' pairs fit into one batch).
        choice: how a round's pairs are chosen: ``paper``, by ease and growth and chance, or ``ucb``, by the
            upper confidence bound of their growth (see ``pairs.py`` for both).
        exploration: of ``paper``: probability of a random pair (paper: 0.3).
        ucb_width: of ``ucb``: weight of what is not yet known of a pair (ours; UCB1's is 2, at which a run of usual
            length visits all pairs alike).
        ease_fades_over: of ``paper``: steps over which pair choice moves from warm-up ease to growth (paper: 1000).
        pgd_eps: largest change of a value, 0 to 1, by which the images of a batch are attacked before a step, but
            for the stamped ones: for models that were trained so (paper: 8/255 on CIFAR-10); 0 for none.
        pgd_steps: steps of that attack, of 1.75 eps / steps each (paper: 7).
        largest_stamp: a trigger whose mask covers more than this share of the image is not stamped
            (published PyTorch code: a quarter).
        held_back: share of the clean images on which accuracy is judged.
        views: hard views of each of them.
        candidates: how many times weights are judged, over the last half of the run.
        least_share: where the last weights cost too much accuracy, weights on the way back to the original's are
            judged, down to this share of the way (paper: 1). They win back more accuracy than they lose distance, but
            of a backdoor some may come back with it.
    """

    steps_per_class: int = 24
    epochs: float = 0
    training: TrainingConfig = field(default_factory=TrainingConfig)
    following_clip: float = 10.0
    steady_clip: float = 1.0
    steady_batch: float = 1.5
    steady_stamped: int = 4
    loss_by_batch: float = 4.0
    warm_up: InversionConfig = field(default_factory=InversionConfig)
    warm_up_images: int = 10
    warm_up_stamped: float = 0.5
    scout: InversionConfig = field(default_factory=InversionConfig)
    scout_images: int = 0
    inversion: InversionConfig = field(default_factory=InversionConfig)
    refresh: InversionConfig = field(default_factory=InversionConfig)
    inversion_images: int = 32
    carry_cost: bool = False
    patch_share: float = 0.0
    patch_looks: int = 3
    suspects_per_round: int = 4
    patch: InversionConfig = field(default_factory=InversionConfig)
    patch_cell: float = 0.125
    patch_roam: float = 0.1875
    patch_stamped: int = 1
    tint_deviations: float = 0.0
    tint_strength: float = 0.5
    tints_tried: int = 32
    tints_kept: int = 4
    pairs_per_round: int = 4
    weakest_per_round: int = 0
    steps_per_round: int = 5
    inversions_per_round: int = 1
    stamped: int = 1
    most_stamped: float = 0.75
    choice: PairChoice = "paper"
    exploration: float = 0.3
    ucb_width: float = 0.2
    ease_fades_over: int = 1000
    pgd_eps: float = 0.0
    pgd_steps: int = 7
    largest_stamp: float = 0.25
    held_back: float = 0.15
    views: int = 16
    candidates: int = 5
    least_share: float = 0.5

    def __post_init__(self) -> None:
        for names, fits, range_ in _RANGES:
            for name in names:
                if not fits(value := getattr(self, name)):
                    raise ConfigError(f"{name} is {value!r}, not {range_}")
        if not 1 <= self.inversions_per_round <= self.steps_per_round:
            raise ConfigError(
                f"inversions_per_round is {self.inversions_per_round}, not in 1 to steps_per_round"
            )
        if (self.steps_per_class > 0) == (self.epochs > 0):
            raise ConfigError("give either steps_per_class or epochs, one of them above 0")

    def following(self) -> "MothConfig":
        """Return the same for a model whose layers follow a batch's statistics."""
        clip = self.training.clip or self.following_clip  # one that was asked for stays
        return replace(self, training=replace(self.training, clip=clip))

    def steady(self) -> "MothConfig":
        """Return the same for a model whose layers do not follow a batch's statistics."""
        batch_size = round(self.steady_batch * self.training.batch_size)
        clip = self.training.clip or self.steady_clip
        training = replace(self.training, batch_statistics=False, clip=clip, batch_size=batch_size)
        return replace(self, training=training, stamped=self.steady_stamped * self.stamped)

    def planned(self, plan: Plan) -> "MothConfig":
        """Return the same with every inversion computed by ``plan``."""
        return replace(
            self,
            warm_up=plan.pin(self.warm_up),
            scout=plan.pin(self.scout),
            inversion=plan.pin(self.inversion),
            refresh=plan.pin(self.refresh),
            patch=plan.pin(self.patch),
        )

    def sized(self, shape: Sequence[int]) -> "MothConfig":
        """Return the same with patches for images of ``shape`` [C, H, W]; the more pixels, the less one costs."""
        cell, roam = (round(share * min(shape[1:])) for share in (self.patch_cell, self.patch_roam))
        cost = self.patch.initial_cost * _COSTED / math.prod(shape[1:])
        return replace(self, patch=replace(self.patch, cell=max(1, cell), roam=roam, initial_cost=cost))

    @property
    def room(self) -> int:
        """How many images of a batch may be stamped."""
        return round(self.most_stamped * self.training.batch_size)

    def images_a_round(self, inverted: int, patched: int = 0) -> int:
        """Return what a round costs that inverts triggers on so many images, and patches on so many.

        It is counted in images of one inversion step.
        """
        steps = self.inversion.steps + (self.inversions_per_round - 1) * self.refresh.steps
        attacked = self.pgd_steps if self.pgd_eps else 0
        trained = round((_TRAINING_COST + attacked) * self.training.batch_size * self.steps_per_round)
        return inverted * steps + patched * self.patch.steps + trained

    def total_steps(self, images: int, classes: int) -> int:
        """Return the training steps of a run; at least one warm-up step a class and one round."""
        asked = self.steps_per_class * classes or math.ceil(self.epochs * images / self.training.batch_size)
        return max(asked, classes + self.steps_per_round)


DEFAULT = MothConfig(
    training=TrainingConfig(batch_size=192),
    ease_fades_over=100,
    warm_up=InversionConfig(steps=100, success_rate=0.95),
    scout=replace(QUICK, steps=30, starts=1),
    scout_images=10,
    inversion=InversionConfig(steps=20, initial_cost=0.05, patience=5, start_margin=1e-3),
    patch_share=0.33,
    tint_deviations=7.0,
    patch_stamped=2,
    patch=InversionConfig(steps=30, initial_cost=0.02, control="updates", gain=0.05, start_mask=0.3),
    weakest_per_round=1,
)
"""The default profile: all universal triggers at once, then a look at every pair; four pairs a round, one of them the
weakest known; patches and tints against suspects; warm starts, distillation."""

# The published PyTorch code sums the loss over a direction's images in a batch (about 13), where the engine
# takes their mean: its costs are divided by that number here.
_IN_A_BATCH = 13
PAPER = MothConfig(
    steps_per_class=0,
    epochs=2,
    following_clip=0.0,
    steady_clip=0.0,
    steady_batch=1.0,
    steady_stamped=1,
    loss_by_batch=100.0,
    training=TrainingConfig(learning_rate=1e-3, schedule="constant", distillation=0.0),
    warm_up=InversionConfig(steps=500, success_rate=0.99),
    inversion=InversionConfig(steps=200, initial_cost=1e-3 / _IN_A_BATCH, start_margin=1e-3),
    refresh=InversionConfig(steps=50, initial_cost=1e-2 / _IN_A_BATCH, start_margin=1e-3),
    inversion_images=_IN_A_BATCH,
    pairs_per_round=1,
    stamped=1,
    steps_per_round=3,
    inversions_per_round=3,
    least_share=1.0,
)
"""The paper's profile: its budgets, one pair at a time."""

PROFILES = {"default": DEFAULT, "paper": PAPER}
