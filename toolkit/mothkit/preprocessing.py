"""Which preprocessing a model was made for: every candidate measured on labelled images, side by side.

The candidates are the presets, in each layout, channel order and way of resizing that the model and the images
leave open. docs/preprocessing.md states the rule by which one is taken, or none.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from mothkit.errors import ImageError, InputSpecError, ModelError
from mothkit.evaluation import Rate, least_credible
from mothkit.events import EventSink, PhaseStarted, StepDone, silent
from mothkit.images import ImageSet, Resize
from mothkit.inputs import Channels, Dimension, InputSpec, Layout, fit

ROUNDS = (125, 500, 2000)
"""Images that the candidates still in the race have been measured on; the last settles differences of a point."""

_ERROR = 0.01  # chance that the best candidate is declared beaten, over all comparisons of a search
_LOSS_IMAGES = 100  # below, the mean loss is too far from normal for its test
_SAME = 0.05  # of how logits vary; not 0, since rounding flips signs in binarised networks (GTSRB's: 0.04)
_SHARPNESS = torch.logspace(-4, 3, 57)  # factors on the logits; pixels 255 times too large are within it
_BATCH = 64

Verdict = Literal["open", "taken", "leads", "close", "beaten", "same", "failed"]
Predict = Callable[[InputSpec, Tensor], Tensor]
"""A fitted spec and pixels [N, C, H, W], 0..1, to logits [N, classes]; raises ModelError where it cannot."""


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """One way from pictures to a model's input: labelled images, resized in one way, and a fitted spec."""

    spec: InputSpec
    resize: Resize | None
    images: ImageSet

    @property
    def name(self) -> str:
        """What the options that ask for it say: ``imagenet bgr nchw crop``."""
        parts = (self.spec.name, self.spec.channels, self.spec.layout, self.resize)
        return " ".join(part for part in parts if part)


@dataclass(slots=True, eq=False)
class Candidate:
    """A reading and what is known of it so far.

    Attributes:
        logits: [n, classes], of the images that it was measured on.
        right: [n], whether each is classified as its label.
        loss: [n], cross-entropy in nats, the logits multiplied by the one factor that makes its mean least.
        verdict: ``taken``, or ``leads`` where none is; ``close`` to that one; ``beaten`` by it; the ``same`` to
            the model as another; ``failed`` to run; ``open`` while not judged.
        detail: against which other candidate, or why.
    """

    reading: Reading
    logits: Tensor = field(default_factory=lambda: torch.empty(0))
    right: Tensor = field(default_factory=lambda: torch.empty(0))
    loss: Tensor = field(default_factory=lambda: torch.empty(0))
    verdict: Verdict = "open"
    detail: str = ""

    @property
    def hits(self) -> int:
        """How many images are classified as their label."""
        return int(self.right.sum())

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        measured = len(self.right) > 0
        return {
            "input_spec": self.reading.spec.to_dict(),
            "resize": self.reading.resize,
            "accuracy": Rate(self.hits, len(self.right)).to_dict() if measured else None,
            "loss": float(self.loss.mean()) if measured else None,
            "verdict": self.verdict,
            "detail": self.detail,
        }


@dataclass(frozen=True, slots=True, eq=False)
class Search:
    """What came of measuring every candidate; the best is first.

    Attributes:
        taken: the reading that is clearly ahead; None where there is none.
        reason: why there is none, and what would help; empty otherwise.
        seen: the images that the choice has seen, as the first candidate shows them.
    """

    candidates: tuple[Candidate, ...]
    taken: Reading | None
    reason: str
    level: float
    chance: float
    seen: ImageSet

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {
            "taken": None if self.taken is None else self.taken.name,
            "reason": self.reason,
            "rule": {
                "rounds": list(ROUNDS),
                "error": _ERROR,
                "level": self.level,
                "chance": self.chance,
                "accuracy_above": least_credible(self.chance),
            },
            "images": {"origin": self.seen.origin, "count": len(self.seen), "digest": self.seen.digest},
            "candidates": [candidate.to_dict() for candidate in self.candidates],
        }


def fitting_specs(
    scalings: Sequence[InputSpec],
    input_shape: Sequence[Dimension],
    *,
    layout: Layout | None,
    channels: Channels | None,
) -> list[InputSpec]:
    """Return ``scalings`` in every layout and channel order that fits a model's input, the plainest first.

    Args:
        scalings: what their channels say holds only where they are grey.
        input_shape: as for ``fit``.
        layout: what is known of it.
        channels: what is known of them.

    Raises:
        InputSpecError: none fits.
    """
    found = []
    layouts = (layout,) if layout else get_args(Layout)
    orders = (channels,) if channels else get_args(Channels)
    for scaling in scalings:
        for order, axes in itertools.product(orders, layouts):
            if scaling.channels == "gray" != order:
                continue
            try:
                found.append(fit(replace(scaling, layout=axes, channels=order), input_shape))
            except InputSpecError:  # it is for another number of channels, or for three colours
                continue
    if not found:
        fit(replace(scalings[0], layout=layout, channels=channels), input_shape)  # says what does not fit
        raise InputSpecError(f"no preprocessing fits the model's input {list(input_shape)}")
    return found


def count_classes(predict: Predict, readings: Sequence[Reading]) -> int:
    """Return how many scores the model gives, by one image.

    Raises:
        ModelError: it takes none of ``readings``.
    """
    refusal: ModelError | None = None
    for reading in readings:
        try:
            return predict(reading.spec, reading.images.pixels([0])).shape[1]
        except ModelError as error:
            refusal = refusal or error
    raise refusal or ModelError("nothing to measure")


def search(
    predict: Predict, readings: Sequence[Reading], classes: int, *, seed: int, emit: EventSink = silent
) -> Search:
    """Return which of ``readings`` is clearly ahead of all others, if one is.

    Args:
        predict: the model.
        readings: at least one; all of the same pictures in the same order, the plainest first.
        classes: how many scores the model gives.
        seed: of the draw of images: evenly from all classes, up to the last of ``ROUNDS``.
        emit: told of progress.

    Raises:
        ImageError: images of fewer than two classes.
    """
    images = readings[0].images
    order = _even_order(images.labels, torch.Generator().manual_seed(seed))[: ROUNDS[-1]]
    labels = images.labels[order]
    if len(set(labels.tolist())) < 2:
        raise ImageError(
            f"{images.origin}: has images of one class only, on which any preprocessing may look right; "
            "give images of several, or --preprocess"
        )
    level = _ERROR / (2 * len(ROUNDS) * max(1, len(readings) - 1))
    candidates = [Candidate(reading) for reading in readings]
    done, credible, rivals = 0, False, candidates
    for stop in sorted({min(planned, len(order)) for planned in ROUNDS}):
        _measure(predict, _running(candidates), order[done:stop], labels[:stop], emit)
        done, chance = stop, _chance(labels[:stop], classes)
        rivals = _judge(candidates, level)
        credible = bool(rivals) and Rate(rivals[0].hits, done).interval[0] > least_credible(chance)
        if credible and not any(candidate.verdict == "close" for candidate in candidates):
            break
    reason = _reason(rivals, credible=credible, chance=chance, origin=f"{done} images of {images.origin}")
    if rivals:
        rivals[0].verdict = "leads" if reason else "taken"
    return Search(
        candidates=tuple(sorted(candidates, key=_rank)),
        taken=None if reason else rivals[0].reading,
        reason=reason,
        level=level,
        chance=chance,
        seen=(rivals[0].reading.images if rivals else images).subset(order[:done]),
    )


def _even_order(labels: Tensor, generator: torch.Generator) -> Tensor:
    """Return all positions [N], shuffled so that however many are taken, classes are as even as can be."""
    shuffled = torch.randperm(len(labels), generator=generator)
    turn = torch.empty(len(labels))
    for label in set(labels.tolist()):
        members = (labels[shuffled] == label).nonzero()[:, 0]
        turn[members] = torch.arange(len(members), dtype=torch.float32)
    return shuffled[torch.sort(turn, stable=True).indices]


def _chance(labels: Tensor, classes: int) -> float:
    """Return the accuracy of the best answer that looks at no image."""
    return max(1 / classes, float(labels.bincount().max()) / len(labels))


def _running(candidates: Sequence[Candidate]) -> list[Candidate]:
    return [candidate for candidate in candidates if candidate.verdict in ("open", "close")]


def _measure(
    predict: Predict, running: Sequence[Candidate], new: Tensor, labels: Tensor, emit: EventSink
) -> None:
    """Add the images at ``new`` to what is known of each candidate; ``labels`` are those of all so far."""
    emit(PhaseStarted(f"find preprocessing, {len(labels)} images", len(running)))
    for number, candidate in enumerate(running, start=1):
        reading = candidate.reading
        try:
            rows = [predict(reading.spec, reading.images.pixels(part)) for part in torch.split(new, _BATCH)]
        except ModelError as error:
            candidate.verdict, candidate.detail = "failed", str(error)
            continue
        candidate.logits = torch.cat([candidate.logits, *rows]) if len(candidate.logits) else torch.cat(rows)
        candidate.right = candidate.logits.argmax(1) == labels
        candidate.loss = _calibrated_loss(candidate.logits, labels)
        emit(StepDone(number, len(running), reading.name))


def _calibrated_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy of each image [n]; larger logits alone make it neither better nor worse."""
    losses = [cross_entropy(logits * factor, labels, reduction="none") for factor in _SHARPNESS]
    return min(losses, key=lambda loss: float(loss.mean()))


def _judge(candidates: Sequence[Candidate], level: float) -> list[Candidate]:
    """Give each candidate its verdict so far; return the leader and, after it, those that it does not beat."""
    _merge(_running(candidates))
    running = sorted(_running(candidates), key=lambda c: (-c.hits, float(c.loss.mean())))
    if not running:
        return []
    leader = running[0]
    plain = next((c for c in running if _stands_for(c, leader)), leader)
    if not _is_more_accurate(leader, plain, level):
        leader = plain
    rivals = []
    for candidate in running:
        candidate.verdict, candidate.detail = "open", ""
        if candidate is leader:
            continue
        if _stands_for(leader, candidate):
            candidate.verdict, candidate.detail = "close", f"{leader.reading.name} stands for both"
        elif _is_ahead(leader, candidate, level):
            candidate.verdict, candidate.detail = "beaten", _score(leader, candidate)
        else:
            candidate.verdict, candidate.detail = "close", _score(leader, candidate)
            rivals.append(candidate)
    return [leader, *rivals]


def _merge(running: Sequence[Candidate]) -> None:
    """Let the first of those that the model does not tell apart stand for all of them."""
    kept: list[Candidate] = []
    for candidate in running:
        other = next((c for c in kept if _is_same(c.logits, candidate.logits)), None)
        if other is None:
            kept.append(candidate)
        else:
            candidate.verdict, candidate.detail = "same", f"to the model as {other.reading.name}"


def _is_same(a: Tensor, b: Tensor) -> bool:
    """Return whether logits [n, classes] differ by next to nothing of what they vary from image to image."""
    return float((a - b).double().norm()) <= _SAME * float((a - a.mean(0)).double().norm())


def _stands_for(plain: Candidate, other: Candidate) -> bool:
    """Return whether the two are one on images that span all values, and differ only by stretching the others."""
    if plain.reading.spec.per_image or plain.reading.resize != other.reading.resize:
        return False
    stretched = replace(plain.reading.spec, per_image=True, name=other.reading.spec.name)
    return stretched == other.reading.spec


def _is_ahead(a: Candidate, b: Candidate, level: float) -> bool:
    """Return whether ``a`` is clearly ahead of ``b``: no fewer right, and by one of two paired tests."""
    return a.hits >= b.hits and (_is_more_accurate(a, b, level) or _has_less_loss(a, b, level))


def _is_more_accurate(a: Candidate, b: Candidate, level: float) -> bool:
    """McNemar's test, exact and one-sided, on the images that only one of the two has right."""
    wins, losses = _discordant(a, b)
    count = wins + losses
    return sum(math.comb(count, k) for k in range(losses + 1)) / (1 << count) < level


def _has_less_loss(a: Candidate, b: Candidate, level: float) -> bool:
    """One-sided z test on the mean of the images' differences."""
    difference = (b.loss - a.loss).double()
    if len(difference) < _LOSS_IMAGES:
        return False
    error = float(difference.std()) / math.sqrt(len(difference))
    return error > 0 and math.erfc(float(difference.mean()) / error / math.sqrt(2)) / 2 < level


def _discordant(a: Candidate, b: Candidate) -> tuple[int, int]:
    return int((a.right & ~b.right).sum()), int((b.right & ~a.right).sum())


def _score(leader: Candidate, other: Candidate) -> str:
    wins, losses = _discordant(leader, other)
    return f"{wins} to {losses} for {leader.reading.name}"


def _reason(rivals: Sequence[Candidate], *, credible: bool, chance: float, origin: str) -> str:
    """Return why nothing is taken, empty if the leader is."""
    if not rivals:
        return f"the model runs with none of the candidates on {origin}"
    leader, *others = rivals
    rate = f"{leader.reading.name}, right on {leader.hits} of {origin},"
    if not credible:
        return (
            f"the best, {rate} is not clearly above chance ({100 * chance:.1f} %): too few images, other classes "
            "or another order of them (--labels), or none of these is right; say --preprocess"
        )
    if not others:
        return ""
    others = [c for c in others if not any(_stands_for(plain, c) for plain in others)]
    close = ", ".join(other.reading.name for other in others[:4]) + (", ..." if len(others) > 4 else "")
    return f"{rate} is not clearly ahead of {close}; say {_advice([c.reading for c in (leader, *others)])}"


def _advice(readings: Sequence[Reading]) -> str:
    """Return the options that would settle it, where the candidates in question differ."""
    choices = (
        ("--preprocess", [reading.spec.name for reading in readings]),
        ("--channels", [reading.spec.channels for reading in readings]),
        ("--layout", [reading.spec.layout for reading in readings]),
        ("--resize", [reading.resize for reading in readings]),
    )
    told = [
        f"{option} {' or '.join(str(value) for value in dict.fromkeys(values))}"
        for option, values in choices
        if len(set(values)) > 1
    ]
    return ", ".join([*told, "or give more images"])


def _rank(candidate: Candidate) -> tuple[int, float]:
    place = {"taken": 0, "leads": 0, "close": 1, "failed": 3}.get(candidate.verdict, 2)
    return place, -(candidate.hits / max(1, len(candidate.right)))
