"""Judges weights on held-back images while a method runs, and picks those that come back."""

import copy
from dataclasses import dataclass, field
from typing import Any

from mothkit.classifier import Classifier
from mothkit.hardening.base import Budget, Hardened
from mothkit.hardening.selection import Candidate, DropEstimator, best_of


@dataclass(slots=True, eq=False)
class Judge:
    """Keeps the weights that were judged.

    Attributes:
        estimator: tells how much accuracy weights cost.
        looks: how many times weights are judged in a run, evenly over its last half.
        tried: what was judged, oldest first.
    """

    estimator: DropEstimator
    looks: int
    tried: list[Candidate] = field(default_factory=list)

    def look(self, classifier: Classifier, step: int, total: int) -> None:
        """Judge the weights after ``step`` of ``total`` steps if that is due."""
        ahead = self.looks - 1 - len(self.tried)
        if step >= total or step >= total - ahead * total / 2 / max(self.looks - 1, 1):
            self.take(classifier, step)

    def take(self, classifier: Classifier, step: int) -> Candidate:
        """Judge the weights as they are, after ``step`` steps."""
        weights = {name: tensor.detach().cpu().clone() for name, tensor in classifier.state_dict().items()}
        candidate = Candidate(step, self.estimator.drop(classifier), weights)
        self.tried.append(candidate)
        return candidate

    def result(
        self,
        classifier: Classifier,
        budget: Budget,
        *,
        steps: int,
        cut: bool,
        seen: str,
        details: dict[str, Any],
    ) -> Hardened:
        """Return the best of what was judged, in a copy of ``classifier``."""
        chosen = best_of(self.tried, budget.max_accuracy_drop)
        hardened = None
        if chosen is not None:
            hardened = copy.deepcopy(classifier)
            hardened.load_state_dict(chosen.weights)
            hardened = hardened.cpu().eval()
        return Hardened(
            classifier=hardened,
            chosen=chosen,
            candidates=tuple(self.tried),
            steps=steps,
            cut=cut,
            seen=(seen,),
            details=details,
        )
